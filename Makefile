# `make help` lists what can be done. Everything runs in .venv, made from requirements.lock.

PROFILE ?= laptop#  grid of runs: smoke or laptop (default: laptop)
SEEDS   ?=#         a count such as 3, or a list such as 0,2,4 (default: the profile's)
JOBS    ?=#         notebooks at a time (default: the profile's)
PYTHON  ?= python3# interpreter that makes .venv, 3.11 or newer (default: python3)

VENV  := .venv/bin/python
READY := .venv/.ready
RUN   := $(VENV) -m mpstudy
SEED_OPTION = $(if $(strip $(SEEDS)),--seeds $(SEEDS))
JOB_OPTION  = $(if $(strip $(JOBS)),--jobs $(JOBS))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup data reproduce report smoke bench test test-fast lint lab html lock clean

help: ## Show this list
	@echo 'Usage: make TARGET [VARIABLE=VALUE ...]'
	@echo
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-11s %s\n", $$1, $$2 }'
	@echo
	@echo 'Variables:'
	@sed -n 's/^\([A-Z]*\) *?=[^#]*# *\(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-11s %s\n", $$1, $$2 }'

# --- The environment and the data -------------------------------------------------------------------------

SHOW_VERSION := import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))

define check_python
found=$$($(PYTHON) -c '$(SHOW_VERSION)' 2>/dev/null) || { \
	echo "error: Python 3.11 or newer is needed, but $(PYTHON) is $${found:-not a working command}." \
	     "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
endef

PIP_INSTALL = -m pip install --quiet --progress-bar off --disable-pip-version-check

setup: $(READY) ## Make .venv from requirements.lock (again when it or pyproject.toml changes)

# A .venv without pip was left half made, so it is made again.
$(READY): requirements.lock pyproject.toml
	@$(check_python)
	@$(VENV) -c "import sys, pip; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || \
		$(PYTHON) -m venv --clear .venv
	@echo "Installing the pinned packages into .venv (some minutes; 2 GB, more where torch brings CUDA)"
	@$(VENV) $(PIP_INSTALL) -r requirements.lock
	@$(VENV) $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

data: $(READY) ## Fetch the model and the texts, check them against data/MANIFEST
	$(RUN) data

# --- The study ----------------------------------------------------------------------------------------------

reproduce: data ## Run PROFILE anew beside its report and compare every number; goes on where it stopped
	$(RUN) reproduce --profile $(PROFILE) $(SEED_OPTION) $(JOB_OPTION)

report: data ## Write the report of PROFILE: run what is missing or has changed; then README's findings
	$(RUN) report --profile $(PROFILE) $(SEED_OPTION) $(JOB_OPTION)
	$(RUN) claims --write

smoke: data ## Run a small version of the whole study in minutes
	$(RUN) report --profile smoke $(SEED_OPTION) $(JOB_OPTION)

html: $(READY) ## Write the HTML and index pages of PROFILE again from its executed notebooks
	$(RUN) html --profile $(PROFILE)

bench: data ## Measure Moreau steps, LoRA recovery and pruned layers beside baselines
	$(VENV) -m benchmarks --out benchmarks/results.json

lab: data ## Open the notebooks in JupyterLab
	$(VENV) -m jupyterlab notebooks

# --- Working on the package ---------------------------------------------------------------------------------

# A process for each core; a file's tests stay together, as they share what they made.
PARALLEL = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: data ## Run all tests, among them a smoke run of every notebook, and show what they cover
	$(VENV) -m pytest --cov $(PARALLEL)

test-fast: $(READY) ## Run the tests that take seconds and need no data
	$(VENV) -m pytest -m "not slow" $(PARALLEL)

lint: $(READY) ## Check style, types, layers, and that committed notebooks have no outputs
	$(VENV) -m ruff check
	$(VENV) -m ruff format --check
	$(VENV) -m mypy
	$(dir $(VENV))lint-imports --no-logo --no-cache
	$(VENV) -m nbstripout --verify --keep-id notebooks/*.ipynb

define LOCK_HEADER
# Every package of the study at the one version it was tested with. Made by `make lock` from pyproject.toml.
# CUDA libraries are not listed: on platforms that use them, torch itself pins theirs.
endef

define CONDA_HEADER
# The versions of requirements.lock for conda: `conda env create -f environment.yml`. Made by `make lock`.
name: mpstudy
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
      - -e .
endef

export LOCK_HEADER CONDA_HEADER

lock: ## Choose all versions anew: pyproject.toml -> requirements.lock and environment.yml
	@$(check_python)
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	echo "Resolving pyproject.toml in a fresh environment (minutes)"; \
	$(PYTHON) -m venv "$$fresh"; \
	"$$fresh/bin/python" $(PIP_INSTALL) -e ".[recover,zeroshot,notebooks,dev]"; \
	"$$fresh/bin/python" -m pip freeze --all --exclude pip --exclude-editable > "$$fresh/frozen"; \
	echo "$$LOCK_HEADER" > requirements.lock; \
	grep -v -E '^(nvidia|cuda|triton)' "$$fresh/frozen" | sed 's/+.*//' >> requirements.lock; \
	echo "$$CONDA_HEADER" > environment.yml; \
	sed -n '/^#/!s/^/      - /p' requirements.lock >> environment.yml
	@echo "Wrote requirements.lock and environment.yml; now run: make test"

GENERATED = .venv data/cache reports/smoke reports/interactive reports/custom reports/reproduced reports/*/checkpoints reports/*/work \
	.pytest_cache .ruff_cache .mypy_cache .coverage *.egg-info build benchmarks/results.json

clean: ## Remove .venv, downloads, caches and uncommitted reports; committed reports stay
	@for path in $(GENERATED); do \
		if [ -e "$$path" ]; then echo "removing $$path"; rm -rf "$$path"; fi; \
	done
	@find mpstudy tests -name __pycache__ -type d -prune -exec rm -rf {} +
