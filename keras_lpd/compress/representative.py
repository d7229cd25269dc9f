"""The samples that quantisation sets its ranges by."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lpd.compress.signature import Signature
from keras_lpd.samples import Samples

LEAST = 50
"""How many different samples it takes at least."""


def take_inputs(data: Any, most: int) -> Any:
    """The inputs of the first samples of a data set; labels are left out.

    Args:
        data: Arrays, a dict or list of them, `(inputs, labels)`, or batches in a
            `tf.data.Dataset` or a `keras.utils.PyDataset`.
        most: How many.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is empty, or not batched.
    """
    if isinstance(data, (dict, list)):
        data = (data,)
    data = keras.tree.map_structure(
        lambda one: one[:most] if getattr(one, "shape", ()) else one, data
    )
    try:
        return Samples.take(data, most).inputs
    except (TypeError, ValueError) as error:
        told = str(error).replace("`dataset`", "`representative_data`")
        raise type(error)(told) from None


def take_evenly(data: Any, most: int) -> Any:
    """Arrays thinned out to some samples, so that of sorted ones no part is missing.

    Data sets stay as they are, and of what can't be read twice there is `None`.
    """
    if isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
        return data
    if not all(getattr(one, "shape", ()) for one in keras.tree.flatten(data)):
        return None
    return keras.tree.map_structure(
        lambda one: one[:: max(1, len(one) // most)][:most], data
    )


def take_samples(data: Any, signature: Signature, most: int) -> dict[str, np.ndarray]:
    """Inputs by name, in the dtype and shape that the model takes.

    Args:
        data: See `take_inputs`.
        signature: What the model takes.
        most: How many samples are taken, the first ones.

    Raises:
        ValueError: If they are too few or too much alike, not finite, or don't fit
            the model.

    Example:

    >>> from keras_lpd.compress.signature import Signature
    >>> samples = take_samples(x_train, Signature.of(student), most=60)
    >>> [one.shape for one in samples.values()]
    [(60, 8, 8, 1)]
    """
    try:
        samples = signature.by_name(take_inputs(data, most))
    except ValueError as error:
        raise ValueError(
            f"`representative_data` must be what the model takes. {error}"
        ) from None
    for name, rows in samples.items():
        samples[name] = _fitting(name, rows, signature)
    _check_count(samples)
    return samples


def _fitting(name: str, rows: np.ndarray, signature: Signature) -> np.ndarray:
    """The rows in the dtype of an input, if they fit it."""
    shape, dtype = signature.shapes[name], np.dtype(signature.dtypes[name])
    real = dtype.kind == "f"
    if rows.shape[1:] != shape or rows.dtype.kind not in ("biuf" if real else "biu"):
        raise ValueError(
            "`representative_data` must be what the model takes. Expected: samples of "
            f"shape {shape} and dtype {dtype} for input '{name}'. Received: shape "
            f"{rows.shape[1:]} and dtype {rows.dtype}."
        )
    broken = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if broken.any():
        raise ValueError(
            f"`representative_data` has NaN or infinite values in {broken.sum()} of "
            f"{len(rows)} samples (the first is number {broken.argmax()}), so that no "
            "range can be set by them. Leave such samples out."
        )
    return rows.astype(dtype)


def _check_count(samples: dict[str, np.ndarray]) -> None:
    rows = zip(*samples.values())
    count = len(next(iter(samples.values())))
    different = len({b"".join(one.tobytes() for one in row) for row in rows})
    if different < LEAST:
        raise ValueError(
            "The ranges of quantised numbers are set by `representative_data`. "
            f"Expected: at least {LEAST} different samples, better some hundred, "
            f"drawn as the training data is. Received: {count} samples, {different} of "
            "them different."
        )
