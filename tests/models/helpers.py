"""What the tests of all networks look at."""

import numpy as np


def images(shape, count=8):
    random = np.random.default_rng(0)
    return random.random((count, *shape), dtype="float32"), random.integers(
        0, 10, count
    )


def shape_of(model, layer):
    return model.get_layer(layer).output.shape[1:]
