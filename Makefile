# Two commands on a machine with Python and make: `make demo` and `make test`.
#
# TORCH_INDEX_URL  a package index with PyTorch builds, such as PyTorch's own CPU index, which
#                  saves a machine without a GPU several gigabytes of CUDA libraries
# PYTHON           the interpreter that makes the virtual environment (3.11 or newer)
# VENV             the folder of the virtual environment
# OUTPUT_DIR       the run folder of the demo

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX_URL ?=
OUTPUT_DIR ?= outputs/demo

BIN := $(VENV)/bin
# Most files of torch and transformers are never imported, so nothing is compiled in advance.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt Makefile

export OMP_NUM_THREADS ?= 1
# Compiled files are kept, because the tests start medeval many times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types suite clean

demo: $(VENV)/demo.installed
	$(BIN)/medeval demo --output-dir $(OUTPUT_DIR)

# mypy uses one core for minutes and the tests wait for servers and clocks, so that both at once
# take little longer than the tests alone.
test: lint
	$(MAKE) --jobs=2 types suite

check: lint types

lint: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.installed
	nice -n 19 $(BIN)/mypy

suite: $(VENV)/test.installed
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal --cov --cov-fail-under=90

$(VENV)/torch.installed: $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
	touch $@

$(VENV)/demo.installed: $(VENV)/torch.installed
	$(INSTALL) --editable '.[transformers,plot]'
	touch $@

$(VENV)/test.installed: $(VENV)/torch.installed
	$(INSTALL) --editable '.[transformers,plot,math,dev]'
	touch $@

clean:
	rm -rf $(VENV)
