# Two commands do everything: `make demo` and `make test`. Each sets up what it needs.

# Compiling every file of what is installed takes longer than compiling those that are imported, once: where that
# is forbidden, each process would compile them anew. For pip, "no" is how to say no-compile.
export PIP_NO_COMPILE ?= no
export PYTHONDONTWRITEBYTECODE =

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints/newest.txt
EXTRAS ?= export,dev
OPENPI ?= .venv-openpi
NODE_VENV ?= .venv-node
BIN := $(VENV)/bin
# Policies are small in tests; more workers than this only get in each other's way.
PYTEST ?= $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder
# What neither torch, lerobot nor Python's version decides is marked so, and runs in the first environment alone.
ONCE ?=

# lerobot needs Python 3.12: the first interpreter that is new enough, pyenv's among them.
LEROBOT_PYTHON ?= $(shell for python in python3 python3.12 python3.13 \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.12*/bin/python3 \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13*/bin/python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo "$$python" && break; done)

IN_LEROBOT = $(MAKE) PYTHON="$(LEROBOT_PYTHON)" VENV=.venv-lerobot CONSTRAINTS=constraints/lerobot.txt \
	EXTRAS=export,dev,lerobot ONCE=--once-elsewhere

.PHONY: help demo test test-lerobot lerobot openpi browser extras docs tutorial fullsize portability portability-slice lint types suite coverage coverage-lerobot clean

help:
	@echo "make demo          make a small pi0 checkpoint, export it, prove it"
	@echo "make test          lint, types, the documentation, and the test suite"
	@echo "make test-lerobot  the test suite with lerobot's policies, live (Python 3.12, 6 GB)"
	@echo "make lerobot       the environment of those policies alone, .venv-lerobot"
	@echo "make openpi        an unmodified openpi-client in an environment of its own, for the suite"
	@echo "make browser       a Chromium and axe-core from npm, for the tests that open the report"
	@echo "make docs          the documentation, in site/"
	@echo "make tutorial      the tutorial, followed to the letter in an empty environment (2 GB)"
	@echo "make fullsize FAMILY=pi0  a policy of the published size, exported and proven (act,"
	@echo "                   diffusion, groot, pi0, pi0-lerobot, pi05, smolvla, xvla; 30 GB of disk in WORK=demo/fullsize)"
	@echo "make portability   parity, golden and known-bad tests again as other processors would compute them (hours;"
	@echo "                   SETTINGS='oldest avx2' takes some of them; portability-slice is a minute of it)"
	@echo "make coverage      which lines and branches of pytest_reflex the suite runs; coverage-lerobot there"
	@echo "make clean         remove what the others made"

# The arms' models alone, where their tests run: what else those two packages want needs a compiler, and is not used.
$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pytest-reflex needs Python 3.11 or later; give one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	$(if $(ONCE),,$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) mujoco gymnasium)
	$(if $(ONCE),,$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-deps gym-hil gym-aloha)
	@touch $@

# openpi's own client wants numpy 1, so it has an environment of its own; wheels only, which takes seconds.
$(OPENPI)/.ready: constraints/openpi.txt
	rm -rf $(OPENPI)
	$(PYTHON) -m venv $(OPENPI)
	$(OPENPI)/bin/python -m pip install --quiet --only-binary :all: --requirement constraints/openpi.txt
	@touch $@

openpi: $(OPENPI)/.ready

$(NODE_VENV)/.ready: constraints/node.txt
	rm -rf $(NODE_VENV)
	$(PYTHON) -m venv $(NODE_VENV)
	$(NODE_VENV)/bin/python -m pip install --quiet --only-binary :all: --requirement constraints/node.txt
	@touch $@

# npm itself says whether the machine's Node is new enough for what is installed; where not, PyPI's is taken.
UNPACK = npm ci --engine-strict --no-audit --no-fund --loglevel=error >/dev/null && node unpack.mjs
tests/browser/node_modules/.ready: tests/browser/package-lock.json tests/browser/unpack.mjs
	@(cd tests/browser && $(UNPACK)) 2>/dev/null || { \
		echo "The machine has no Node that is new enough: taking the one that PyPI has, in $(NODE_VENV)"; \
		$(MAKE) --no-print-directory $(NODE_VENV)/.ready \
			&& cd tests/browser && PATH="$(abspath $(NODE_VENV))/bin:$$PATH" && $(UNPACK); }
	@touch $@

browser: tests/browser/node_modules/.ready

docs: $(VENV)/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

tutorial: $(VENV)/.ready
	$(BIN)/python tests/support/follow_tutorial.py

demo: $(VENV)/.ready
	$(BIN)/python examples/tiny_pi0.py demo/checkpoint
	$(BIN)/reflex export demo/checkpoint demo/p0 --cameras 2
	$(BIN)/reflex validate export demo/p0 --model demo/checkpoint --threshold 1e-4 --strict

# Each of these is at work on one core, and two of them wait for the network.
test:
	$(MAKE) --no-print-directory -j 2 extras types lint docs
	$(MAKE) --no-print-directory suite

lerobot:
	@test -n "$(LEROBOT_PYTHON)" \
		|| { echo "NOT RUN: lerobot needs Python 3.12 or later; give one with LEROBOT_PYTHON=..."; exit 1; }
	$(IN_LEROBOT) .venv-lerobot/.ready

test-lerobot: lerobot
	$(IN_LEROBOT) suite

# pi0 of transformers needs no lerobot; all others run in its environment.
FAMILY ?= pi0
WORK ?= demo/fullsize
fullsize:
ifeq ($(FAMILY),pi0)
	$(MAKE) $(VENV)/.ready
	$(BIN)/python benchmarks/fullsize.py $(FAMILY) --work $(WORK) --evidence parity_reports/fullsize
else
	$(MAKE) lerobot
	.venv-lerobot/bin/python benchmarks/fullsize.py $(FAMILY) --work $(WORK) --evidence parity_reports/fullsize
endif

# Where lerobot cannot be installed its policies are not run, and the script says so.
portability: $(VENV)/.ready
	@$(MAKE) --no-print-directory lerobot || true
	$(BIN)/python benchmarks/portability.py $(if $(SETTINGS),--settings $(SETTINGS))
	$(BIN)/python benchmarks/emulated.py

portability-slice: $(VENV)/.ready
	$(BIN)/python benchmarks/portability.py --slice

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.ready
	$(BIN)/mypy

# What cannot be installed has its tests skipped, by name; under CI such a skip fails the run (conftest.py).
extras:
	@$(MAKE) --no-print-directory browser || echo "NOT INSTALLED: Chromium and axe-core, so their tests are skipped"
	@$(MAKE) --no-print-directory openpi || echo "NOT INSTALLED: openpi-client, so its tests are skipped"

suite: $(VENV)/.ready extras
	REFLEX_OPENPI_PYTHON="$${REFLEX_OPENPI_PYTHON:-$(abspath $(OPENPI))/bin/python}" $(PYTEST) $(ONCE)

# What judges, measured in every process that a test starts: lines and branches.
COVERED ?= tests
coverage: $(VENV)/.ready
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(COVERED)
	-$(BIN)/python -m coverage combine --quiet # what was killed leaves files without data; it counts for nothing
	$(BIN)/python -m coverage report

coverage-lerobot: lerobot
	$(IN_LEROBOT) coverage

clean:
	rm -rf .coverage .coverage.* .venv .venv-lerobot .venv-node .venv-openpi demo site tests/browser/node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
