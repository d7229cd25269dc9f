"""The names under which the Neighborhoods dashboard finds its data.

Each tensor has a tag of its own for each step, `<name>@<step>`: TensorBoard keeps ten
steps of a tag and drops others at random, and it tells the steps of a tag only by
reading all of them.
"""

from __future__ import annotations

import re

PLUGIN = "neighborhoods"

SAMPLES = "samples"
THUMBNAILS = "thumbnails"
TEACHER_NEIGHBORS = "teacher/neighbors"
TEACHER_DISTANCES = "teacher/distances"
TEACHER_MAP = "teacher/map"
TEACHER_PREDICTIONS = "teacher/predictions"

STUDENT_NEIGHBORS = "student/neighbors"
STUDENT_DISTANCES = "student/distances"
STUDENT_MAP = "student/map"
STUDENT_PREDICTIONS = "student/predictions"
OVERLAP = "overlap"
MEAN_OVERLAP = "mean_overlap"

_TAG = re.compile(r"(.+)@(\d+)")


def tag_of(name: str, step: int) -> str:
    """The tag under which a tensor is written."""
    return f"{name}@{step}"


def name_and_step(tag: str) -> tuple[str, int] | None:
    """What `tag_of` was made from; `None` of tags that it did not make."""
    found = _TAG.fullmatch(tag)
    return None if found is None else (found[1], int(found[2]))
