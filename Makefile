# make demo: the main job on a real model.  make test: all tests.  Each target sets up what it needs, once.
PYTHON ?= python3
USER_VENV := .venv
DEV_VENV := .venv-dev
GPU_VENV := .venv-gpu
PEERS_VENV := .venv-peers
TRT ?= trt10
PARALLEL := --numprocesses auto --dist worksteal

.PHONY: help demo test test-fast test-gpu lint bench image clean

help:
	@echo "make demo       quantize a real text recogniser: INT8 model, TensorRT-RTX engine, report (18 minutes on two cores that also ran the tests)"
	@echo "make test       run all tests"
	@echo "make test-fast  run the tests that take no more than seconds"
	@echo "make test-gpu   run the tests that need an NVIDIA GPU, with TensorRT 10 (TRT=trt11: 11)"
	@echo "make lint       ruff, mypy, import-linter and hadolint"
	@echo "make bench      measure what the README quotes, into bench/ (hours; nothing else should run)"
	@echo "make image      build and run the CPU-only image without a Docker engine (root, Debian)"
	@echo "make clean      remove virtual environments and results"

$(USER_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(USER_VENV)
	$(USER_VENV)/bin/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(DEV_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV_VENV)
	$(DEV_VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(GPU_VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --editable ".[images,rtx,torch,$(TRT)]" "pytest>=8.3" "pytest-timeout>=2.3"
	$(GPU_VENV)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(GPU_VENV)/bin/python -m pip install --quiet onnxruntime-gpu
	touch $@

# modelopt brings another ONNX Runtime. Where it cannot be installed, its rows say so and the rest is measured.
$(PEERS_VENV)/ready: benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	-$(PEERS_VENV)/bin/python -m pip install --quiet --requirement benchmarks/peers.txt && touch $@

demo: $(USER_VENV)/ready
	$(USER_VENV)/bin/python -m benchmarks.demo

test: $(DEV_VENV)/ready
	$(DEV_VENV)/bin/python -m pytest $(PARALLEL)

test-fast: $(DEV_VENV)/ready
	$(DEV_VENV)/bin/python -m pytest $(PARALLEL) -m "not slow and not gpu"

test-gpu: $(GPU_VENV)/ready
	$(GPU_VENV)/bin/python -m pytest -m gpu tests/gpu

lint: $(DEV_VENV)/ready
	$(DEV_VENV)/bin/ruff check .
	$(DEV_VENV)/bin/ruff format --check .
	$(DEV_VENV)/bin/mypy
	$(DEV_VENV)/bin/lint-imports
	$(DEV_VENV)/bin/hadolint docker/*.Dockerfile

bench: $(DEV_VENV)/ready $(PEERS_VENV)/ready
	$(DEV_VENV)/bin/python -m benchmarks.speed --json bench/speed.json
	$(DEV_VENV)/bin/python -m benchmarks.methods --json bench/methods.json
	$(DEV_VENV)/bin/python -m benchmarks.accuracy --json bench/accuracy.json

image:
	docker/build-without-engine.sh

clean:
	rm -rf $(USER_VENV) $(DEV_VENV) $(GPU_VENV) $(PEERS_VENV) demo bench
