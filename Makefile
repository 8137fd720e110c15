# Two commands do everything: `make demo` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints/newest.txt
EXTRAS ?= export,dev
BIN := $(VENV)/bin
# Policies are small in tests; more workers than this only get in each other's way.
PYTEST ?= $(BIN)/python -m pytest -n 2 --dist loadscope

# lerobot needs Python 3.12: the first interpreter that is new enough, pyenv's among them.
LEROBOT_PYTHON ?= $(shell for python in python3 python3.12 python3.13 \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.12*/bin/python3 \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13*/bin/python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo "$$python" && break; done)

.PHONY: help demo test test-lerobot fullsize lint types suite clean

help:
	@echo "make demo          make a small pi0 checkpoint, export it, prove it"
	@echo "make test          lint, types, and the test suite"
	@echo "make test-lerobot  the test suite with lerobot's policies, live (Python 3.12, 6 GB)"
	@echo "make fullsize FAMILY=pi0  a policy of the published size, exported and proven (groot,"
	@echo "                   pi0, pi0-lerobot, pi05, smolvla; 30 GB of disk in WORK=demo/fullsize)"
	@echo "make clean         remove what the others made"

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pytest-reflex needs Python 3.11 or later; give one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python examples/tiny_pi0.py demo/checkpoint
	$(BIN)/reflex export demo/checkpoint demo/p0 --cameras 2
	$(BIN)/reflex validate export demo/p0 --model demo/checkpoint --threshold 1e-4 --strict

test: lint types suite

test-lerobot:
	@test -n "$(LEROBOT_PYTHON)" \
		|| { echo "NOT RUN: lerobot needs Python 3.12 or later; give one with LEROBOT_PYTHON=..."; exit 1; }
	$(MAKE) suite PYTHON="$(LEROBOT_PYTHON)" VENV=.venv-lerobot CONSTRAINTS=constraints/lerobot.txt \
		EXTRAS=export,dev,lerobot

# pi0 of transformers needs no lerobot; all others run in its environment.
FAMILY ?= pi0
WORK ?= demo/fullsize
fullsize:
ifeq ($(FAMILY),pi0)
	$(MAKE) $(VENV)/.ready
	$(BIN)/python benchmarks/fullsize.py $(FAMILY) --work $(WORK) --evidence parity_reports/fullsize
else
	$(MAKE) .venv-lerobot/.ready PYTHON="$(LEROBOT_PYTHON)" VENV=.venv-lerobot \
		CONSTRAINTS=constraints/lerobot.txt EXTRAS=export,dev,lerobot
	.venv-lerobot/bin/python benchmarks/fullsize.py $(FAMILY) --work $(WORK) --evidence parity_reports/fullsize
endif

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

suite: $(VENV)/.ready
	$(PYTEST)

clean:
	rm -rf .venv .venv-lerobot demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
