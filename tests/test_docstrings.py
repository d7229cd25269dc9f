"""The examples in the docstrings run, and give what they say."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lpd
from keras_lpd.models import cnn_student, cnn_teacher


def examples():
    names = ["keras_lpd"] + [
        module.name
        for module in pkgutil.walk_packages(keras_lpd.__path__, "keras_lpd.")
    ]
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in names:
        for test in finder.find(importlib.import_module(name)):
            if test.examples:
                yield test


@pytest.mark.parametrize("test", list(examples()), ids=lambda test: test.name)
def test_examples(test, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some save files
    random = np.random.default_rng(0)
    test.globs.update(vars(keras_lpd))
    test.globs.update(
        keras=keras,
        np=np,
        tf=tf,
        teacher=cnn_teacher((8, 8, 1)),
        student=cnn_student((8, 8, 1)),
        x_train=random.random((64, 8, 8, 1), dtype="float32"),
        y_train=random.integers(0, 10, 64),
    )
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.attempted > 0
    assert results.failed == 0
