# The doors of the house. Needs make, a POSIX shell and Python 3.11 or later; nothing else.
#
#   make demo ARGS=--exit      arguments for the command behind the target
#   make demo PYTHON=python3.12   the interpreter to build .venv with

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt docs lock clean runtime dev clients

ARGS ?=
PYTHON ?=
export PYTHON

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo: runtime ## Install, start everything and play a trading day (ARGS=--exit ends afterwards)
	@.venv/bin/tongbao demo $(ARGS)

test: dev clients ## Install and run every check and every test
	@# The checks run beside the tests. Reading the tests takes half a minute: once before, and not
	@# once in each of four. Four at a time even on two cores: most tests wait for a process, a disk
	@# or a clock. Those of a module stay together, with what they share, until somebody has nothing
	@# left to do.
	@sh tools/check.sh & checks=$$!; \
	    .venv/bin/python -m pytest --collect-only -qq >/dev/null 2>&1; \
	    .venv/bin/python -m pytest -n 4 --dist worksteal -rs $(ARGS); tested=$$?; \
	    wait $$checks && exit $$tested

lint: dev ## Run the checks alone: ruff, mypy, import contracts
	@sh tools/check.sh

fmt: dev ## Format the code and repair what ruff can repair
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix-only .

docs: dev ## Write the generated pages of docs/reference anew from the code
	@.venv/bin/python -m tools.reference

lock: ## Renew the lock files after a change of pyproject.toml (ARGS=--upgrade: newest of all)
	@sh tools/lock.sh $(ARGS)

clean: ## Remove environments, caches and build results; data in .tongbao stays
	@rm -rf .venv .clients build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime:
	@sh tools/install.sh runtime

dev:
	@sh tools/install.sh dev

clients: dev
	@sh tools/install.sh clients
