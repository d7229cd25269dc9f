"""Rows of arrays on disk: appended batch by batch, safe from being cut off, checked.

Each array is a `.npy` file which grows by rows. Its header is written last: until
then NumPy takes it for no array at all. What has reached the disk for certain is
told by a small JSON file beside the arrays, which is only ever replaced whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from keras_lpd.beside import PART, write_json

HEADER = 256
"""How many bytes of a file come before its rows."""

PROGRESS = "progress.json"
"""What tells, in a folder of unfinished files, how far they have come."""


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """What is known of a finished file.

    Args:
        file: Its name.
        dtype: The dtype, as NumPy names it.
        shape: The shape, rows first.
        sha256: Checksum over all rows.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def row_bytes(self) -> int:
        return _row_bytes(self.dtype, self.shape[1:])

    def check(self, folder: pathlib.Path, thoroughly: bool = True) -> None:
        """Refuses a file that is missing, truncated or altered.

        Raises:
            ValueError: Says which file, and what is wrong with it.
        """
        path = folder / self.file
        expected = HEADER + self.shape[0] * self.row_bytes
        if not path.is_file():
            raise ValueError(f"{path} is missing.")
        if path.stat().st_size != expected:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes where {expected:,} are "
                "expected: it was cut off, or something was added."
            )
        with path.open("rb") as file:
            if file.read(HEADER) != _header(self.dtype, self.shape):
                raise ValueError(f"{path} was altered: its header is another.")
            if not thoroughly:
                return
            digest = hashlib.sha256()
            for block in _blocks(file, expected):
                digest.update(block)
        if digest.hexdigest() != self.sha256:
            raise ValueError(f"{path} was altered: its checksum is another.")

    def open(self, folder: pathlib.Path) -> np.ndarray:
        """The array, memory-mapped and read-only."""
        return np.memmap(folder / self.file, self.dtype, "r", HEADER, self.shape)


class RowWriter:
    """Appends rows to arrays in a folder; goes on where an earlier one stopped.

    Args:
        folder: Made where it is missing.
        about: JSON data to be kept with what is unfinished.

    Attributes:
        rows: How many rows there are already.
        about: What the unfinished arrays are about: of the earlier writer,
            if there was one.

    Raises:
        FileExistsError: If the folder holds something else.
        ValueError: If the unfinished files are damaged.
    """

    def __init__(self, folder: pathlib.Path, about: dict[str, Any]):
        self.folder = folder
        self.rows = 0
        self.about = about
        self._shapes: dict[str, tuple[str, list[int]]] = {}
        self._files: dict[str, io.BufferedRandom] = {}
        self._hashes: dict[str, Any] = {}
        if (folder / PROGRESS).exists():
            try:
                self._go_on(read_sealed(folder / PROGRESS))
            except (OSError, ValueError) as error:
                self.close()
                raise ValueError(
                    f"The unfinished files in {folder} are damaged: {error} Delete "
                    "that folder, and begin again."
                ) from None
        elif folder.exists() and not all(
            file.name.startswith(PART) for file in folder.iterdir()
        ):
            raise FileExistsError(
                f"{folder} is needed to build in, and holds something else. Move it "
                "away, or choose another path."
            )
        else:
            folder.mkdir(parents=True, exist_ok=True)

    def _go_on(self, progress: dict[str, Any]) -> None:
        for name, (dtype, shape, checksum) in progress["arrays"].items():
            self._shapes[name] = dtype, shape
            self._files[name] = file = self._path(name).open("r+b")
            file.seek(HEADER)
            known = progress["rows"] * _row_bytes(dtype, shape)
            self._hashes[name] = digest = hashlib.sha256()
            for block in _blocks(file, known):
                digest.update(block)
            if digest.hexdigest() != checksum:
                raise ValueError(f"{self._path(name).name} was cut off or altered.")
            file.truncate(HEADER + known)
            file.seek(HEADER + known)
        self.rows, self.about = progress["rows"], progress["about"]

    def append(self, arrays: dict[str, np.ndarray]) -> None:
        """Adds rows to all arrays, which are always the same ones."""
        for name, array in arrays.items():
            kind = (array.dtype.str, list(array.shape[1:]))
            if name not in self._files:
                self._shapes[name] = kind
                self._hashes[name] = hashlib.sha256()
                self._files[name] = self._path(name).open("w+b")
                self._files[name].write(bytes(HEADER))
            if self._shapes[name] != kind:
                raise ValueError(
                    f"All rows of {self._path(name).name} must be alike: "
                    f"{self._shapes[name]}. Received: {kind}"
                )
            data = np.ascontiguousarray(array).data
            self._files[name].write(data)
            self._hashes[name].update(data)
        self.rows += len(array)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows that are there already."""
        dtype, shape = self._shapes[name]
        file, size = self._files[name], _row_bytes(dtype, shape)
        file.seek(HEADER + start * size)
        data = file.read((stop - start) * size)
        file.seek(0, os.SEEK_END)
        return np.frombuffer(data, dtype).reshape(-1, *shape)

    def checkpoint(self) -> None:
        """Makes sure that what was appended so far outlives a crash."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        progress = {
            "rows": self.rows,
            "about": self.about,
            "arrays": {
                name: [*kind, self._hashes[name].hexdigest()]
                for name, kind in self._shapes.items()
            },
        }
        write_sealed(self.folder / PROGRESS, progress)

    def finish(self) -> dict[str, ArrayFile]:
        """Completes the files, and tells what is in them."""
        self.checkpoint()
        finished = {}
        for name, file in self._files.items():
            dtype, shape = self._shapes[name]
            full = (self.rows, *shape)
            file.seek(0)
            file.write(_header(dtype, full))
            file.flush()
            os.fsync(file.fileno())
            checksum = self._hashes[name].hexdigest()
            finished[name] = ArrayFile(self._path(name).name, dtype, full, checksum)
        self.close()
        return finished

    def close(self) -> None:
        """Closes the files; what was not checkpointed may be lost."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # A full disk has been told of.
                file.close()
        self._files = {}

    def _path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.npy"


def write_sealed(path: pathlib.Path, data: dict[str, Any]) -> None:
    """`write_json`, with a checksum among the data."""
    write_json(path, {**data, "checksum": _checksum(data)})


def read_sealed(path: pathlib.Path) -> dict[str, Any]:
    """What `write_sealed` wrote.

    Raises:
        ValueError: If the file is cut off, altered, or no such file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        checksum = data.pop("checksum")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{path} can't be read: it was cut off or altered.") from None
    if checksum != _checksum(data):
        raise ValueError(f"{path} was altered: its checksum is another.")
    return data


def _checksum(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes, or what there is of them, in blocks."""
    while size and (block := file.read(min(size, 1 << 20))):
        size -= len(block)
        yield block


def _row_bytes(dtype: str, shape: Sequence[int]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def _header(dtype: str, shape: Sequence[int]) -> bytes:
    """The header of a `.npy` file of version 1.0, filled up to `HEADER` bytes."""
    about = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    text = f"{about!r}".encode("latin1").ljust(HEADER - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
