"""What the tests of a cache share: a trained teacher, and caches of what it makes.

Files whose units need less define a `teacher` of their own.
"""

import keras
import pytest

from keras_lpd import TeacherCache
from tests.caching.given import Counted, dataset, digits, features_of, noisy
from tests.helpers import cross_entropy

layers = keras.layers


@pytest.fixture(scope="session")
def teacher():
    """A convolutional network that tells most digits apart; counts its samples."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Counted(name="counted"),
            keras.Sequential(
                [
                    keras.Input((8, 8, 1)),
                    layers.Conv2D(8, 3, padding="same", activation="relu", name="conv"),
                    layers.MaxPooling2D(),
                    layers.Conv2D(16, 3, padding="same", activation="relu"),
                    layers.MaxPooling2D(),
                ],
                name="body",
            ),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="features"),
            layers.Dropout(0.3),
            layers.Dense(10, name="logits"),
        ],
        name="teacher",
    )
    model.compile(keras.optimizers.Adam(3e-3), cross_entropy(), metrics=["accuracy"])
    history = model.fit(*digits(None), epochs=10, batch_size=64, verbose=0).history
    assert history["accuracy"][-1] > 0.8
    return model


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Builds a cache of the digits in a folder of its own, without a word."""
    folder = tmp_path_factory.mktemp("caches")
    numbers = iter(range(1000))

    def build(teacher, data=None, path=None, **kwargs):
        data = dataset() if data is None else data
        path = folder / str(next(numbers)) if path is None else path
        return TeacherCache.build(teacher, data, path, verbose=0, **kwargs)

    return build


@pytest.fixture(scope="session")
def whole(build, teacher):
    """Features and outputs in float32, the last batch being of a single sample."""
    return build(teacher, outputs=True, dtype="float32", batch_size=64)


@pytest.fixture(scope="session")
def exact(teacher):
    """Of the digits, what the teacher's layers give."""
    x, _ = digits()
    names = ("body/conv", "features", "logits")
    return {layer: features_of(teacher, x, layer) for layer in names}


@pytest.fixture(scope="session")
def views(build, teacher):
    """Three views of each of the first 70 digits."""
    return build(
        teacher,
        dataset(*digits(70)),
        augment=noisy,
        views=3,
        seed=10,
        dtype="float32",
        batch_size=32,
    )
