# Everything works in its own virtual environment, made on first use and again when pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Half of the tests wait for programs that they have started.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast soak coverage lint format hooks generate docs bench picture up ready down stack-demo collector stack-tools changelog dist clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("forge-otel needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY) ## run a real pipeline over the standard library and read what happened (ARGS="--limit 100")
	$(BIN)/forge-otel demo $(ARGS) || test $$? -eq 3  # 3: some samples fail, to show what becomes of them

test: $(READY) ## the tests, in parallel (ARGS="-k retry")
	$(BIN)/python -m pytest -m "not soak" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(READY) ## the tests that take less than a fifth of a second, without the stack and PostgreSQL, in parallel
	$(BIN)/python -m pytest -m "not slow" --ignore tests/stack --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

soak: $(READY) ## the variants of slow tests that `make test` leaves out
	$(BIN)/python -m pytest -m soak --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: $(READY) ## all tests, and the lines and branches they miss; open htmlcov/index.html
	$(BIN)/python -m pytest --cov --cov-report term --cov-report html $(ARGS)

lint: $(READY) ## lint, format, type and import checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY) ## write the code in its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(READY) ## install hooks that lint and type-check every commit
	$(BIN)/pre-commit install

generate: $(READY) ## write what follows from the registry: constants, reference, dashboards, rules
	$(BIN)/python -m tools.generate

docs: $(READY) ## build the documentation's site; open docs/_site/index.html
	$(BIN)/sphinx-build --quiet --write-all --fresh-env --fail-on-warning --keep-going docs docs/_site

bench: $(READY) ## measure what telemetry and the runners cost (ARGS="--quick")
	$(BIN)/python -m benchmarks $(ARGS)

picture: $(READY) ## the pictures in the README and the documentation, from a run of the demo
	$(BIN)/python -m docs.picture

# Files that are named replace those that Compose would find, of which a user's own is one.
SCALED := docker-compose.yml:docker-compose.scale.yml$(addprefix :,$(wildcard docker-compose.override.yml))
ifdef SCALE
export COMPOSE_FILE := $(SCALED)
endif

# Compose does not look into the files that it mounts: their checksum makes it replace containers when they have changed.
up: export CONFIGURATION = $(shell find collector-config -type f -exec cksum {} + | LC_ALL=C sort | cksum | tr ' ' -)
up: ## start the whole stack in containers (ARGS="--profile demo" runs a pipeline in it, SCALE=1 adds agents and gateways)
	docker compose --profile dashboards $(ARGS) up --build --detach

ready: ## wait until all of it answers, and say where it is
	@$(PYTHON) tools/stack/ready.py $(ARGS)

down: export COMPOSE_FILE := $(SCALED)
down: ## stop it; its data stay (ARGS="--volumes" removes them)
	docker compose --profile dashboards --profile demo down --remove-orphans $(ARGS)

stack-demo: $(READY) ## the stack without containers: two runs, and what the ADR asks of them (ARGS="--keep")
	@$(BIN)/python -m tools.stack.demo $(ARGS)

collector: ## a Collector with the components that our configurations use: its path, built first if need be
	@$(PYTHON) tools/stack otelcol-forge

stack-tools: ## the paths of all programs that tests run, built first if need be (needs Go, npm and Maven)
	@$(PYTHON) tools/stack

changelog: $(READY) ## print the changes since the last release, from the fragments in changes/
	@$(BIN)/towncrier build --draft --version unreleased

dist: $(READY) ## build the source distribution and the wheel into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove what the targets above made
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache demo-out dist docs/_site htmlcov
