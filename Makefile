# Two commands are enough: `make demo` and `make test`.
# A fresh machine needs make and python3 (3.11 or newer, with venv); the rest goes into .venv.

PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports unit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## compare F3EO with its rivals and write a report
	$(BIN)/f3eo compare

test: lint types imports unit ## everything that CI checks

lint: $(READY) ## style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## static types
	$(BIN)/pyright

imports: $(READY) ## imports go one way, the core needs torch alone
	$(BIN)/lint-imports --no-logo

# Two workers with one thread each, so that they do not fight over two cores.
unit: export OMP_NUM_THREADS := 1
unit: export MKL_NUM_THREADS := 1
unit: $(READY) ## the test suite
	$(BIN)/pytest -n 2

clean: ## remove the environment, caches and build output; reports in runs/ stay
	rm -rf .venv build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again whenever pyproject.toml or constraints.txt is newer than the stamp.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "f3eo needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
	  echo "Name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "'$(PYTHON)' cannot make virtual environments."; \
	  echo "Install its venv module (on Debian or Ubuntu: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into .venv; the first time takes a few minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# curvlinops asks for torchvision and does not import it; PyPI's does not load beside a CPU
	@# build of torch, and transformers stumbles over one that is there and does not load.
	@$(BIN)/pip uninstall -qqy torchvision
	@touch $@
