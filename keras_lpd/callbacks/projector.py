"""`EmbeddingProjector`: features and neighbourhoods to be looked at in TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_lpd.callbacks.watched import View, WatchingCallback
from keras_lpd.metrics import Neighborhoods, neighbor_overlap
from keras_lpd.tensorboard import tags


class EmbeddingProjector(WatchingCallback):
    """Lets you look at the neighbourhoods of teacher and student in TensorBoard.

    It writes the features of both models, on the same samples, for two dashboards:

    - **Projector**, a run for each model: points with thumbnails, labels, the
      predictions of both models, and how much of a point's neighbourhood was kept.
    - **Neighborhoods**, this package's own: for each sample its neighbours in both
      models' features side by side, the samples from worst to best kept, and how
      all that changes from epoch to epoch.

    `tensorboard --logdir logs` shows both (the Projector shows epochs that have come
    since only when TensorBoard is started again). The folder may be moved. Training
    itself is not disturbed: the weights are those it would have given without this
    callback.

    Args:
        log_dir: Where to write, a folder for each training, such as
            `"logs/first try"`.
        dataset: The samples, such as the validation data: arrays `(x, y)`, or batches,
            see `NeighborhoodMetrics`.
        max_samples: How many samples are used, the first ones. Defaults to 2,000.
        every: After how many epochs; after the first and the last in any case.
            Defaults to 5.
        sprites: Whether to make thumbnails of inputs that are images. For inputs
            that are not, a function that makes images of them, `(inputs) -> images`
            of shape `(n, height, width, channels)`. Defaults to `True`.
        class_names: Names of the classes.
        k: How many neighbours. Defaults to 10.
        **models: The teacher and the layers, where no `LPDistiller` is fitted; see
            `NeighborhoodMetrics`.

    Raises:
        ImportError: If TensorBoard or Pillow is not installed.
        TypeError: If `dataset` is of another kind.
        ValueError: If there is no teacher, if there are too few samples, or if an
            argument does not fit.

    Example:

    >>> look = EmbeddingProjector("logs", (x_train, y_train), every=1)
    >>> history = LPDistiller(teacher, student).fit(
    ...     x_train, y_train, epochs=2, callbacks=[look], verbose=0
    ... )
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        dataset: Any,
        max_samples: int = 2000,
        every: int = 5,
        sprites: bool | Callable[[Any], Any] = True,
        class_names: Sequence[str] | None = None,
        k: int = 10,
        **models: Any,
    ):
        _require_tensorboard()
        super().__init__(dataset, k, max_samples, every, **models)
        self.log_dir = os.fspath(log_dir)
        self._sprites = sprites
        self._class_names = class_names

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        import tensorflow as tf

        from keras_lpd.tensorboard.maps import flat_map
        from keras_lpd.tensorboard.projector_files import ProjectorRun

        super().on_train_begin(logs)
        self.class_names = _check_class_names(self._class_names, self.samples.labels)
        self._sheet = self._make_sheet()
        self._runs, self._writers = {}, {}
        for role in ("teacher", "student"):
            folder = os.path.join(self.log_dir, role)
            self._runs[role] = ProjectorRun(folder, self._sheet)
            self._writers[role] = tf.summary.create_file_writer(folder)
            self._writers[role].flush()
        self._teacher_map = flat_map(self.teacher.features)
        self._begun = False

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.epoch is not None and self.epoch != self.viewed:
            self.look(self.epoch, logs)
        for writer in self._writers.values():
            writer.close()

    def on_view(self, epoch: int, student: View, logs: dict[str, Any] | None) -> None:
        from keras_lpd.tensorboard import summaries

        if not self._begun:
            summaries.write(self._writers["student"], epoch, self._unchanging(student))
            self._begun = True
        learned = Neighborhoods.of(student.features, self.k)
        overlap = neighbor_overlap(
            self.teacher_neighborhoods, learned, self.k, reduction=None
        )
        tensors = self._changing(student, learned, overlap)
        summaries.write(self._writers["student"], epoch, tensors)
        columns = self._columns(student, overlap)
        self._runs["teacher"].add("teacher", self.teacher.features, columns)
        name = f"epoch {epoch + 1:03d}"  # The Projector sorts names as text.
        self._runs["student"].add(name, student.features, columns)

    def _make_sheet(self) -> Any:
        """Thumbnails of the samples, or `None`: of their first input that is images."""
        from keras_lpd.tensorboard.thumbnails import sprite_sheet

        if not self._sprites:
            return None
        if callable(self._sprites):
            images = np.asarray(self._sprites(self.samples.inputs))
            sheet = sprite_sheet(images)
            if sheet is None:
                raise ValueError(
                    "`sprites` must make images of the inputs, an array of shape "
                    "(n, height, width, channels). Received: an array of shape "
                    f"{images.shape}"
                )
            return sheet
        sheets = map(sprite_sheet, keras.tree.flatten(self.samples.inputs))
        return next((sheet for sheet in sheets if sheet is not None), None)

    def _predictions(self, student: View) -> dict[str, np.ndarray]:
        """The classes that the models predict; the teacher's if they are the same."""
        found = {}
        if self.teacher.among == student.among:
            found["teacher"] = self.teacher.classes
        found["student"] = student.classes
        return {role: x for role, x in found.items() if x is not None}

    def _unchanging(self, student: View) -> dict[str, Any]:
        """What the dashboard is told once: the samples, and all about the teacher."""
        labels, sheet = self.samples.labels, self._sheet
        grid = None
        if sheet is not None:
            grid = {key: getattr(sheet, key) for key in ("width", "height", "columns")}
        about = {
            "count": len(self.samples),
            "k": self.k,
            "labels": None if labels is None else labels.tolist(),
            "class_names": self.class_names,
            "thumbnails": grid,
            **{
                role: {
                    "name": view.model,
                    "layer": view.layer,
                    "width": view.features.shape[1],
                }
                for role, view in (("teacher", self.teacher), ("student", student))
            },
        }
        taught = self.teacher_neighborhoods
        predicted = self._predictions(student).get("teacher")
        return {
            tags.SAMPLES: json.dumps(about),
            tags.THUMBNAILS: sheet and sheet.png,
            tags.TEACHER_NEIGHBORS: taught.indices.astype("int32"),
            tags.TEACHER_DISTANCES: taught.distances.astype("float32"),
            tags.TEACHER_MAP: self._teacher_map,
            tags.TEACHER_PREDICTIONS: _as_int32(predicted),
        }

    def _changing(
        self, student: View, learned: Neighborhoods, overlap: np.ndarray
    ) -> dict[str, Any]:
        """What it is told each time, all about the student."""
        from keras_lpd.tensorboard.maps import flat_map

        return {
            tags.STUDENT_NEIGHBORS: learned.indices.astype("int32"),
            tags.STUDENT_DISTANCES: learned.distances.astype("float32"),
            tags.STUDENT_MAP: flat_map(student.features, beside=self._teacher_map),
            tags.STUDENT_PREDICTIONS: _as_int32(student.classes),
            tags.OVERLAP: overlap.astype("float32"),
            tags.MEAN_OVERLAP: np.float32(overlap.mean()),
        }

    def _columns(self, student: View, overlap: np.ndarray) -> dict[str, Any]:
        """What the Projector tells of each point."""
        columns: dict[str, Any] = {"sample": range(len(self.samples))}
        if self.samples.labels is not None:
            columns["label"] = self.samples.labels
            if self.class_names is not None:
                columns["name"] = [self.class_names[i] for i in self.samples.labels]
        for role, classes in self._predictions(student).items():
            columns[f"{role} predicts"] = [self._name(i) for i in classes]
        columns["overlap"] = [f"{share:.2f}" for share in overlap]
        return columns

    def _name(self, label: int) -> str:
        if self.class_names is None or label >= len(self.class_names):
            return str(label)
        return self.class_names[label]


def _as_int32(classes: np.ndarray | None) -> np.ndarray | None:
    return None if classes is None else classes.astype("int32")


def _require_tensorboard() -> None:
    """Refuses to go on without what the files are made with."""
    missing = [
        package
        for module, package in (
            ("tensorboard", "tensorboard"),
            ("PIL", "Pillow"),
        )
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ImportError(
            f"EmbeddingProjector needs {' and '.join(missing)}. Install with "
            "`pip install 'keras-lpd[tensorboard]'`."
        )


def _check_class_names(
    names: Sequence[str] | None, labels: np.ndarray | None
) -> list[str] | None:
    """The names as a list; refuses those that don't fit the labels."""
    if names is None:
        return None
    names = [str(name) for name in names]
    if labels is not None and labels.max() >= len(names):
        raise ValueError(
            f"`class_names` has {len(names)} names, but there are labels up to "
            f"{labels.max()}. Give a name for each class, in the order of the labels."
        )
    return names
