"""A model's fingerprint: another day it tells whether the model is still the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np

_INESSENTIAL = {
    "name", "module", "registered_name", "trainable", "seed",
    "build_config", "build_input_shape", "compile_config",
}  # fmt: skip
_SHAPED = {"InputLayer": "batch_shape", "__keras_tensor__": "shape"}


def fingerprint(model: keras.Model) -> str:
    """SHA-256 over the model's weights, in their order, and what its layers are.

    Names have no part in it: they change when a model is made again. Of a
    subclassed model the layers are known only as far as its `get_config` tells.
    """
    digest = hashlib.sha256(_architecture(model).encode())
    for variable in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _architecture(model: keras.Model) -> str:
    """The model's config without names, and without what changes no feature."""
    try:
        config = model.get_config()
    except Exception:  # It is another's code, of a model that need not be saved.
        return type(model).__name__
    return json.dumps(_essence(config, {}), sort_keys=True, default=_as_json)


def _essence(config: Any, numbers: dict[str, int]) -> Any:
    """A config in which layers are known by their number in the model around them."""
    if isinstance(config, dict):
        kind = str(config.get("class_name"))
        if kind.endswith("DTypePolicy"):
            return config["config"]  # the one thing that is told by its name
        if kind == "__lambda__":
            return kind  # its code has another form each time it is loaded
        if kind in _SHAPED:  # The batch that built it has no part in it.
            key = _SHAPED[kind]
            shape = config["config"].get(key, ())
            config = {**config, "config": {**config["config"], key: shape[1:]}}
        numbers = _numbers(config.get("layers")) or numbers
        return {
            key: _essence(value, numbers)
            for key, value in config.items()
            if value is not None and key not in _INESSENTIAL
        }
    if isinstance(config, (list, tuple)):
        match config:
            case [str(name), int(), int()] if name in numbers:
                return [numbers[name], *config[1:]]  # the output of another layer
        return [_essence(value, numbers) for value in config]
    return config


def _numbers(layers: Any) -> dict[str, int]:
    """The numbers of the layers in a model's config, by their names."""
    try:
        return {layer["config"]["name"]: i for i, layer in enumerate(layers)}
    except (TypeError, KeyError):
        return {}  # something else by that name


def _as_json(value: Any) -> Any:
    """What JSON does not know: arrays, and objects of which the type has to do."""
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    return type(value).__name__
