"""Batches that bring along what a teacher made of them.

Such a batch has the inputs and the teacher's features side by side in one plain
dict, `{"inputs": inputs, "teacher <mark>": {layer: features}}`, which goes
through `shuffle`, `batch`, `map` and `tf.data.Dataset.save` like any other. The
mark tells whose features they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

import keras
import numpy as np

INPUTS = "inputs"
"""Where an element keeps what it was before it was taught."""

_TEACHER = "teacher "
_SHOWN = 16
_KEY = re.compile(rf"{_TEACHER}[0-9a-f]{{{_SHOWN}}}( |$)")
_FLATTENED = "flattened"
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


class Mark(NamedTuple):
    """Whose features they are, and in which coordinates.

    Args:
        teacher: The beginning of the teacher's fingerprint.
        projection: Names the projection that the features went through, if any.
        flattened: Whether feature maps lost their axes in it.
    """

    teacher: str
    projection: str = ""
    flattened: bool = False

    @classmethod
    def of(cls, teacher_fingerprint: str, *rest: Any) -> Mark:
        return cls(teacher_fingerprint[:_SHOWN], *rest)

    def made_by(self, teacher_fingerprint: str) -> bool:
        return teacher_fingerprint.startswith(self.teacher)


class Taught(NamedTuple):
    """A batch (or a sample), taken apart."""

    inputs: Any
    mark: Mark
    features: dict[str, Any]


def join(inputs: Any, mark: Mark, features: dict[str, Any]) -> dict[str, Any]:
    """Inputs and features as what goes through a pipeline."""
    words = [
        mark.teacher, mark.projection, _FLATTENED if mark.flattened else ""
    ]  # fmt: skip
    return {INPUTS: inputs, _TEACHER + " ".join(filter(None, words)): features}


def split(x: Any) -> Taught | None:
    """Takes apart what `join` made; `None` for anything else."""
    if not isinstance(x, dict) or len(x) != 2 or INPUTS not in x:
        return None
    key = next(key for key in x if key != INPUTS)
    if not isinstance(key, str) or not _KEY.match(key):
        return None
    words = key.split()[1:]
    flattened = words[-1] == _FLATTENED
    projection = "".join(words[1 : len(words) - flattened])
    return Taught(x[INPUTS], Mark(words[0], projection, flattened), x[key])


def inputs_of(x: Any) -> Any:
    """The inputs alone, of a taught batch or any other."""
    taught = split(x)
    return x if taught is None else taught.inputs
