# Windows has no make: README says which commands these stand for.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOB := $(BIN)/python -m falcon_job

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: env
env: $(VENV)/.ready ## Make the environment .venv (TORCH_INDEX=… for another build of torch)

$(VENV)/.ready: requirements.lock
	@echo "Making $(VENV). It downloads about 3 GB on Linux (torch with its CUDA libraries), 0.4 GB with a CPU build of torch."
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' requirements.lock)")
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

.PHONY: train
train: env ## Run the whole job and print its scores (PRESET=… puts that preset in first)
	$(if $(PRESET),$(JOB) preset $(PRESET))
	@$(JOB) run

.PHONY: repro
repro: env ## Run what is stale, after a change of params.yaml
	@$(JOB) run

.PHONY: data
data: env ## Bring in your own questions: TRAIN=FILE DEV=FILE
	$(JOB) data --train "$(TRAIN)" --dev "$(DEV)"

.PHONY: preset
preset: env ## Write params.yaml from a preset: NAME=… (none: list them)
	@$(JOB) preset $(NAME)

.PHONY: metrics
metrics: env ## Compare this run's scores with the last commit's
	$(BIN)/dvc metrics diff

.PHONY: accept
accept: env ## Accept an edit that cannot change results, without running
	$(BIN)/dvc commit --force

.PHONY: test
test: env ## Run the tests
	$(BIN)/python -m pytest -m "not slow"

.PHONY: test-slow
test-slow: env ## Run the long rounds too
	$(BIN)/python -m pytest

.PHONY: smoke-real
smoke-real: env ## Train a small real model on real questions, apart: SQUAD=FOLDER MODEL=FOLDER
	$(BIN)/python -m tools.smoke_real "$(SQUAD)" "$(MODEL)"

.PHONY: lint
lint: env ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: lock
lock: env ## Resolve requirements.lock anew
	tools/lock.sh

.PHONY: demo-data
demo-data: env ## Maintainers: make data/ and its bundled store anew
	$(BIN)/python -m tools.publish_demo
