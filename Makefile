# A fresh machine needs nothing but Python (3.10 or newer) and, for the native kernels, a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types venv clean

# Sparse, dense and point networks on real jets: one seed, a few minutes, report/index.html and the table.
demo: $(READY)
	$(BIN)/sparsegen compare experiments/demo.yaml -o report

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

venv: $(READY)

# torch first and by itself: a torch that is already there, or that your own index serves, stays as it is.
$(READY): pyproject.toml setup.py constraints.txt $(wildcard csrc/*.?pp csrc/*.inl csrc/kernels/*.inl)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build report runs
