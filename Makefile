# Needs make, Python >= 3.11 and its pip; everything else goes into the virtual environment .venv.
PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2

PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check install --quiet
QONNX := qonnx==1.0.0

# Modules that `make demo` and `make bench` run.
DEMO  ?= examples.digits.demo
BENCH ?= benchmarks networks

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.stamp-base ## compile the digits network and run it
	$(PY) -m $(DEMO)

test: $(VENV)/.stamp-test ## run the tests, without those marked slow
	$(PY) -m pytest -n $(JOBS)

test-all: $(VENV)/.stamp-test ## run all tests
	$(PY) -m pytest -n $(JOBS) -m "slow or not slow"

lint: $(VENV)/.stamp-test ## check style, formatting and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

bench: $(VENV)/.stamp-bench ## measure speed, with onnxruntime to compare
	$(PY) -m $(BENCH)

clean: ## remove the virtual environment, caches and build output
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment: one stamp for each set of packages ---

# Some systems ship Python without ensurepip; then the outer pip puts pip into the environment.
$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed (make PYTHON=...)" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
	    || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	         && $(PYTHON) -m pip --disable-pip-version-check --python $(PY) install --quiet pip; }
	@touch $@

$(VENV)/.stamp-base: pyproject.toml $(VENV)/.stamp-venv
	$(PIP) --editable .
	@touch $@

$(VENV)/.stamp-test: pyproject.toml $(VENV)/.stamp-base
	$(PIP) --editable ".[test]"
	$(PIP) --no-deps $(QONNX)
	@touch $@

$(VENV)/.stamp-bench: pyproject.toml $(VENV)/.stamp-base
	$(PIP) --editable ".[bench]"
	@touch $@
