# `make demo` and `make test` set up everything they need in .venv, from python3 (3.11 or newer), pip and a network.
# A C compiler is taken from the machine (cc, gcc, clang); without one the ziglang wheel brings it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
comma := ,
EXTRA_CPU := $(if $(shell command -v cc || command -v gcc || command -v clang),,$(comma)cpu)
INSTALL := PYTHONWARNINGS=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: help demo test lint bench clean
help:
	@echo "make demo    build and run the demo: real models on real input, against onnxruntime"
	@echo "make test    run the tests (JOBS=n in parallel; PYTEST='...' adds options)"
	@echo "make lint    ruff, mypy and the import contracts"
	@echo "make bench   measure against onnxruntime into bench/results"
	@echo "make clean   remove .venv and caches"

demo: $(VENV)/.demo
	$(BIN)/python -m examples.demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST)

lint: $(VENV)/.dev
	@status=0; for check in "ruff check ." mypy lint-imports; do \
	  echo "$$check"; $(BIN)/$$check || status=1; done; exit $$status

bench: $(VENV)/.bench
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# One stamp per extra: a second `make` does nothing, a changed dependency list installs again.
$(VENV)/.demo $(VENV)/.dev $(VENV)/.bench: $(VENV)/.%: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) --no-build-isolation --editable ".[$*$(EXTRA_CPU)]"
	@touch $@

# Some distributions split venv from pip: then the machine's own pip fills the environment.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet --constraint constraints.txt pip; }
	$(INSTALL) pip setuptools
	@touch $@
