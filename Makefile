# Windows has no make. README lists the commands to run there instead.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := $(if $(FALCON_JOB_IMAGE),/opt/venv,.venv)
BIN := $(VENV)/bin
JOB := $(if $(FALCON_JOB_IMAGE),falcon-job,$(BIN)/python -m falcon_job)

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

ifdef FALCON_JOB_IMAGE
# Inside the image, commands run in its own environment.
.PHONY: env
env: ;
else
.PHONY: env
env: $(VENV)/.ready ## Create the environment .venv (TORCH_INDEX=… for another build of torch)

$(VENV)/.ready: requirements.lock
	@echo "Creating $(VENV). This downloads about 3 GB on Linux (torch with its CUDA libraries), 0.4 GB with a CPU build of torch."
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' requirements.lock)")
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@
endif

.PHONY: train
train: env ## Run the whole job and print its scores (PRESET=… writes that preset to params.yaml first)
	$(if $(PRESET),$(JOB) preset $(PRESET))
	@$(JOB) run

.PHONY: repro
repro: env ## Run the stages that are out of date, for example after an edit of params.yaml
	@$(JOB) run

.PHONY: data
data: env ## Import your own questions: TRAIN=FILE DEV=FILE
	$(JOB) data --train "$(TRAIN)" --dev "$(DEV)"

.PHONY: preset
preset: env ## Write params.yaml from a preset: NAME=… (without NAME: list the presets)
	@$(JOB) preset $(NAME)

.PHONY: metrics
metrics: env ## Compare this run's scores with the last commit's
	$(BIN)/dvc metrics diff

.PHONY: accept
accept: env ## Accept a code edit that cannot change results, without running anything (dvc commit)
	$(BIN)/dvc commit --force

.PHONY: test
test: env ## Run the tests
	$(BIN)/python -m pytest -m "not slow"

.PHONY: test-slow
test-slow: env ## Run all tests, including the slow ones
	$(BIN)/python -m pytest

.PHONY: smoke-real
smoke-real: env ## Train a small real model on real questions in a temporary clone: SQUAD=FOLDER MODEL=FOLDER
	$(BIN)/python -m tools.smoke_real "$(SQUAD)" "$(MODEL)"

.PHONY: benchmark
benchmark: env .peers/.ready ## Compare the speed of training with transformers, TRL and LitGPT (OUTPUT=FILE)
	$(BIN)/dvc pull --quiet data.dvc
	@work=$$(mktemp -d) && .peers/bin/python -m benchmarks.train_speed demo data/falcon-tiny data "$$work/run" --limit 320 \
		$(if $(OUTPUT),--output "$(OUTPUT)"); status=$$?; rm -rf "$$work"; exit $$status

.peers/.ready: requirements.lock benchmarks/peers/requirements.txt benchmarks/peers/requirements-no-deps.txt
	$(PYTHON) -m venv .peers
	$(if $(TORCH_INDEX),.peers/bin/pip install --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' requirements.lock)")
	.peers/bin/pip install --quiet --requirement requirements.lock --requirement benchmarks/peers/requirements.txt
	.peers/bin/pip install --quiet --no-deps --requirement benchmarks/peers/requirements-no-deps.txt
	@touch $@

.PHONY: lint
lint: env ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	! test -x $(BIN)/shellcheck || $(BIN)/shellcheck tools/*.sh .ci/run # not available on every machine
	$(BIN)/zizmor --offline --quiet .github

# Docker or podman. The tag of the image is a hash of what it is built from.
ENGINE ?= $(shell command -v docker || command -v podman || echo docker)
MADE_FROM = { cat Dockerfile tools/falcon-job.sh requirements.lock; echo "$(BASE_IMAGE) $(TORCH_INDEX)"; }
IMAGE ?= falcon-job:$(shell $(MADE_FROM) | git hash-object --stdin | cut -c1-12)
GPUS ?= $(if $(filter undefined,$(origin CUDA_VISIBLE_DEVICES)),all,$(or $(CUDA_VISIBLE_DEVICES),none))
BUILD = DOCKER_BUILDKIT=1 $(ENGINE) build $(if $(BASE_IMAGE),--build-arg BASE_IMAGE="$(BASE_IMAGE)") \
	$(if $(TORCH_INDEX),--build-arg TORCH_INDEX="$(TORCH_INDEX)") $(BUILD_ARGS)
# exec, because make signals the shell that it starts, and the signals must reach the container engine
CONTAINER = @exec env ENGINE="$(ENGINE)" IMAGE="$(IMAGE)" GPUS="$(GPUS)" tools/container.sh

.PHONY: image
image: ## Build the image (BASE_IMAGE=… TORCH_INDEX=… for an older driver, BUILD_ARGS=… for docker build)
	$(BUILD) --target runtime --build-arg REVISION="$$(git rev-parse HEAD)" --tag $(IMAGE) --tag falcon-job:latest .

.PHONY: container-train
container-train: ## Like train, inside the image (GPUS=0,1 to choose, GPUS=none for none)
	$(CONTAINER) make train PRESET="$(PRESET)"

.PHONY: container-shell
container-shell: ## Open a shell inside the image
	$(CONTAINER) bash

.PHONY: container-test
container-test: ## Build the image and run the tests marked `container` inside
	$(BUILD) --target test --tag falcon-job:test .

.PHONY: image-bom
image-bom: ## Write dist/image-bom.json: the licence and version of everything in the image
	@mkdir -p dist
	$(CONTAINER) python -m tools.image_bom > dist/image-bom.json.part
	@mv dist/image-bom.json.part dist/image-bom.json

.PHONY: audit
audit: env ## Check requirements.lock for known vulnerabilities
	$(BIN)/python -m tools.audit

.PHONY: lock
lock: env ## Resolve requirements.lock again from pyproject.toml
	tools/lock.sh

.PHONY: demo-data
demo-data: env ## Maintainers: rebuild data/ and the bundled DVC remote (MODEL=FOLDER of another falcon-tiny)
	$(BIN)/python -m tools.publish_demo $(if $(MODEL),"$(MODEL)")
