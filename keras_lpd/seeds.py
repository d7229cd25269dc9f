"""Where the random numbers of layers have come to."""

from __future__ import annotations

from typing import Any

import keras


def seed_states(model: keras.Model) -> list[Any]:
    """The states of random numbers in layers such as dropout; Keras saves none."""
    weights = {id(variable) for variable in model.weights}
    return [
        variable
        for variable in model.variables
        if id(variable) not in weights
        and variable.path.endswith("seed_generator_state")
    ]
