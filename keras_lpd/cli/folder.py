"""The folder of a distillation: of one command alone, and never half written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_lpd.beside import written_beside
from keras_lpd.datasets import Arrays
from keras_lpd.locks import only_process

_SETTINGS = "settings.json"
_LOCK = ".lock"


class Folder:
    """What `--out` names.

    It holds `settings.json`, which tells what command it is of, and what that command
    writes. Settings are compared, not names of files: a teacher is known by what is
    in its file, wherever that lies.

    Args:
        path: The folder, which need not be there yet.
        settings: What makes the command the same one, as JSON takes it.

    Raises:
        FileExistsError: If it is of another command, or of something else.
    """

    def __init__(self, path: str, settings: dict[str, Any]):
        self.path = pathlib.Path(path)
        self.settings = settings
        self._check()

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def _check(self) -> None:
        """Touches nothing. Settings alone, with nothing made by them, may change."""
        if not self.path.exists():
            return
        file = self / _SETTINGS
        if self.path.is_dir() and not set(os.listdir(self.path)) - {_LOCK, _SETTINGS}:
            return
        if not file.is_file():
            raise FileExistsError(
                f"{self.path} is there already, and of something else. Choose "
                "another --out."
            )
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            known = dict(found).items()
        except ValueError as error:
            raise ValueError(
                f"{file} can't be read. Choose another --out, or delete {self.path}."
            ) from error
        names = [
            _difference(name, value, self.settings.get(name))
            for name, value in known
            if self.settings.get(name) != value
        ]
        names += [name for name in self.settings if name not in found]
        if names:
            raise FileExistsError(
                f"{self.path} is of another command: it differs in {', '.join(names)}. "
                "Choose another --out, or delete that folder."
            )

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Keeps it from other processes, and says in it what it is of."""
        self.path.mkdir(parents=True, exist_ok=True)
        busy = (
            f"Another process works in {self.path} just now. Wait until it is done, or "
            "choose another --out."
        )
        with only_process(self / _LOCK, busy):
            self._check()  # It may have become another's since.
            text = json.dumps(self.settings, indent=1)
            self.write(_SETTINGS, lambda part: part.write_text(text, encoding="utf-8"))
            yield

    def write(self, name: str, write: Callable[[pathlib.Path], Any]) -> pathlib.Path:
        """Has a file written beside its place, and puts it there when it is whole."""
        path = self / name
        with written_beside(path) as part:
            write(part)
        return path


def _difference(name: str, before: Any, now: Any) -> str:
    """In words; checksums say nothing to anyone."""
    name = name.replace("_", "-")
    if isinstance(before, str) and before.startswith("sha256:"):
        return name
    return f"{name} ({before}, not {now})"


def sum_of_file(path: str) -> str:
    """What tells a file from others."""
    digest = hashlib.sha256(pathlib.Path(path).read_bytes())
    return f"sha256:{digest.hexdigest()}"


def sum_of_data(data: Arrays) -> str:
    """What tells a data set from others."""
    digest = hashlib.sha256()
    for array in data[:4]:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return f"sha256:{digest.hexdigest()}"
