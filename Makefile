# Every target builds .venv first if it must, needs only make and Python >= 3.11, and fails when its command fails.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STUDY ?= studies/digits
TRIALS ?= 24
UV := 0.13.8
# The first that runs and is new enough: a version manager's stand-in may be on the path and refuse to start.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: help demo demo-full test test-all lint types layers spaces check format lock clean

help: ## list the targets (the default)
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

demo: .venv/.installed ## the main job on the embedded digits: search, test the front, draw the report; again = continue
	$(BIN)/rkdsearch tune search_spaces/digits.yaml --trials $(TRIALS) --study $(STUDY) --resume
	$(BIN)/rkdsearch evaluate $(STUDY) --front --no-replicates --images 150
	$(BIN)/rkdsearch report $(STUDY)

demo-full: .venv/.installed ## the claim: five searches against the published settings, all test images; up to an hour
	$(BIN)/python analysis/demo_full.py

# Bytecode may be written: the processes that tests start read it, and so does the next run. A worker takes about a
# gigabyte, so no more than eight on larger machines.
test: .venv/.installed ## the quick tests, minutes on two cores
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not long and not gpu"

test-all: .venv/.installed ## every test, the long ones too
	$(BIN)/pytest

lint: .venv/.installed ## format and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.installed ## mypy, strict
	$(BIN)/mypy

layers: .venv/.installed ## who may import whom
	$(BIN)/lint-imports

spaces: .venv/.installed ## every shipped search space is legal at both ends of every parameter
	$(BIN)/rkdsearch space check search_spaces/*.yaml

check: lint types layers spaces test ## what CI runs

format: .venv/.installed ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/.installed ## choose newer versions: rewrites requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock

clean: ## remove .venv and the tools' caches; studies stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted installation is done again. Modules are compiled once, here: where
# Python may not write them (PYTHONDONTWRITEBYTECODE), each of Ray's processes would compile all of torch.
.venv/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "rkdsearch needs Python 3.11 or newer with its venv module; name one: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV)
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --requirement requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --editable .
	touch $@
