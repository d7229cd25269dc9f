"""Fixtures of several test files."""

import keras
import numpy as np
import pytest

if keras.backend.backend() == "tensorflow":
    import tests.devices  # noqa: F401  # for `tf.distribute`


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)
