"""Batches that bring along what a teacher made of them.

Such a batch has the inputs and the teacher's features side by side in one plain
dict, `{"inputs": inputs, "teacher <mark>": {layer: features}}`, which goes
through `shuffle`, `batch`, `map` and `tf.data.Dataset.save` like any other. The
mark tells whose features they are.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

INPUTS = "inputs"
"""Where an element keeps what it was before it was taught."""

_TEACHER = "teacher "
_SHOWN = 16
_KEY = re.compile(rf"{_TEACHER}[0-9a-f]{{{_SHOWN}}}( |$)")
_FLATTENED = "flattened"


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
    def of(
        cls, teacher_fingerprint: str, projection: str = "", flattened: bool = False
    ) -> Mark:
        return cls(teacher_fingerprint[:_SHOWN], projection, flattened)

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
