# Everything runs in .venv, which each target makes or completes by itself.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-backends lint format bench compare few-labels clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv || (rm -rf .venv; exit 1)
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/demo.stamp: .venv/pyvenv.cfg setup.py
	$(BIN)/python -m pip install --quiet --editable '.[examples]'
	@touch $@

.venv/dev.stamp: .venv/pyvenv.cfg setup.py
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/demo.stamp

demo: .venv/demo.stamp  ## distil a student on real data, print and draw the result
	$(BIN)/python examples/quickstart.py $(ARGS)

test: .venv/dev.stamp  ## run the tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

test-slow: .venv/dev.stamp  ## run the tests that take longer
	$(BIN)/python -m pytest -m slow $(ARGS)

test-backends: .venv/dev.stamp  ## run neighbours and losses on JAX as well
	$(BIN)/python -m pytest tests/test_backends.py $(ARGS)

lint: .venv/dev.stamp  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy keras_lpd

format: .venv/dev.stamp  ## put the code into style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/demo.stamp  ## time a training step, neighbours, metrics and the cache
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/neighbors.py
	$(BIN)/python benchmarks/teacher_cache.py
	$(BIN)/python benchmarks/projection.py
	$(BIN)/python benchmarks/metrics.py

compare: .venv/demo.stamp  ## compare the methods on Fashion-MNIST (hours; it can be cut off)
	$(BIN)/python benchmarks/compare_methods.py $(ARGS)

few-labels: .venv/demo.stamp  ## compare them with few labels (an hour or two; likewise)
	$(BIN)/python benchmarks/few_labels.py $(ARGS)

clean:  ## remove .venv and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache *.egg-info
