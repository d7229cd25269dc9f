"""`ChiefBackup`: a training that was cut off goes on, by one worker or by several."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from keras_lpd.beside import PART, written_beside
from keras_lpd.log import logger
from keras_lpd.multi_worker import has_several_workers
from keras_lpd.seeds import seed_states

FILE = "backup.weights.h5"
"""The name of the backup in its folder."""

_GROUP = "keras_lpd_backup"  # what we add to the file of Keras


class ChiefBackup(keras.callbacks.Callback):
    """Backs up a training after each epoch, and goes on from there when started again.

    Like `keras.callbacks.BackupAndRestore`, which several workers can't use: on one
    folder they lock each other out of the file, and with a folder each their backups
    may be of different epochs. Here the chief writes alone (the first worker), and all
    read the same file when training begins. A worker that is lost takes the others with
    it, in `tf.distribute`; start all of them again, with the same program.

    The backup is one file, and takes its place only when it is whole: whenever the
    power fails, there is the old one or the new. In it are the weights and all that the
    optimizer keeps, how far the random numbers of dropout had come, and the epoch. With
    the same data in the same order, the training ends with the very weights that it
    would have had.

    That order is not in the backup: where a `tf.data.Dataset` shuffles, or `fit` does,
    it begins again with the order of the first epoch. To be exact, give an order that
    depends on the epoch alone, from `initial_epoch` on:

    ```python
    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(x)), [0, epoch])
        data = tf.data.Dataset.from_tensor_slices(order)
        return data.map(lambda i: (tf.gather(x, i), tf.gather(y, i))).batch(64)

    data = tf.data.Dataset.range(backup.initial_epoch, epochs).flat_map(one_epoch)
    model.fit(data, epochs=epochs, steps_per_epoch=steps, callbacks=[backup])
    ```

    What other callbacks remember is not in it either, such as the patience of
    `EarlyStopping`. What callbacks do that come later in the list is done after the
    backup: make it the last. Of a `BatchNormalization` without `synchronized=True`, the
    statistics are the chief's, as they are in its weights.

    Args:
        backup_dir: The folder, on storage that all workers see; for each training
            another one. What else is there is left alone.
        delete_checkpoint: Whether the backup is deleted when training has come to its
            end on all workers. If it stays, the same program started again trains no
            more, and has the final weights. Defaults to `True`.

    Attributes:
        path: The backup's file.

    Raises:
        ValueError: If `backup_dir` is empty or no local path. When training begins: if
            the backup is of another model, can't be read, or is not the same file for
            all workers.

    Example:

    >>> distiller = LPDistiller(teacher, student)
    >>> backup = ChiefBackup("backup", delete_checkpoint=False)
    >>> history = distiller.fit(
    ...     x_train, y_train, epochs=2, callbacks=[backup], verbose=0
    ... )
    >>> backup.initial_epoch
    2
    """

    def __init__(
        self, backup_dir: str | os.PathLike[str], delete_checkpoint: bool = True
    ):
        super().__init__()
        folder = os.fspath(backup_dir)
        if not folder or "://" in folder:
            raise ValueError(
                "`backup_dir` must be a folder, on storage that all workers see as a "
                f"part of their own file system. Received: backup_dir={folder!r}"
            )
        self.path = Path(folder) / FILE
        self.delete_checkpoint = delete_checkpoint

    @property
    def initial_epoch(self) -> int:
        """How many epochs the backup has behind it; 0 if there is none."""
        with _copy(self.path) as copy:
            return 0 if copy is None else self._state(copy)["epoch"]

    # When it reads and writes

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.model.built:
            raise ValueError(
                f"`{type(self).__name__}` can't restore model '{self.model.name}', "
                "which is not built yet. Build it before `fit`: call it on a batch, or "
                "give it a `keras.Input`."
            )
        if not hasattr(self.model, "_initial_epoch"):
            raise RuntimeError(
                f"`{type(self).__name__}` goes on from a backup by the attribute "
                "`_initial_epoch` of models, which is private to Keras, and Keras "
                f"{keras.__version__} lacks it. Install Keras 3.15, or train without."
            )
        with _copy(self.path) as copy:
            state = {"epoch": 0, "time": 0} if copy is None else self._state(copy)
            # All have read before anyone can write or delete again.
            self._agree(state)
            if copy is not None:
                self._restore(copy, state)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # All workers save: weights of which each has a part (synchronization "on_read")
        # are read by all together, or they fail. And each on a disk of its own, as not
        # all shared storage knows the locks of HDF5.
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / FILE
            self.model.save_weights(local)
            if self._is_chief:
                self._add_state(local, epoch + 1)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with written_beside(self.path) as part:
                    shutil.copyfile(local, part)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = None  # It is not for the next `fit`.
        if not self.delete_checkpoint:
            return
        self._wait_for_all()
        if self._is_chief:
            for name in (FILE, f"{PART}{FILE}"):
                self.path.with_name(name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # There is something else in it.
                self.path.parent.rmdir()

    # What is in it

    def _add_state(self, file: Path, epoch: int) -> None:
        state = {"epoch": epoch, "time": time.time_ns(), **_outline(self.model)}
        with h5py.File(file, "r+") as weights:
            group = weights.create_group(_GROUP)
            group["state"] = json.dumps(state)
            for index, seed in enumerate(seed_states(self.model)):
                group[f"seed {index}"] = seed.numpy()

    def _state(self, file: Path) -> dict[str, Any]:
        with self._reading(), h5py.File(file, "r") as weights:
            return json.loads(weights[_GROUP]["state"][()])

    def _restore(self, file: Path, state: dict[str, Any]) -> None:
        model, optimizer = self.model, self.model.optimizer
        if optimizer is not None and not optimizer.built:
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        self._check_model(state)
        with self._reading():
            model.load_weights(file)
            with h5py.File(file, "r") as weights:
                for index, seed in enumerate(seed_states(model)):
                    seed.assign(np.asarray(weights[_GROUP][f"seed {index}"]))
        model._initial_epoch = state["epoch"]
        logger.info("Goes on after epoch %d, from %s.", state["epoch"], self.path)

    def _check_model(self, state: dict[str, Any]) -> None:
        for part, has in _outline(self.model).items():
            for index, (kept, own) in enumerate(zip_longest(state[part], has)):
                if kept != own:
                    raise ValueError(
                        f"The backup {str(self.path)!r} is of another model, or of one "
                        f"compiled otherwise. Of its {part}, number {index} is "
                        f"{kept or 'missing'}; of model '{self.model.name}' it is "
                        f"{own or 'missing'}. Give each training a `backup_dir` of its "
                        "own, or delete the backup to train from the start."
                    )

    @contextlib.contextmanager
    def _reading(self) -> Any:
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"The backup {str(self.path)!r} can't be read: {error} It is damaged, "
                "or no backup of `ChiefBackup`. Put a whole copy in its place, or "
                "delete it to train from the start."
            ) from error

    # Among workers

    @property
    def _is_chief(self) -> bool:
        return is_chief(self.model.distribute_strategy)

    def _agree(self, state: dict[str, Any]) -> None:
        """Asks whether all workers have the same backup."""
        found = self._gather([state["epoch"], state["time"]])
        if len(np.unique(found, axis=0)) > 1:
            raise ValueError(
                "The workers found different backups: "
                f"{', '.join(str(epoch) for epoch, _ in found)} epochs are done, "
                "says each (0: there is none). Expected: the same file for all. "
                "`backup_dir` has to be on storage that all workers share, under "
                f"{str(self.path.parent)!r} for this one. If it is, that storage was "
                "slow to show the last backup: start all workers again."
            )

    def _wait_for_all(self) -> None:
        self._gather([0, 0])

    def _gather(self, row: list[int]) -> np.ndarray:
        """A row from each worker, when all have called this."""
        strategy = self.model.distribute_strategy
        rows = tf.constant([row], "int64")
        if has_several_workers(strategy):
            rows = strategy.gather(rows, axis=0)
        return rows.numpy()


def is_chief(strategy: Any) -> bool:
    """Whether this process is the first of its strategy's workers, or alone."""
    if not has_several_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return resolver.task_type == chief and resolver.task_id == 0


def _outline(model: keras.Model) -> dict[str, list[str]]:
    """What has to be the same for a backup to fit: never names, which count up."""
    optimizer = model.optimizer
    return {
        "weights": [_kind(variable) for variable in model.weights],
        "optimizer": [type(optimizer).__name__],
        "optimizer's variables": [
            _kind(variable) for variable in (optimizer.variables if optimizer else [])
        ],
        "random states": [_kind(variable) for variable in seed_states(model)],
    }


def _kind(variable: Any) -> str:
    return f"{tuple(variable.shape)} {variable.dtype}"


@contextlib.contextmanager
def _copy(path: Path) -> Any:
    """A copy of the file as it is now, for this process alone; `None` of no file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:
            yield None
        else:
            yield copy
