"""Small models and data to compress."""

import functools

import keras
import numpy as np

from keras_lpd import LPDistiller
from keras_lpd.compress import prune

L = keras.layers


def images(rows=96, seed=0):
    """8x8 images of three classes, a little apart."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, rows)
    x = random.uniform(0, 0.5, (rows, 8, 8, 1)) + 0.25 * y[:, None, None, None]
    return x.astype("float32"), y


def student(*layers, seed=1, shape=(8, 8, 1), name="student", activation=None):
    """Those layers, or a convolution with batch normalization; then a small head."""
    keras.utils.set_random_seed(seed)
    body = layers or (
        L.Conv2D(8, 3, use_bias=False, name="conv"),
        L.BatchNormalization(name="norm"),
        L.ReLU(name="relu"),
        L.MaxPooling2D(name="pool"),
    )
    return keras.Sequential(
        [
            keras.Input(shape),
            *body,
            L.Flatten(name="flatten"),
            L.Dense(8, activation="relu", name="features"),
            L.Dense(3, activation=activation, name="logits"),
        ],
        name=name,
    )


def teacher(shape=(8, 8, 1)):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape),
            L.Flatten(),
            L.Dense(12, activation="relu", name="features"),
            L.Dense(3, name="logits"),
        ],
        name="teacher",
    )


def distiller(model=None, **kwargs):
    return LPDistiller(teacher(), model or student(), **kwargs)


@functools.cache
def pruned():
    """A distiller whose student is pruned by half; to be looked at alone."""
    result = prune(distiller(shake(student())), 0.5, "constant")
    result.fit(*images(), verbose=0)
    return result


def shake(model, seed=0):
    """Gives a model weights as if it had been trained, none of them 0."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(0.1 * random.normal(size=weight.shape))
    return model


def same(one, other):
    """Whether two lists of arrays are equal to the bit."""
    return len(one) == len(other) and all(map(np.array_equal, one, other))
