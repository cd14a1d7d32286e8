# `make` lists the targets. Everything is installed into .venv, so `.venv/bin/cer` is the command.
#
# Settings (make NAME=value target, or in the environment):
#   PYTHON   the interpreter that .venv is made with (3.11 or newer)
#   EXTRAS   optional parts, e.g. EXTRAS=gpu or EXTRAS=gpu,ray
#   WORKERS  processes that run tests side by side; 0: none but the first, for a debugger
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS and pip's own configuration say where packages come from.
#   UV_TORCH_BACKEND=cpu leaves the CUDA libraries out on a machine without a GPU.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install models demo test test-fast cases check format ui lock clean

PYTHON ?=
EXTRAS ?=
WORKERS ?= 2
export PYTHON

COMMA := ,
BIN := .venv/bin
UV := $(BIN)/python requirements/uv.py
# Installing is repeated when its inputs change. The stamp's name holds the extras, so that asking for others installs again.
STAMP := .venv/.installed-$(subst $(COMMA),-,$(EXTRAS))
# A module stays in one process, which makes its fixtures once. The order is that of the folders: whole graphs come first, so
# that the last tests are short ones and no process waits long for the other.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder
EDITABLE := .$(if $(EXTRAS),[$(EXTRAS)])

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

install: $(STAMP) ## make .venv and install everything, pinned

$(STAMP): pyproject.toml $(wildcard requirements/*)
	@requirements/venv.sh
	$(UV) pip install --quiet --python $(BIN)/python --constraints requirements/constraints.txt \
		--override requirements/overrides.txt --group dev --group headless --editable '$(EDITABLE)'
	$(BIN)/cer doctor --packages
	rm -f .venv/.installed-*
	touch '$@'

models: install
	@$(BIN)/cer models pull || echo "The weights could not be fetched: tests that need them are skipped."

demo: install ## install, fetch the embedded models and the demonstration clips, run the whole graph on them
	$(BIN)/cer demo

test: install models ## all tests that this machine can run, but for the case folders
	$(PYTEST) -m "not cases"

test-fast: install ## the tests that take seconds
	$(PYTEST) -m "not slow and not gpu and not ray and not browser and not cases"

cases: install models ## real-world files beside the project, where they are there: every right value
	$(PYTEST) -m cases tests/cases

check: install ## lint, format, types, layers, and whether Dagster can load the graph
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	@mkdir -p .venv/dagster && cp dagster.yaml .venv/dagster
	DAGSTER_HOME=$(CURDIR)/.venv/dagster $(BIN)/dg check defs

format: install ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: install ## open the Dagster UI on 127.0.0.1
	$(BIN)/cer ui

# Everything below the direct pins is resolved to its newest. A local version (torch+cpu) is cut off, so that each machine
# may take its own build; for the same reason the old pins are not looked at.
lock: install ## write requirements/constraints.txt anew from pyproject.toml
	@rm -f .venv/constraints.txt
	@$(UV) pip compile pyproject.toml --group dev --group headless --override requirements/overrides.txt \
		--extra gpu --extra ray --python-version 3.11 \
		--no-annotate --no-header --quiet --output-file .venv/constraints.txt
	@{ grep '^#' requirements/constraints.txt; sed -E 's/\+[a-z0-9.]+$$//' .venv/constraints.txt; } > .venv/lock.txt
	@mv .venv/lock.txt requirements/constraints.txt

clean: ## remove what tools left behind; tables, caches of rows and .venv stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
