# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# torch is installed by its exact version first: a plain "torch" would pull gigabytes of CUDA on some indexes.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (some minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	@echo "  torch is there; the rest follows ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -e '.[dev]'
	@touch $(READY)
	@echo "Ready."

.PHONY: setup
setup: $(READY) ## install into .venv (done by the others where needed)

.PHONY: demo
demo: $(READY) ## four phantom hospitals, a malicious server, three mechanisms and budgets; prints where the report is
	@$(BIN)/fedward budgets demo

.PHONY: test
test: $(READY) ## run the tests (FEDWARD_DATA names real data; tests that need it are skipped without)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=10

.PHONY: lint
lint: $(READY) ## format check, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright

.PHONY: bench
bench: $(READY) ## run every benchmark script
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

.PHONY: clean
clean: ## remove the environment; runs stay
	rm -rf $(VENV)
