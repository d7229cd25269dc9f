"""Fixtures of several test files."""

import gc

import keras
import numpy as np
import pytest

if keras.backend.backend() == "tensorflow":
    import tests.devices as devices
else:
    devices = None


def pytest_collection_finish():
    """What is imported by now stays: the garbage collector need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def let_go():
    """After each file, the memory of what it traced: gigabytes, over all files.

    What is left stays, and is not looked at again.
    """
    yield
    if devices:
        devices.forget_custom_gradients()
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)
