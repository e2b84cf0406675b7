# Everything a person needs, from a machine with Python and make only. `make demo` and `make test` set up
# what they need in .venv by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard src/hyperspot/native/*.[ch])
# Where real photos and weights lie beside the checkout they are used; nothing needs them.
HYPERSPOT_WEIGHTS ?= $(wildcard ../shared/weights)
export HYPERSPOT_WEIGHTS

.PHONY: install demo test lint bench docs clean

install: $(VENV)/.installed $(VENV)/.dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml constraints.txt hatch_build.py $(KERNELS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

demo: $(VENV)/.installed
	$(BIN)/hyperspot demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks.metrics_speed
	$(BIN)/python -m benchmarks.startup

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) hyperspot-demo site
