# Two commands matter: `make run` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
# In an activated virtual environment, use that one instead of making another.
ifdef VIRTUAL_ENV
BIN := $(VIRTUAL_ENV)/bin
endif
STAMP  := $(BIN)/.tidegate-installed

.PHONY: help run test test-models lint bench kafka up-kafka clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[node,kafka,guardrails,evaluate,dev]'
	@touch $@

run: $(STAMP) ## start the embedded node with simulated clinic traffic; Ctrl-C stops it
	$(BIN)/tidegate up --simulate --policies docs/examples/policies.yaml --open

# Many tests wait for brokers, processes and browsers, so three share two cores well; a file's tests stay together, for its fixtures.
TESTERS ?= 3
test: $(STAMP) ## run every test
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile

# torch takes some 7 GB of disk and minutes to install: these tests have an environment of their own.
MODELS_VENV ?= .venv-models
$(MODELS_VENV)/bin/.tidegate-installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(MODELS_VENV)
	$(MODELS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[node,guardrails,evaluate,models,dev]'
	@touch $@

test-models: $(MODELS_VENV)/bin/.tidegate-installed ## run the production backends on tiny models (installs torch: 7 GB of disk)
	$(MODELS_VENV)/bin/python -m pytest tests/models

typings/tidegate:
	@mkdir -p typings && ln -sfn .. typings/tidegate

lint: $(STAMP) typings/tidegate ## ruff and mypy --strict
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy -m tidegate -m tidegate.cli -m tidegate.access_cli -m tidegate.alerts_cli -m tidegate.audit_cli -m tidegate.console_cli -m tidegate.db_cli -m tidegate.dlq_cli -m tidegate.evaluate_cli -m tidegate.forget_cli -m tidegate.guard_cli -m tidegate.incident_cli -m tidegate.keys_cli -m tidegate.models_cli -m tidegate.policy_cli -m tidegate.query_cli -m tidegate.quarantine_cli -m tidegate.reconcile_cli -m tidegate.reprice_cli -m tidegate.residency_cli -m tidegate.topics_cli -m tidegate.worker_cli $(foreach room,schemas producers sinks processors dashboards,-p tidegate.$(room)) -p tidegate.bench

bench: $(STAMP) ## run the benchmarks and write docs/benchmarks.md
	$(BIN)/python -m bench

kafka: $(STAMP) ## start a one-node Kafka 4.1 on this machine (needs Java 17 and Maven); Ctrl-C stops it
	$(BIN)/python -m bench.kafka.broker

up-kafka: $(STAMP) ## the whole pipeline on Kafka, with simulated traffic, on this machine (Java, Maven); Ctrl-C stops it
	$(BIN)/python -m bench.kafka.pipeline

clean: ## remove the virtual environment and caches
	rm -rf .venv .venv-models .pytest_cache .mypy_cache .ruff_cache build *.egg-info
