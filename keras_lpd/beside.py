"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

PART = ".part."
"""What the names of files begin with that are still being written."""


@contextlib.contextmanager
def written_beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, and puts what is there in place when that went well.

    Its ending is that of `path`. If anything is raised within, `path` stays as it was,
    and nothing is left beside it.

    Args:
        path: The file to be made or replaced.
    """
    part = path.with_name(f"{PART}{path.name}")
    try:
        yield part
        with part.open("r+b") as file:  # Windows syncs none that can't be written.
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes a JSON file, or replaces it, whole or not at all."""
    with written_beside(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.write("\n")


def sync_folder(folder: pathlib.Path) -> None:
    """Makes sure that names given in a folder outlive a crash."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
