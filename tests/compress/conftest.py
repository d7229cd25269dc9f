"""A student, and the files that are made of it."""

import keras
import pytest

from keras_lpd.compress import to_litert
from keras_lpd.datasets import load_arrays
from keras_lpd.models import cnn_student


@pytest.fixture(scope="session")
def digits():
    return load_arrays("digits")


@pytest.fixture(scope="session")
def trained(digits):
    """A student that knows the digits."""
    keras.utils.set_random_seed(0)
    model = cnn_student((8, 8, 1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(digits.x_train, digits.y_train, batch_size=64, epochs=12, verbose=0)
    return model


@pytest.fixture(scope="session")
def files(trained, digits, tmp_path_factory):
    """The LiteRT files of that student, by their kind."""
    folder = tmp_path_factory.mktemp("files")
    return {
        kind: to_litert(
            trained,
            folder / f"{kind}.tflite",
            None if kind == "float32" else kind,
            digits.x_train,
            representative_samples=200,
        )
        for kind in ("float32", "float16", "int8", "int16x8")
    }
