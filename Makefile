# `make help` lists the targets. Each sets up what it needs, once.
PYTHON ?= python3
USER_VENV := .venv
DEV_VENV := .venv-dev
GPU_VENV := .venv-gpu
PEERS_VENV := .venv-peers
TRT ?= trt10
PARALLEL := --numprocesses auto --dist worksteal

.PHONY: help demo test test-fast test-gpu test-cuda test-pythons lint docs docs-serve dist bench image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(USER_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(USER_VENV)
	$(USER_VENV)/bin/python -m pip install --quiet --no-compile --editable ".[demo]"
	touch $@

$(DEV_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV_VENV)
	$(DEV_VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(GPU_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --editable ".[images,rtx,torch,$(TRT)]" "hypothesis>=6.100" "pytest>=8.3" "pytest-timeout>=2.3"
	$(GPU_VENV)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(GPU_VENV)/bin/python -m pip install --quiet onnxruntime-gpu
	touch $@

# modelopt brings another ONNX Runtime. Where it cannot be installed, its rows say so and the rest is measured.
$(PEERS_VENV)/ready: benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	-$(PEERS_VENV)/bin/python -m pip install --quiet --requirement benchmarks/peers.txt && touch $@

demo: $(USER_VENV)/ready ## quantize a real text recogniser: INT8 model, TensorRT-RTX engine, report (a few minutes)
	$(USER_VENV)/bin/python -m benchmarks.demo

test: $(DEV_VENV)/ready ## run all tests
	$(DEV_VENV)/bin/python -m pytest $(PARALLEL)

test-fast: $(DEV_VENV)/ready ## run the tests that take no more than seconds
	$(DEV_VENV)/bin/python -m pytest $(PARALLEL) -m "not slow and not gpu"

test-gpu: $(GPU_VENV)/ready ## run the tests that need an NVIDIA GPU, with TensorRT 10 (TRT=trt11: 11)
	$(GPU_VENV)/bin/python -m pytest -m gpu tests/gpu

test-cuda: ## run what needs an NVIDIA GPU but no TensorRT, in five minutes (tests/gpu/cuda/README.md; PYTHON=… as it is)
	PYTHON=$(PYTHON) scripts/test-cuda.sh

test-pythons: ## run the smoke tests on each of Python 3.10 to 3.13 that is installed
	scripts/test-pythons.sh

lint: $(DEV_VENV)/ready ## run ruff, mypy, vermin, import-linter and hadolint
	$(DEV_VENV)/bin/ruff check .
	$(DEV_VENV)/bin/ruff format --check .
	$(DEV_VENV)/bin/mypy
	$(DEV_VENV)/bin/vermin --quiet --no-tips --target=3.10- --eval-annotations --backport typing_extensions \
		benchmarks calibrators docs engines tests trt_ptq
	$(DEV_VENV)/bin/lint-imports
	$(DEV_VENV)/bin/hadolint docker/*.Dockerfile

docs: $(DEV_VENV)/ready ## build the documentation into site/; broken links and missing pages are errors
	$(DEV_VENV)/bin/python docs/generate.py
	NO_COLOR=1 $(DEV_VENV)/bin/zensical build --strict --clean
	$(DEV_VENV)/bin/python docs/generate.py --check-site

docs-serve: $(DEV_VENV)/ready ## serve the documentation at localhost:8000 and rebuild it when a page changes
	$(DEV_VENV)/bin/python docs/generate.py
	$(DEV_VENV)/bin/zensical serve

dist: $(DEV_VENV)/ready ## build the sdist and the wheel into dist/
	rm -rf dist
	$(DEV_VENV)/bin/python -m build

# ROW='accuracy/magika/*' measures only these rows; AGAIN=1 also those that are up to date.
bench: $(DEV_VENV)/ready $(PEERS_VENV)/ready ## measure accuracy, speed and memory beside other tools, for docs/benchmarks.md (up to an hour; resumes)
	$(DEV_VENV)/bin/python -m benchmarks $(if $(ROW),'$(ROW)') $(if $(AGAIN),--again)

image: ## build and run the CPU-only image without a Docker engine (root, Debian)
	docker/build-without-engine.sh

clean: ## remove virtual environments and results
	rm -rf $(USER_VENV) $(DEV_VENV) $(GPU_VENV) $(PEERS_VENV) .venv-3.* demo dist site
