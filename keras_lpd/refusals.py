"""Refusals that come out of compiled functions, where no exception can be raised."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

# Assertions put backslashes before quotes and the like, which are taken out again.
_ASSERTED = re.compile(r"<<(.+?)>>", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")
_NUMERICS = re.compile(r"<!(.+?)!>", re.DOTALL)

# What TensorFlow has to say by itself, and what it means here.
_TRANSLATIONS = {
    r"Input dataset was expected to contain (\d+) elements but contained .*?(\d+)": (
        "The data set has another count of samples than was said. Expected: {0}. "
        "Received: {1} when it ended, or went on. If a teacher cache is attached to "
        "it: attach that to the very data set it was built from. If not, see to the "
        "number in `assert_cardinality`."
    ),
    **dict.fromkeys(
        (
            r"Cannot batch tensors with different shapes.*?\[(.*?)\].*?\[(.*?)\]",
            r"Cannot add tensor to the batch.*?: \[([\d,]*)\].*?: \[([\d,]*)\]",
        ),
        "Samples must have one shape to be put into batches. Received: [{0}] and "
        "[{1}]. Bring them to one size first, for example with `tf.image.resize`.",
    ),
    r"(Shape mismatch in the collective instance|is joining a group with size)": (
        "TensorFlow mixes up what the devices send each other ({0}). It does so where "
        "a second `tf.distribute` strategy was made in the process, of other devices "
        "or for batches of other sizes. Restart it, and make the strategy once."
    ),
    r"(\S+\.npy); No such file": (
        "{0} is gone: the teacher cache was deleted or built anew after it was "
        "attached. Attach it again."
    ),
}


def require(condition: Any, message: str) -> tf.Operation | None:
    """An assertion to depend on; its failure can be `explained`."""
    return tf.debugging.Assert(condition, [f"<<{message}>>"])


def require_finite(tensor: Any, message: str) -> Any:
    """`tensor`, checked for NaN and infinity where it is made of floats."""
    if not tf.as_dtype(tensor.dtype).is_floating:
        return tensor
    return tf.debugging.check_numerics(tensor, f"<!{message}!>")


def explained(error: tf.errors.OpError) -> ValueError | None:
    """What one of the functions above had to say, out of TensorFlow's own words."""
    message = error.message or ""
    if found := _NUMERICS.search(message):
        return ValueError(found[1])
    if found := _ASSERTED.search(message):
        plain = _ESCAPE.sub(lambda one: "\n" if one[1] == "n" else one[1], found[1])
        return ValueError(plain)
    for pattern, translation in _TRANSLATIONS.items():
        if found := re.search(pattern, message, re.DOTALL):
            return ValueError(translation.format(*found.groups()))
    return None


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Raises errors of TensorFlow within it as they are `explained`, if they are."""
    try:
        yield
    except tf.errors.OpError as error:
        if (better := explained(error)) is None:
            raise
        raise better from None
