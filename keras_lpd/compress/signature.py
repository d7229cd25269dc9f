"""What a model takes, input by input, each known by a name."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

import keras
import numpy as np

from keras_lpd.checks import names_inputs
from keras_lpd.features import graph_ends, is_graph


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of a model.

    Args:
        names: The structure that the model is called with, of names.
        shapes: Of a sample of each input, by name.
        dtypes: The dtype of each input, by name.
    """

    names: Any
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    @classmethod
    def of(cls, model: Any, sample: Any = None) -> Signature:
        """What a model takes, as far as it tells, and otherwise what a sample is.

        Args:
            model: A built model, of Keras 3 or tf_keras.
            sample: A batch of inputs, of any size.

        Raises:
            ValueError: If a shape stays unknown.
        """
        names, found = _told(model)
        if found is None:
            if sample is None:
                raise ValueError(
                    f"'{model.name}' ({type(model).__name__}) does not tell what it "
                    "takes. Give `representative_data=`, from which shapes and dtypes "
                    "are taken then, also for a float file."
                )
            names, found = _seen(sample)
        is_open = any(None in shape for shape, _ in found.values())
        seen = by_name(names, sample) if is_open and sample is not None else {}
        shapes = {}
        for name, (told, _) in found.items():
            shape = _completed(told, seen.get(name))
            if shape is None:
                raise ValueError(
                    f"A file takes samples of one size, but input '{name}' of "
                    f"'{model.name}' may have any: {told}. Give "
                    "`representative_data=` of the size wanted, also for a float file."
                )
            shapes[name] = shape
        return cls(names, shapes, {name: dtype for name, (_, dtype) in found.items()})

    def by_name(self, inputs: Any) -> dict[str, np.ndarray]:
        """Takes inputs apart, see `by_name`."""
        return by_name(self.names, inputs)

    def pack(self, inputs: dict[str, Any]) -> Any:
        """Puts inputs together again, in the structure that the model takes."""
        return keras.tree.map_structure(lambda name: inputs[name], self.names)


def by_name(names: Any, inputs: Any) -> dict[str, np.ndarray]:
    """Takes inputs apart into arrays by their names.

    Args:
        names: A structure of names.
        inputs: Arrays in the same structure, or in a dict by name, which may have
            others as well.

    Raises:
        ValueError: If they are other inputs than those.
    """
    expected = keras.tree.flatten(names)
    if isinstance(inputs, dict):
        keys = names if isinstance(names, dict) else {name: name for name in expected}
        if set(keys) <= set(inputs):
            return {name: np.asarray(inputs[key]) for key, name in keys.items()}
    arrays = [np.asarray(one) for one in keras.tree.flatten(inputs)]
    if len(arrays) != len(expected) or (isinstance(inputs, dict) and len(arrays) > 1):
        received = sorted(inputs) if isinstance(inputs, dict) else len(arrays)
        raise ValueError(f"Expected: inputs {expected}. Received: {received}.")
    return dict(zip(expected, arrays))


def is_tf_keras(model: Any) -> bool:
    """Whether it is a model of tf_keras, Keras 2, without an import of that."""
    loaded = sys.modules.get("tf_keras")
    return loaded is not None and isinstance(model, loaded.Model)


def identifiers(names: list[str]) -> list[str]:
    """The names as identifiers, each another one."""
    found: list[str] = []
    for name in names:
        name = re.sub(r"\W", "_", name)
        while name in found:
            name += "_"
        found.append(name)
    return found


def _numbered(count: int) -> list[str]:
    """Names of inputs that nobody named."""
    return ["inputs"] if count == 1 else [f"inputs_{i}" for i in range(count)]


_Found = dict[str, tuple[tuple[int | None, ...], str]]


def _told(model: Any) -> tuple[Any, _Found | None]:
    """The names and inputs that a model tells of by itself."""
    if is_graph(model):
        ends, _ = graph_ends(model)
    elif is_tf_keras(model) and model.inputs:
        ends = model.input
    else:
        return _built(model)
    tensors = keras.tree.flatten(ends)
    if isinstance(ends, dict):
        names = dict(zip(ends, identifiers(list(ends))))
    else:
        if is_graph(model) and not names_inputs(model):
            known = _numbered(len(tensors))
        else:
            known = identifiers([tensor.name.split(":")[0] for tensor in tensors])
        names = keras.tree.pack_sequence_as(ends, known)
    return names, {
        name: (tuple(tensor.shape)[1:], keras.backend.standardize_dtype(tensor.dtype))
        for name, tensor in zip(keras.tree.flatten(names), tensors)
    }


def _built(model: Any) -> tuple[Any, _Found | None]:
    """The same of a model that is no graph, by the shape it was built with."""
    config: dict[str, Any] | None = getattr(model, "get_build_config", dict)()
    shape = (config or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(
        size is None or isinstance(size, int) for size in shape
    ):
        return None, None
    return "inputs", {"inputs": (tuple(shape)[1:], model.input_dtype)}


def _seen(sample: Any) -> tuple[Any, _Found]:
    """The same of inputs."""
    if isinstance(sample, dict):
        names: Any = dict(zip(sample, identifiers(list(sample))))
    elif keras.tree.is_nested(sample):
        known = _numbered(len(keras.tree.flatten(sample)))
        names = keras.tree.pack_sequence_as(sample, known)
    else:
        names = "inputs"
    return names, {
        name: (one.shape[1:], _usual_dtype(one.dtype))
        for name, one in by_name(names, sample).items()
    }


def _usual_dtype(dtype: np.dtype) -> str:
    """What Keras makes of arrays: real numbers become float32."""
    return "float32" if dtype.kind == "f" else dtype.name


def _completed(
    shape: tuple[int | None, ...], seen: np.ndarray | None
) -> tuple[int, ...] | None:
    """The shape, with the sizes it leaves open taken from samples; None without."""
    sizes: tuple[int | None, ...] = shape
    if seen is not None and seen.ndim == len(shape) + 1:
        sizes = tuple(a if a is not None else b for a, b in zip(shape, seen.shape[1:]))
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None
