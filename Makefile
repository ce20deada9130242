# What a person types here; `make` alone lists it. Whatever needs the environment sets it up first, in .venv, and again
# only when requirements-dev.lock changes, or the folders that code is imported from.

BIN := .venv/bin
USABLE := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(USABLE)' 2>/dev/null && { echo "$$python"; break; }; done)
# The folder counts too, because an environment does not survive being moved; so does its interpreter.
ENVIRONMENT := $(shell { cat requirements-dev.lock; grep ^dev-mode-dirs pyproject.toml; pwd; $(PYTHON) --version; } \
	2>/dev/null | cksum | cut -d ' ' -f 1)
INSTALLED := .venv/.installed-$(ENVIRONMENT)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run reset migrate test verify lint protos locks wheel bench chaos

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: $(INSTALLED) ## start everything on this machine with the demo weddings (RECIPIENTS=1000000 for more); Ctrl-C stops it
	@$(BIN)/python -m stack run $(if $(RECIPIENTS),--recipients $(RECIPIENTS)) $(ARGS)

test: verify ## every check, then the tests (ARGS="-k quiet_hours" for some of them)
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	$(MAKE) --no-print-directory --file tests/lanes.mk alone
	$(MAKE) --no-print-directory --file tests/lanes.mk --jobs 3 --output-sync lanes
endif

verify: lint ## every check short of the tests: lint, layers, contract, generated code, migrations, locks
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/check.py
	$(BIN)/squawk $(MIGRATIONS)
	$(BIN)/pytest -q tests/unit/house

protos: $(INSTALLED) ## write the stubs beside each source of the contract
	$(BIN)/python protos/generate.py

migrate: $(INSTALLED) ## bring the running stack's databases to this checkout's migrations
	@$(BIN)/python -m stack migrate $(ARGS)

bench: $(INSTALLED) ## measure, print a table and keep it in bench/results
	@$(BIN)/python -m bench $(ARGS)

chaos: $(INSTALLED) ## kill and break everything under load, then look for what was lost or repeated (MINUTES=20)
	@$(BIN)/python -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

lint: $(INSTALLED) ## style and types, in seconds
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

wheel: $(INSTALLED) ## build the client for internal services, a wheel of its own, in dist
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist ./client
	@ls dist/wedsync_broadcast_client-*.whl

reset: $(INSTALLED) ## forget what `make run` has kept
	@$(BIN)/python -m stack reset $(ARGS)

locks: $(INSTALLED) ## pin what pyproject.toml asks for; keeps the pins that still fit
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --all-extras --constraint requirements.lock --output-file requirements-dev.lock

MIGRATIONS := $(wildcard services/*/migrations/*.sql)
# A folder of local wheels would put the hashes of its own builds into the locks.
LOCK := env -u PIP_FIND_LINKS -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --universal --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

$(INSTALLED):
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed: none is on the path. Install one, or name it:" \
		"make PYTHON=/where/it/is/python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make an environment, its venv module" \
		"is a package of its own: on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv: a minute the first time"
	@$(PYTHON) -m venv .venv
	@rm -f .venv/.installed-*
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
