# PYTHON is the interpreter that .venv is made with, for instance: make install PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install run check test test-unit test-integration test-debug chaos mutants soak bench bench-peers plots fmt clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything in it (quick the second time)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

run: install ## start a worker on the embedded PostgreSQL; run it again elsewhere and both share the work
	$(BIN)/python -m reactive_orch --replica-set demo

check: install ## everything that needs no database: format, lint, types, imports, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest tests

test: install ## unit and integration tests
	$(BIN)/pytest tests integration_test

test-unit: install ## unit tests
	$(BIN)/pytest tests

test-integration: install ## integration tests on PostgreSQL 15 and 18; one of them: make test-integration ARGS='--pg 18 -k name'
	$(BIN)/pytest integration_test $(ARGS)

# By variables rather than options, so that the worker processes that the tests start have them too.
test-debug: export PYTHONASYNCIODEBUG = 1
test-debug: export PYTHONDEVMODE = 1
test-debug: export PYTHONWARNINGS = error
test-debug: install ## integration tests with asyncio's debug mode and every warning an error
	$(BIN)/pytest integration_test $(ARGS)

SECONDS ?= 60
MINUTES ?= 30

chaos: install ## a storm of faults; SEED=7 repeats one, SECONDS=60
	$(BIN)/python -m integration_test.chaos.run --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

mutants: install ## planted bugs: the chaos suite must catch every one
	$(BIN)/python -m integration_test.chaos.mutants $(ARGS)

soak: install ## a long storm, its figures into bench/RESULTS.md; MINUTES=30, SEED=7
	$(BIN)/python -m integration_test.chaos.run --minutes $(MINUTES) --report bench/RESULTS.md $(if $(SEED),--seed $(SEED))

bench: install ## measure, into bench/RESULTS.md; one of them: make bench ARGS='--only latency'
	$(BIN)/python -m bench $(ARGS)

bench-peers: install ## measure the same work on pgqueuer, procrastinate, eventsourcing, into bench/RESULTS.md
	$(BIN)/python -m bench.peers $(ARGS)

plots: install ## measure, and draw the README's pictures into docs/; one of them: make plots ARGS='--only latency'
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m bench.plots $(ARGS)

fmt: install ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, caches and build results (not the embedded database)
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
