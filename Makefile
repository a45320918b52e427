# The two commands are `make up` and `make test`. Needed: Python >= 3.11, make, and for full speed a C compiler.
# Options go in ARGS, for example: make up ARGS="--port 9000", make test ARGS="tests/core -x".

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt Makefile

# The first Python that is new enough; say `make PYTHON=/path/to/python` to choose.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Without a C compiler the torch backend computes instead of our kernels: the same answers, slower.
COMPILER := $(shell command -v cc || command -v gcc || command -v clang)
EXTRAS := $(if $(COMPILER),,[torch])

# Tests that start processes, namespaces or browsers run after the others and one at a time.
ALONE := tests/real tests/node tests/mesh/natlab tests/mesh/quic tests/server/console

.PHONY: up test lint bench docs clean
.DELETE_ON_ERROR:

up: $(VENV)/.up  ## Install, pull the default model if it is missing, serve it on http://127.0.0.1:8642
	@$(BIN)/shoal up $(ARGS) || [ $$? -eq 130 ]  # 130 is Ctrl-C, the usual way to stop it

test: $(VENV)/.test  ## Run every test
	@.ci/chromium
	@.ci/cross
	@.ci/natlab
	@$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),\
		$(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE:%=--ignore=%); others=$$?; \
		$(BIN)/python -m pytest $(ALONE) && exit $$others)

lint: $(VENV)/.lint  ## Style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs  ## Build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.up  ## Every benchmark, quickly; ARGS= for the long runs
	@for file in bench/*.py; do $(BIN)/python $$file $(or $(ARGS),--quick) || exit 1; done

clean:  ## Remove what these commands made, the environment included; models stay in the store
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/.envs src/*.egg-info

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Shoal needs Python 3.11 or newer; none was found on PATH" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@$(PIP) pip
	@touch $@

$(VENV)/.up: $(VENV)/.made $(INPUTS)
	@$(if $(COMPILER),,echo "No C compiler on PATH: installing torch to compute with; slower (see shoal doctor)";) true
	@echo "Installing Shoal into $(VENV)"
	@$(PIP) -e ".$(EXTRAS)"
	@touch $@

$(VENV)/.test: $(VENV)/.up
	@echo "Installing what the tests need; llama-cpp-python, the oracle, is built from source the first time (minutes)"
	@$(PIP) -e ".[test]"
	@$(PIP) llama-cpp-python
	@touch $@

$(VENV)/.lint: $(VENV)/.up
	@$(PIP) -e ".[lint]"
	@touch $@

$(VENV)/.docs: $(VENV)/.made $(INPUTS)
	@$(PIP) -e ".[docs]"
	@touch $@
