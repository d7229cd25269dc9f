"""Refusals that come out of compiled functions, where no exception can be raised."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

_FRAMED = re.compile(r"<<(.+?)>>", re.DOTALL)
_CARDINALITY = re.compile(r"(Input dataset was expected to contain \d+ elements.+?\.)")


def require(condition: Any, message: str) -> tf.Operation | None:
    """An assertion to depend on; its failure can be `explained`."""
    return tf.debugging.Assert(condition, [f"<<{message}>>"])


def require_finite(tensor: Any, message: str) -> Any:
    """`tensor`, checked for NaN and infinity where it is made of floats."""
    if not tf.as_dtype(tensor.dtype).is_floating:
        return tensor
    return tf.debugging.check_numerics(tensor, f"<<{message}>>")


def explained(error: tf.errors.OpError) -> ValueError | None:
    """What one of the functions above had to say, or `assert_cardinality`."""
    message = error.message or ""
    found = _FRAMED.search(message) or _CARDINALITY.search(message)
    return ValueError(found[1]) if found else None
