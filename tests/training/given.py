"""Small models and samples, to be trained on several devices."""

import functools

import keras
import numpy as np

L = keras.layers
EVEN, UNEVEN, ONE_LEFT = 96, 113, 97
"""How many samples there are: in batches of 32, the last is full, of 17 or of 1."""


@functools.cache
def samples():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, UNEVEN)
    x = 1.5 * random.normal(size=(3, 8))[y] + random.normal(size=(UNEVEN, 8))
    return x.astype("float32"), y, random.uniform(0.2, 2.0, UNEVEN).astype("float32")


def network(width, seed, *more, name=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(
                width, activation="relu", kernel_regularizer=keras.regularizers.L2()
            ),
            *(make() for make in more),
            L.Dense(width // 2, activation="relu", name="features"),
            L.Dense(3, name="logits"),
        ],
        name=name,
    )


def apart(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))
