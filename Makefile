# Everything a person needs, from a machine with Python and make only. `make demo` and `make test` set up
# what they need in .venv by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard src/hyperspot/hardware/native/*.[ch])
# Where real photos and weights lie beside the checkout they are used; nothing needs them.
HYPERSPOT_WEIGHTS ?= $(wildcard ../shared/weights)
export HYPERSPOT_WEIGHTS
# pip's --constraint does not reach the environment that the package is built in.
export PIP_BUILD_CONSTRAINT := constraints.txt
# What `make bench` measures detectors with: a data set in MVTec layout, and ResNet-18 weights.
BENCH_DATA ?= $(wildcard ../shared/data/bottle)
BENCH_WEIGHTS ?= $(firstword $(wildcard $(HYPERSPOT_WEIGHTS)/resnet18*.safetensors))

.PHONY: install demo test lint bench pages docs clean

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
	$(BIN)/python -m pytest tests/devices

lint: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks.metrics_speed
ifneq ($(and $(BENCH_DATA),$(BENCH_WEIGHTS)),)
	$(BIN)/python -m benchmarks.inference_speed $(BENCH_DATA) --weights $(BENCH_WEIGHTS)
	$(BIN)/python -m benchmarks.inference_speed $(BENCH_DATA) --weights random:0 --backbone wide_resnet50_2
	$(BIN)/python -m benchmarks.training_speed $(BENCH_DATA) --weights $(BENCH_WEIGHTS)
	$(BIN)/python -m benchmarks.scaling $(BENCH_DATA) --weights $(BENCH_WEIGHTS)
	$(BIN)/python -m benchmarks.startup
else
	@echo "for the speed of detectors give BENCH_DATA=FOLDER BENCH_WEIGHTS=FILE"
endif

# Generated pages and pictures; a test fails if they are outdated.
pages: install
	$(BIN)/python -m tools.method_pages
	$(BIN)/python -m tools.method_pictures
	$(BIN)/python -m tools.results_page

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) hyperspot-demo site
