# Two commands do everything: `make demo` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints/newest.txt
# Policies are small in tests; more threads than this only get in each other's way.
PYTEST ?= $(BIN)/python -m pytest -n 2 --dist loadscope

.PHONY: help demo test lint types suite clean

help:
	@echo "make demo   make a small pi0 checkpoint, export it, prove it"
	@echo "make test   lint, types, and the whole test suite"
	@echo "make clean  remove what the others made"

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pytest-reflex needs Python 3.11 or later; give one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[export,dev]'
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/tiny_pi0.py demo/checkpoint
	$(BIN)/reflex export demo/checkpoint demo/p0 --cameras 2
	$(BIN)/reflex validate export demo/p0 --model demo/checkpoint --threshold 1e-4 --strict

test: lint types suite

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

suite: $(VENV)/.ready
	$(PYTEST)

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
