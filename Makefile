# Everything runs in .venv, which each target makes or completes by itself.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-backends test-oldest wheel notebooks docs lint \
	format bench compare few-labels clean

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

test: .venv/dev.stamp  ## run the tests, but for the slow ones and those on JAX
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile \
		--ignore tests/test_backends.py $(ARGS)

test-slow: .venv/dev.stamp  ## run the tests that take longer
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile \
		--ignore tests/test_backends.py $(ARGS)

test-backends: .venv/dev.stamp  ## run neighbours and losses on JAX as well
	$(BIN)/python -m pytest tests/test_backends.py $(ARGS)

test-oldest:  ## run the core's tests on the oldest TensorFlow and Keras allowed
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) .ci/oldest.py > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --editable . \
		--constraint .venv-oldest/oldest.txt pytest pytest-xdist
	.venv-oldest/bin/python -m pytest -m "not slow" -n 2 --dist loadfile \
		tests/test_neighbors.py tests/test_features.py tests/losses tests/distiller \
		$(ARGS)
	.venv-oldest/bin/python -m pytest tests/test_multi_worker.py

wheel: .venv/dev.stamp  ## build the package, install it into an empty .venv, run its demo
	rm -rf build dist .venv-wheel
	$(BIN)/python -m build --quiet
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet dist/*.whl
	cd .venv-wheel && bin/keras-lpd demo

notebooks: .venv/dev.stamp  ## run the notebooks, hold them against their sources
	$(BIN)/python notebooks/build.py --check

docs: .venv/dev.stamp  ## build the pages into site/
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir site

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
	rm -rf .venv .venv-oldest .venv-wheel build dist site .pytest_cache .mypy_cache .ruff_cache *.egg-info
