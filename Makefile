# PYTHON is the interpreter that .venv is made with, for instance: make install PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Containers often set it: then each process that a test starts compiles all its modules anew, half of its start's time.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
STAGES := fresh containers hosts cluster jaeger

.PHONY: help install lock run check test test-all test-unit test-integration test-debug $(STAGES:%=test-%) chaos mutants soak bench bench-peers plots docs vendor screenshots fmt clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# uv installs in a second what takes pip half a minute, but knows pip's variables under names of its own.
UV := $(BIN)/uv
export VIRTUAL_ENV := $(CURDIR)/.venv
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

install: $(STAMP) ## make .venv with the versions of requirements-dev.txt in it (seconds; nothing the second time)

# If uv cannot (a pip.conf, a proxy's login), pip can, more slowly; both check the same hashes.
$(STAMP): pyproject.toml requirements-dev.txt
	@echo ".venv: $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo ".venv: uv, the quick installer, by pip"
	@$(BIN)/pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements-dev.txt)"
	@echo ".venv: the $$(grep -c == requirements-dev.txt) packages of requirements-dev.txt (some 120 MB the first time), by uv"
	@$(UV) pip sync --quiet --system-certs --require-hashes requirements-dev.txt \
	    || { echo ".venv: uv could not; by pip"; $(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.txt; }
	@$(UV) pip install --quiet --offline --no-deps --no-build-isolation --editable .
	@touch $@

lock: install ## write requirements-dev.txt anew: the newest versions that pyproject.toml allows, with their hashes
	$(UV) pip compile --system-certs --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes \
	    --no-emit-index-url --no-annotate --custom-compile-command 'make lock' pyproject.toml -o requirements-dev.txt

run: install ## start a worker on the embedded PostgreSQL; run it again elsewhere and both share the work
	$(BIN)/python -m reactive_orch --replica-set demo

# So many tests at once: most of them wait, each process has servers of its own.
JOBS ?= 6
PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal

check: install ## everything that needs no database: format, lint, types, imports, the site, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(MAKE) docs
	$(PYTEST) tests

test: install ## unit and integration tests, on PostgreSQL 18 and what is found besides; five to twelve minutes on two cores, by their speed
	$(PYTEST) -m 'not thorough and not environment' tests integration_test $(ARGS)

test-all: install ## those that `make test` leaves out for time too: what is long, every server, random seeds (SEED=7: the storm's)
	SEED=$${SEED:-$$(date +%s)} $(PYTEST) --timeout 600 --hypothesis-profile random -m 'not environment' tests integration_test $(ARGS)
	$(MAKE) $(STAGES:%=test-%)

test-unit: install ## unit tests
	$(PYTEST) tests $(ARGS)

test-integration: install ## integration tests, one at a time; some of them: make test-integration ARGS='--pg 18 -k name'
	$(BIN)/pytest integration_test $(ARGS)

# By variables rather than options, so that the worker processes that the tests start have them too.
test-debug: export PYTHONASYNCIODEBUG = 1
test-debug: export PYTHONDEVMODE = 1
test-debug: export PYTHONWARNINGS = error
test-debug: install ## integration tests with asyncio's debug mode and every warning an error
	$(BIN)/pytest integration_test $(ARGS)

# One at a time, as each has the machine to itself. What one lacks it says, and is skipped; REACTIVE_ORCH_STAGES=hosts makes
# that an error.
test-fresh: ## bare Debian 12, 13 and testing, and the README's commands there; as root, needs podman, netavark, runc, debootstrap
test-containers: ## the image and the compose file, killed, frozen, scaled; as root, needs those and go
test-hosts: ## workers on hosts of their own, and a network that cuts, loses, delays; as root, needs iproute2, iptables, conntrack
test-cluster: ## a Patroni cluster that switches and fails over; needs patroni, etcd-server, haproxy
test-jaeger: ## the collector, Jaeger and Prometheus with otel/'s configurations; needs go and prometheus
# Most of it is waiting for an outage to end: three networks at a time.
test-hosts: SIDE_BY_SIDE := --numprocesses 3 --dist worksteal
$(STAGES:%=test-%): test-%: install
	$(BIN)/pytest -m 'not thorough' $(SIDE_BY_SIDE) integration_test/environments/$* $(ARGS)

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

plots: install ## measure, and draw the pictures of docs/performance.md; one of them: make plots ARGS='--only latency'
	$(UV) pip install --system-certs --quiet --editable '.[bench]'
	$(BIN)/python -m bench.plots $(ARGS)

vendor: install ## fetch the libraries of the status page from npm anew, in the versions of their vendor.json; needs npm
	$(BIN)/python -m tests.http.renew_vendor

screenshots: install ## take the README's pictures of the page anew, of real workers; three minutes
	$(BIN)/python -m integration_test.http.pictures docs/pictures

docs: install ## build the site into build/docs; a link that leads nowhere is an error
	$(BIN)/sphinx-build --quiet --fresh-env --nitpicky --fail-on-warning --keep-going --conf-dir docs . build/docs

fmt: install ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, caches and build results (not the embedded database)
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
