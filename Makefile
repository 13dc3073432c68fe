# `make demo` and `make test` are all a newcomer needs; both make the environment if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# test processes: each takes up to 2.5 GB
JOBS ?= 2
TESTS := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

.PHONY: help demo bench test test-slow lint coverage docs bench-speed clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /  -  /'

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "xretrieve needs Python 3.10 or newer: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: $(VENV)/.installed  ## train, evaluate and search on the built-in data (a few minutes), ends in a report
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/xretrieve bench demo  # as fast, and on a busy machine much faster

bench: $(VENV)/.installed  ## the papers' claims, measured (hours; goes on after a stop), ends in a report
	$(BIN)/xretrieve bench claims

test: $(VENV)/.installed  ## the fast tests, offline, in two processes (JOBS=2)
	$(TESTS)  # small tensors: threads only wait for each other

test-slow: $(VENV)/.installed  ## the slow tests too
	$(TESTS) -m 'not gpu'

lint: $(VENV)/.installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(VENV)/.installed  ## the fast tests with the share of lines that they run, in htmlcov/
	$(TESTS) --cov=xretrieve --cov-report=term:skip-covered --cov-report=html

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the documentation as a site (to search it: python3 -m http.server -d site)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## remove the environment
	rm -rf $(VENV)
