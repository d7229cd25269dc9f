"""What is asked of arguments that are numbers."""

from __future__ import annotations

import math
import numbers
from typing import Any


def is_integer(value: Any, least: int) -> bool:
    """Whether it is an integer of at least `least`; `True` and `False` are none."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least


def is_number(value: Any) -> bool:
    """Whether it is a finite real number; `True` and `False` are none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def as_integer(name: str, value: Any, least: int) -> int:
    """The argument as an `int`, if it is an integer of at least `least`."""
    if not is_integer(value, least):
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def as_nonnegative(name: str, value: Any) -> float:
    """The argument as a `float`, if it is a number of at least 0."""
    if not is_number(value) or value < 0:
        raise ValueError(
            f"`{name}` must be a number of at least 0. Received: {name}={value!r}"
        )
    return float(value)


def as_positive(name: str, value: Any) -> float:
    """The argument as a `float`, if it is a positive number."""
    if not is_number(value) or value <= 0:
        raise ValueError(
            f"`{name}` must be a positive number. Received: {name}={value!r}"
        )
    return float(value)
