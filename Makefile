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
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt Makefile

export OMP_NUM_THREADS ?= 1

.PHONY: demo test check clean

demo: $(VENV)/demo.installed
	$(BIN)/medeval demo --output-dir $(OUTPUT_DIR)

test: check
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal --cov --cov-fail-under=90

check: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
