"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from keras_lpd.caching.row_files import sync_folder


@contextlib.contextmanager
def written_beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, and puts what is there in place when that went well.

    Its ending is that of `path`. If anything is raised within, `path` stays as it was,
    and nothing is left beside it.

    Args:
        path: The file to be made or replaced.
    """
    part = path.with_name(f".part.{path.name}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
