# Everything a developer runs. Needs Python 3.11 or newer and make; the rest goes into .venv.
PYTHON ?= python3
SHELL := /bin/sh
.DEFAULT_GOAL := help
# Some images forbid Python to keep what it compiled; then each of the many processes here compiles everything again.
unexport PYTHONDONTWRITEBYTECODE
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(BIN)/python -m uv
# The Airflow that .venv gets; make stack AIRFLOW=... starts the others.
CONSTRAINTS := constraints/constraints-3.3.2.txt

# Tests and checks never touch ~/airflow, and nothing phones home.
TEST_HOME := $(CURDIR)/.test-airflow
AIRFLOW_ENV := AIRFLOW_HOME="$(TEST_HOME)" AIRFLOW__CORE__LOAD_EXAMPLES=False \
	AIRFLOW__CORE__DAGS_FOLDER="$(CURDIR)/example_dags" AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
PYTEST := $(AIRFLOW_ENV) $(BIN)/python -m pytest
PYTEST_ARGS ?=

.PHONY: help venv constraints test test-fast matrix matrix-fast test-browser campaign lint format types wheel release-check docs upgrade-data demo stack screenshots overlap shapes chaos bench emulator clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

venv: $(STAMP) ## Install everything into .venv (done by every other target when needed)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; choose one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Creating $(VENV) ..."; rm -rf $(VENV); \
		$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
			echo "$(PYTHON) -m venv failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; }
	@echo "Installing Airflow and the tools into $(VENV), about a minute the first time ..."
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c $(CONSTRAINTS) uv
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(UV) pip install --quiet --compile-bytecode -c $(CONSTRAINTS) -e '.[dev,docs,fab,release]'
	@touch $(STAMP)

test: $(STAMP) ## Run all tests, the system tests (real Airflow processes) beside the others (BESIDE=types,wheel: these targets, too)
	@$(AIRFLOW_ENV) $(BIN)/python -m dev.run_tests $(if $(BESIDE),--beside=$(BESIDE)) $(PYTEST_ARGS)

test-fast: $(STAMP) ## Run the tests that start no Airflow process
	$(PYTEST) $(PYTEST_ARGS) -m "not system" tests

campaign: $(STAMP) ## Every crash point and thousands of examples, for hours; make test has a part of each (PYTEST_ARGS="-k crash")
	NANOBANANA_CAMPAIGN=full $(PYTEST) --timeout=14400 -m "not system" $(PYTEST_ARGS) tests

test-browser: $(STAMP) ## Look at the gallery, the review and the spend page in a real Airflow with the system's Chromium
	$(PYTEST) $(PYTEST_ARGS) -m browser tests/browser

MATRIX := $(BIN)/python -m dev.matrix $(if $(MATRIX_PYTHON),--python $(MATRIX_PYTHON))

matrix: $(STAMP) ## Run the tests on every Airflow and Python (V=3.1.8: that one, MATRIX_PYTHON=python3.12, FULL=1, SKIPS=accept)
	@exec $(MATRIX) $(if $(V),--airflow $(V)) $(if $(FULL),--full) $(if $(SKIPS),--accept-skips)

matrix-fast: $(STAMP) ## Run on the oldest Airflow the tests that name something of it (V=3.1.8: on that one)
	@exec $(MATRIX) --fast --airflow $(or $(V),3.0.6)

lint: $(STAMP) ## Check style, format and layers
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

format: $(STAMP) ## Repair style and format
	$(BIN)/python -m ruff check --fix-only .
	$(BIN)/python -m ruff format .

types: $(STAMP) ## Check types (mypy --strict)
	$(AIRFLOW_ENV) $(BIN)/python -m mypy

wheel: $(STAMP) ## Build the wheel and try it in a clean virtual environment
	$(BIN)/python tests/wheel/try_wheel.py

release-check: $(STAMP) ## Build wheel and sdist in dist/ and check whether they may be released (TAG=v1.2.3: as that)
	$(BIN)/python -m dev.release_check $(if $(TAG),--tag $(TAG))

constraints: $(STAMP) ## Resolve every constraint file again from the pins beside it (V=3.1.8: that one)
	@$(BIN)/python -m dev.constraints $(V)

docs: $(STAMP) ## Build the documentation as a site, .docs-site (SERVE=1: and show it on port 8000)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(if $(SERVE),serve --livereload,build) --strict --quiet

upgrade-data: $(STAMP) ## Write what this release leaves behind, for the upgrade tests: once a release, before its tag
	@$(AIRFLOW_ENV) $(BIN)/python -m tests.integration.upgrade.record

demo: $(STAMP) ## Make pictures with a real Airflow (FORM=three, KEEP=1: leave it up, TOAPIS_API_KEY=...: real pictures)
	@exec $(BIN)/python -m dev.demo $(if $(FORM),--form $(FORM)) $(if $(KEEP),--keep)

stack: $(STAMP) ## Start a real Airflow with the examples and the emulator (AIRFLOW=3.1.8: that version, CHECK=1: run one)
	@exec $(BIN)/python -m dev.stack $(if $(AIRFLOW),--airflow $(AIRFLOW)) $(if $(CHECK),--check)

screenshots: $(STAMP) ## Take each view of the gallery, light, dark and narrow, on each Airflow (AIRFLOW=3.1.8: that one, TO=folder)
	@exec $(BIN)/python -m dev.screenshots $(if $(AIRFLOW),--airflow $(AIRFLOW)) $(if $(TO),--to $(TO))

overlap: $(STAMP) ## Let real runs ask for the same pictures at one place, in one Airflow and two (AIRFLOW=3.1.8, OVERLAP="mapped")
	@exec $(BIN)/python -m tests.overlap $(if $(AIRFLOW),--airflow $(AIRFLOW)) $(OVERLAP)

shapes: $(STAMP) ## Buy in each way to deploy Airflow, half an hour; some need root, PostgreSQL, Redis (SHAPES="celery fab": some)
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(UV) pip install --quiet -c $(CONSTRAINTS) -e '.[dev,fab,chaos]'
	@mkdir -p .shapes  # not below /tmp, which some of them replace
	$(PYTEST) $(PYTEST_ARGS) --basetemp=.shapes/run -rs $(if $(SHAPES),$(SHAPES:%=tests/shapes/test_%.py),tests/shapes)

chaos: $(STAMP) ## Kill Airflow's processes for an hour; as root installs PostgreSQL and Redis (CHAOS="local --seed 2": one of it)
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(UV) pip install --quiet -c $(CONSTRAINTS) -e '.[dev,chaos]'
	@exec $(BIN)/python -m tests.chaos $(CHAOS)

bench: $(STAMP) ## Measure poller and generate, over an hour, and write docs/benchmarks.md (BENCH="poll-60": one of it)
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(UV) pip install --quiet -c $(CONSTRAINTS) -e '.[dev,bench]'
	@exec $(BIN)/python -m dev.benchmarks $(BENCH)

emulator: $(STAMP) ## Serve a local ToAPIs on port 8787
	@exec $(BIN)/python -m airflow_provider_nanobanana.emulator --port 8787

clean: ## Remove what make created, .venv too, but no picture that was paid (demo-images)
	rm -rf $(VENV) .bench .docs-site .demo/airflow .demo/emulator .chaos .matrix .shapes .stack .test-airflow .test-airflow-* dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
