# What can be done here. Everything runs in .venv, which `setup` makes; nothing else on the machine is touched,
# except that `make test` as root on Debian installs the real programs that some tests need.
# ARGS reaches the command: make run ARGS="-c aiops.yaml", make test ARGS="tests/test_cli.py -k exit"
# DATA is a folder with labelled series: make bench-detect DATA=../labelled

BIN  := .venv/bin
ARGS ?=
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help setup dev run demo lint check test kube-tools bench bench-detect bench-rca lock fmt

help: ## what can be done here
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: ## make .venv with what is needed to run
	@PYTHON="$(PYTHON)" scripts/setup run

dev:
	@PYTHON="$(PYTHON)" scripts/setup dev

run: setup ## run the daemon on this host, or on PROMETHEUS_URL; the page is at http://127.0.0.1:8750
	@$(BIN)/aiops run $(ARGS)

demo: setup ## watch faults being found and healed in a simulated cluster; the page is at http://127.0.0.1:8750
	@$(BIN)/aiops run --demo $(ARGS)

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

check: lint ## lint, types, import contracts and the fast tests
	@$(BIN)/python -m pytest -n 2 -m "not real and not slow" -p no:cacheprovider $(ARGS)

test: dev ## everything, with the real programs where they can be had
	@scripts/system-packages
	@scripts/test $(ARGS)

kube-tools: ## build the real Kubernetes programs for tests/kube into the user's cache, once (needs Go)
	@scripts/system-packages
	@folder=$$(scripts/kube-tools) && echo "export KUBEBUILDER_ASSETS=$$folder"

bench: dev ## measure; one file in benchmarks/ after the other
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

bench-detect: dev ## detection on labelled series with peers beside it: DATA=folder, ARGS=--help
	@$(BIN)/python -m benchmarks.detect $(DATA) $(ARGS)

bench-rca: dev ## how often the true cause is ranked first, in recordings with known faults: DATA=folder
	@$(BIN)/python benchmarks/rca.py $(DATA) $(ARGS)

lock: ## the lock files from pyproject.toml (needs uv)
	@scripts/lock $(ARGS)

fmt: dev ## let ruff repair what it can (order of imports and the like)
	@$(BIN)/ruff check --fix .
