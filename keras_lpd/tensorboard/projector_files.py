"""Files for TensorBoard's Embedding Projector: features, metadata and sprites.

A run of the Projector is a folder with a `projector_config.pbtxt`, which lists the
embeddings, and an event file, without which TensorBoard does not see the folder.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from keras_lpd.tensorboard.thumbnails import Sheet

_CONFIG = "projector_config.pbtxt"

Columns = Mapping[str, Sequence[Any]]
"""What is told of each point, by its title."""


class ProjectorRun:
    """A folder that the Projector shows as a run.

    What is in it already stays: embeddings are added to it, or take the place of
    those of the same name.

    Args:
        folder: The folder.
        sheet: Thumbnails of the points, if there are any.
    """

    def __init__(self, folder: str, sheet: Sheet | None):
        self.folder, self._sheet = folder, sheet
        tf.io.gfile.makedirs(folder)
        self._config = ProjectorConfig()
        file = os.path.join(folder, _CONFIG)
        if tf.io.gfile.exists(file):
            with tf.io.gfile.GFile(file) as opened:
                text_format.Parse(opened.read(), self._config)
        if sheet is not None:
            shown = hashlib.sha256(sheet.png).hexdigest()[:8]
            self._sprite = f"sprite_{shown}.png"
            self._write(self._sprite, sheet.png)

    def add(self, name: str, features: np.ndarray, columns: Columns) -> None:
        """Adds an embedding.

        Args:
            name: How the Projector calls it.
            features: Array of shape `(n, width)`.
            columns: What is told of each point.
        """
        stem = name.replace(" ", "_")
        metadata, tensor = f"{stem}_metadata.tsv", f"{stem}.tsv"
        self._write(metadata, _table(columns))
        self._write(tensor, _numbers(features))
        for known in self._config.embeddings:
            if known.tensor_name == name:
                self._config.embeddings.remove(known)
                break
        embedding = self._config.embeddings.add(
            tensor_name=name,
            tensor_path=tensor,
            metadata_path=metadata,
        )
        if self._sheet is not None:
            embedding.sprite.image_path = self._sprite
            embedding.sprite.single_image_dim.extend(
                [self._sheet.width, self._sheet.height]
            )
        self._write(_CONFIG, text_format.MessageToString(self._config).encode())

    def _write(self, name: str, content: bytes) -> None:
        """Writes a file beside its place, and puts it there when it is whole."""
        file = os.path.join(self.folder, name)
        with tf.io.gfile.GFile(f"{file}.part", "wb") as opened:
            opened.write(content)
        tf.io.gfile.rename(f"{file}.part", file, overwrite=True)


def _numbers(features: np.ndarray) -> bytes:
    """Features as text: binary files the Projector takes for text, if they begin so."""
    lines = io.StringIO()
    np.savetxt(lines, features, "%.6g", delimiter="\t")
    return lines.getvalue().encode()


def _table(columns: Columns) -> bytes:
    """A table with a row of titles, which the Projector wants if there are several."""
    rows: list[Any] = list(zip(*columns.values()))
    if len(columns) > 1:
        rows.insert(0, columns)
    lines = ["\t".join(" ".join(str(cell).split()) for cell in row) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode()
