"""Small models in files, and small data, for the command."""

import keras
import numpy as np
import pytest


@pytest.fixture(scope="package")
def teacher(tmp_path_factory):
    """A teacher for digits, and its file."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(24, activation="relu", name="body"),
            keras.layers.Dense(16, activation="relu", name="features"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    path = tmp_path_factory.mktemp("models") / "teacher.keras"
    model.save(path)
    return model, str(path)


@pytest.fixture(scope="package")
def student(tmp_path_factory):
    """A student that draws random numbers as it trains, and its file."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="relu", name="narrow"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10),
        ]
    )
    path = tmp_path_factory.mktemp("models") / "student.keras"
    model.save(path)
    return model, str(path)


@pytest.fixture(scope="package")
def arrays():
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (96, 8, 8), "uint8"),
        "y_train": random.integers(0, 10, 96),
        "x_test": random.integers(0, 256, (24, 8, 8), "uint8"),
        "y_test": random.integers(0, 10, 24),
    }


@pytest.fixture(scope="package")
def data(arrays, tmp_path_factory):
    """A file of little data."""
    path = tmp_path_factory.mktemp("data") / "little.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def only_error(capfd):
    """Gives the one line in which the command told of an error."""

    def line():
        shown = capfd.readouterr().err
        assert "Traceback" not in shown
        lines = [x for x in shown.splitlines() if x.startswith("keras-lpd: error: ")]
        assert len(lines) == 1, shown
        assert shown.splitlines()[-1] == lines[0]
        return lines[0]

    return line
