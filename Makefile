# Two commands on a machine with Python and make: `make demo` and `make test`.
#
# TORCH_INDEX_URL  a package index with PyTorch builds, such as PyTorch's own CPU index, which
#                  spares a machine without a GPU several gigabytes of CUDA libraries
# PYTHON           the interpreter the virtual environment is made with (3.11 or newer)
# VENV             where the virtual environment goes

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX_URL ?=
OUTPUT_DIR ?= outputs/demo

BIN := $(VENV)/bin
# Packages are compiled as they are imported: most files of torch and transformers never are.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt Makefile

export OMP_NUM_THREADS ?= 1
# What was compiled is kept: the tests start medeval some hundred times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types suite clean

demo: $(VENV)/demo.installed
	$(BIN)/medeval demo --output-dir $(OUTPUT_DIR)

# mypy takes one core for minutes and the tests wait for servers and clocks: side by side they
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
