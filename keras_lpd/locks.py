"""What only one process may do at a time."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import filelock


@contextlib.contextmanager
def only_process(file: pathlib.Path, otherwise: str) -> Iterator[None]:
    """Keeps other processes out for as long as it lasts.

    Args:
        file: The file that is locked, and made if it is not there. It stays.
        otherwise: What is said where another process is at it.

    Raises:
        RuntimeError: If one is.
    """
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(otherwise) from None
    try:
        yield
    finally:
        lock.release()
