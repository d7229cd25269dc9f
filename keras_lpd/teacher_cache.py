"""`TeacherCache`: what a teacher makes of a data set, computed once, kept on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import filelock
import keras
import numpy as np
import tensorflow as tf

from keras_lpd import taught
from keras_lpd.caching import row_files
from keras_lpd.caching.recipe import Recipe
from keras_lpd.caching.row_files import ArrayFile, RowWriter
from keras_lpd.caching.samples import ELEMENTS, Augment, Samples, compare
from keras_lpd.features import FeatureFunction, output_activation
from keras_lpd.log import logger
from keras_lpd.refusals import require
from keras_lpd.version import __version__

CHECKPOINT_SECONDS = 5.0
"""How much of a build an interruption may cost."""

_FORMAT = {"format": "keras-lpd teacher cache", "version": 1}
_MANIFEST = "manifest.json"

_CHANGED = (
    "These are not the samples that the teacher cache was built from, or they come in "
    "another order than then. Attach the cache before `shuffle`, and read files in a "
    "fixed order (`shuffle_files=False`)."
)
_OTHER_COUNT = (
    "The data set has more or fewer samples than the teacher cache was built from."
)


class TeacherCache:
    """What a teacher makes of a data set, computed once and kept on disk.

    `build` runs the teacher over the data set; `attach` hands its features on
    with the samples, so that `LPDistiller` need not run the teacher again: an
    epoch then costs what training the student alone does.

    A cache is a folder of memory-mapped `.npy` files and a JSON manifest. It
    knows which teacher and which data it was made from, sample by sample, and
    refuses others. The labels have no part in that: features do not depend on
    them.

    Attributes:
        path: The folder.
        count: How many samples the data set has.
        views: How many augmented views of each sample there are, 1 without
            augmentation.
        layers: Names of the layers whose features are kept.
        feature_layer: The one that losses use which name none, or `None`.
        outputs: Whether the teacher's outputs are kept as well.
        nbytes: Size of all files on disk.

    Example:

    >>> data = tf.data.Dataset.from_tensor_slices((x_train, y_train))
    >>> cache = TeacherCache.build(teacher, data, "cache", verbose=0)
    >>> distiller = LPDistiller(cache, student)
    >>> batches = cache.attach(data).shuffle(1000).batch(32)
    >>> history = distiller.fit(batches, epochs=2, verbose=0)
    """

    def __init__(self, path: pathlib.Path, manifest: dict[str, Any]):
        about = manifest["about"]
        self.path = path.absolute()
        self.count: int = manifest["count"]
        self.views: int = about["views"]
        self.layers: list[str] = about["layers"]
        self.outputs: bool = about["outputs"]
        self.feature_layer: str | None = manifest["feature_layer"]
        self.teacher_name: str = manifest["teacher_name"]
        self.output_activation: str | None = manifest["output_activation"]
        self.mark = taught.Mark(*manifest["mark"])
        self._about = about
        self._features = _array_files(manifest["features"])
        self._fingerprints = _array_files(manifest["fingerprints"])

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir())

    def __len__(self) -> int:
        return self.count

    def __contains__(self, layer: str) -> bool:
        return layer in self._features

    def __getitem__(self, layer: str) -> np.ndarray:
        """The features of a layer, memory-mapped: a row a sample, view after view."""
        if layer not in self._features:
            raise KeyError(f"The cache {self.path} has {self.kept}, not {layer!r}.")
        return self._features[layer].open(self.path)

    def __repr__(self) -> str:
        views = f" in {self.views} views" if self.views > 1 else ""
        return f"<TeacherCache {self.path}: {self.count:,} samples{views}, {self.kept}>"

    def shape(self, layer: str) -> tuple[int, ...]:
        """The shape of one sample's features."""
        return self._features[layer].shape[1:]

    @property
    def kept(self) -> str:
        """What it keeps, in words."""
        kept = [f"'{layer}'" for layer in self.layers]
        return ", ".join(kept + (["the outputs"] if self.outputs else []))

    # Building

    @classmethod
    def build(
        cls,
        teacher: keras.Model,
        dataset: tf.data.Dataset,
        path: str | pathlib.Path,
        *,
        layers: Sequence[str] | str | None = None,
        outputs: bool = False,
        dtype: str = "float16",
        project: int | None = None,
        projection: str = "pca",
        views: int = 1,
        augment: Augment | None = None,
        seed: int = 0,
        batch_size: int = 256,
        teacher_features: FeatureFunction | None = None,
        verbose: int | str = "auto",
    ) -> TeacherCache:
        """Runs the teacher over a data set once, and keeps what it makes of it.

        Interrupted, even killed, it goes on where it stopped when it is called
        again in the same way. Where the cache is there already, it is checked
        against teacher, data and settings, and returned.

        **Augmentation.** By default the teacher sees each sample once, as it
        comes out of `dataset`. Random changes belong behind `attach`: the
        student then sees the augmented sample, with the teacher's features of
        the clean one. (Random changes before it would make other samples each
        epoch, and be refused.) To have the teacher see augmented samples, pass
        `augment`, and how many `views` of each sample to keep: `attach`
        repeats the very same ones for the student.

        Args:
            teacher: A trained, built `keras.Model`.
            dataset: A `tf.data.Dataset` of single samples, `inputs`, `(inputs,
                labels)` or `(inputs, labels, sample_weights)`, not batched,
                shuffled or repeated.
            path: The folder to be made.
            layers: Names of the layers whose features are kept. Defaults to
                the layer that feeds the head, as in `LPDistiller`.
            outputs: Whether to keep the teacher's outputs as well, for losses
                that compare them. They are never projected.
            dtype: `"float16"` or `"float32"`. Half precision is refused
                where it would blur the neighbours' distances.
            project: To how many dimensions the features are projected, in a
                way that keeps their distances. Feature maps are flattened
                for it. Defaults to `None`: they are kept as they are.
            projection: `"pca"`, fitted to the features of up to 8,192 samples
                spread over the data set, or `"gaussian"`, a random one.
            views: How many augmented views of each sample to keep.
            augment: A function `(inputs, seed) -> inputs` of one sample which
                depends on nothing but its arguments, as the functions
                `tf.image.stateless_random_*` do.
            seed: Seed of the augmentation.
            batch_size: How many samples the teacher sees at once.
            teacher_features: For a subclassed teacher, a callable `(model,
                inputs, training) -> (features, outputs)`, as in `LPDistiller`.
            verbose: 0 for silence, otherwise a progress bar.

        Returns:
            The cache.

        Raises:
            TypeError: If teacher or data set are something else.
            ValueError: If the arguments don't fit together, the data set gives
                other samples each time, or the features can't be kept in
                `dtype`.
            FileExistsError: If something else is at `path`.
            RuntimeError: If another process builds the same cache now.
            OSError: If the disk is full. What was there stays.
        """
        path = pathlib.Path(path)
        samples = Samples(dataset, augment, views, seed)
        recipe = Recipe(
            teacher, layers, outputs, dtype, project, projection, teacher_features
        )
        samples.check_fits(teacher)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                "`batch_size` must be an integer of at least 1. Received: "
                f"{batch_size!r}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_builder(path):
            if path.exists() and not _is_empty_folder(path):
                return cls._found(path, recipe, samples)
            samples.check_repeats()
            _build(path, recipe, samples, batch_size, bool(verbose))
        cache = cls.open(path, verify=False)
        logger.info("Built %r, %.1f MB.", cache, cache.nbytes / 1e6)
        return cache

    @classmethod
    def _found(
        cls, path: pathlib.Path, recipe: Recipe, samples: Samples
    ) -> TeacherCache:
        """What is at `path` already, if it is what was to be built."""
        if not (path / _MANIFEST).exists():
            raise FileExistsError(
                f"{path} is there already, and is no teacher cache. Choose another "
                "path."
            )
        cache = cls.open(path)
        different = _differences({**recipe.about, **samples.about}, cache._about)
        if different:
            raise FileExistsError(
                f"{path} holds another cache already. It differs in {different}. "
                "Choose another path, or delete that folder first."
            )
        cache._check_samples(samples)
        logger.info("The teacher cache %s is there already, and is used.", path)
        return cache

    # Reading

    @classmethod
    def open(cls, path: str | pathlib.Path, *, verify: bool = True) -> TeacherCache:
        """Opens a cache.

        Args:
            path: The folder that `build` made.
            verify: Whether to read all files once and compare their checksums.
                Without, only their sizes and headers are looked at. Defaults
                to `True`.

        Returns:
            The cache. Its arrays are memory-mapped, not loaded.

        Raises:
            FileNotFoundError: If there is no finished cache.
            ValueError: If a file is missing, truncated or altered, or made by
                a later version.
        """
        path = pathlib.Path(path)
        if not (path / _MANIFEST).is_file():
            unfinished = _building(path)
            hint = "Make one with `TeacherCache.build`."
            if (unfinished / row_files.PROGRESS).exists():
                hint = (
                    f"{unfinished} is an unfinished one: call `TeacherCache.build` "
                    "as before, and it goes on."
                )
            raise FileNotFoundError(f"There is no teacher cache at {path}. {hint}")
        try:
            manifest = row_files.read_sealed(path / _MANIFEST)
            if any(manifest.get(name) != value for name, value in _FORMAT.items()):
                raise ValueError(
                    f"Expected: {_FORMAT}. Received: {manifest.get('format')!r}, "
                    f"version {manifest.get('version')!r}."
                )
            cache = cls(path, manifest)
            for file in (*cache._features.values(), *cache._fingerprints.values()):
                file.check(path, thoroughly=verify)
        except ValueError as error:
            raise ValueError(
                f"The teacher cache {path} can't be used. {error} Delete the folder, "
                "and build it again."
            ) from None
        return cache

    def attach(
        self,
        dataset: tf.data.Dataset,
        *,
        augment: Augment | None = None,
        verify: bool = True,
    ) -> tf.data.Dataset:
        """Gives every sample its teacher features to take along.

        What comes out may be shuffled, batched, repeated and mapped, and goes
        into `LPDistiller.fit`. In place of the inputs its elements have a dict:
        `"inputs"` are what they were, the other entry is the teacher's. To
        change inputs at random, for the student alone:

        ```
        attached.map(lambda x, y: ({**x, "inputs": flip(x["inputs"])}, y))
        ```

        Each sample is compared with what the teacher saw as it passes, in every
        epoch; features never go to another sample.

        Args:
            dataset: The data set that the cache was built from: the same
                inputs in the same order, one by one. Labels and sample weights
                may be others.
            augment: The function that the cache was built with, if it was with
                one. The samples of all views follow one another then: an epoch
                is as many times as long.
            verify: Whether to go through all samples now. Without, differences
                are found only when training comes to them. Defaults to `True`.

        Returns:
            A `tf.data.Dataset` of as many samples, times `views`.

        Raises:
            TypeError: If it is no `tf.data.Dataset`.
            ValueError: If these are other data, in another order, or more or
                fewer; says which.
        """
        if (augment is not None) != self._about["augmented"]:
            raise ValueError(
                f"The cache {self.path} was built with `augment`: give `attach` the "
                "same function."
                if augment is None
                else f"The cache {self.path} was built without `augment`. For random "
                "changes that the student alone sees, map what `attach` gives."
            )
        samples = Samples(dataset, augment, self.views, self._about["seed"])
        self._check_samples(samples, thoroughly=verify)
        chunk = samples.chunk
        stored = tf.data.Dataset.zip(
            {
                "features": _read(self.path, self._features, chunk),
                "fingerprints": _read(self.path, self._fingerprints, chunk),
            }
        )

        def hand_over(batch: Any, stored: Any) -> Any:
            element, fingerprints = batch
            _require_same(fingerprints, stored["fingerprints"])
            x = taught.join(element[0], self.mark, stored["features"])
            return (x, *element[1:]) if samples.in_tuples else x

        # In chunks, for a call of a function costs more than what it does here.
        taught_chunks = tf.data.Dataset.zip((samples.batches(chunk), stored)).map(
            hand_over
        )
        total = tf.data.experimental.assert_cardinality(self.count * self.views)
        return taught_chunks.unbatch().apply(total)

    def _check_samples(self, samples: Samples, thoroughly: bool = True) -> None:
        """Refuses other data than the cache was built from, saying what differs."""
        about = f"The teacher cache {self.path} is of another data set:"
        samples.check_alike(self._about["inputs"], about)
        if samples.cardinality not in (tf.data.UNKNOWN_CARDINALITY, self.count):
            raise ValueError(
                f"{about} the count differs. Expected: {self.count:,} samples. "
                f"Received: {samples.cardinality:,}."
            )
        if not thoroughly:
            return
        known = {name: one.open(self.path) for name, one in self._fingerprints.items()}
        total = self.count * self.views
        at = 0
        with _progress(total, "Checking the data", delay=3.0) as advance:
            for fingerprints in samples.fingerprints():
                for name, given in fingerprints.items():
                    compare(about, name, known[name], at, given, self.count)
                advance(len(given))
                at += len(given)
        if at != total:
            raise ValueError(
                f"{about} the count differs. Expected: {self.count:,} samples. "
                f"Received: {at // self.views:,}."
            )


# Building


def _build(
    path: pathlib.Path, recipe: Recipe, samples: Samples, batch: int, verbose: bool
) -> None:
    """Builds in a folder beside `path`, which gets that name when all is there."""
    folder = _building(path)
    about = {**recipe.about, **samples.about}
    writer = RowWriter(folder, about)
    try:
        different = _differences(about, writer.about)
        if different:
            raise FileExistsError(
                f"{folder} is an unfinished cache. It differs in {different}. Build "
                "with its settings to finish it, or delete that folder."
            )
        # Found here when the last build was cut off just before its very end.
        (folder / _MANIFEST).unlink(missing_ok=True)
        writer.checkpoint()
        first, _ = next(iter(samples.inputs(batch)))
        recipe.fit_projections(folder, first, lambda n: samples.spread(n, batch))
        _write_rows(writer, recipe, samples, batch, verbose)
        if not recipe.shapes:  # All rows were there already.
            recipe.features(first)
        features, fingerprints = {}, {}
        names = {name: key for key, name in _file_names(recipe.keys).items()}
        for name, file in writer.finish().items():
            if name in names:
                features[names[name]] = dataclasses.asdict(file)
            else:
                fingerprints[name] = dataclasses.asdict(file)
    finally:
        writer.close()
        if not writer.rows:
            shutil.rmtree(folder)
    manifest = {
        **_FORMAT,
        "written_by": f"keras-lpd {__version__}",
        "about": about,
        "count": writer.rows // about["views"],
        "teacher_name": recipe.teacher.name,
        "output_activation": output_activation(recipe.teacher),
        "feature_layer": recipe.feature_layer,
        "layer_shapes": recipe.shapes,
        "mark": recipe.mark,
        "features": features,
        "fingerprints": fingerprints,
    }
    row_files.write_sealed(folder / _MANIFEST, manifest)
    if path.exists():
        path.rmdir()
    folder.rename(path)
    row_files.sync_folder(path.parent)
    for leftover in (row_files.PROGRESS, *recipe.files):
        (path / leftover).unlink(missing_ok=True)


def _write_rows(
    writer: RowWriter, recipe: Recipe, samples: Samples, batch: int, verbose: bool
) -> None:
    """Appends what is missing, having compared the samples of what is there."""
    names = _file_names(recipe.keys)
    done, at, ran = writer.rows, 0, False
    if done:
        logger.info("Going on with %s at row %s.", writer.folder, f"{done:,}")
    missing = samples.total and samples.total - done
    saved = time.monotonic()
    try:
        with _progress(missing, "Running the teacher", verbose) as advance:
            for inputs, prints in samples.inputs(batch).prefetch(1):
                fingerprints = {name: value.numpy() for name, value in prints.items()}
                size = len(fingerprints[ELEMENTS])
                known = min(max(done - at, 0), size)
                _compare_with_unfinished(writer, fingerprints, at, known)
                if known < size:
                    rows = recipe.rows(inputs, batch if at else 0, not ran)
                    arrays = {names[key]: value for key, value in rows.items()}
                    arrays |= fingerprints
                    if not ran and missing:
                        _check_space(writer.folder, arrays, missing)
                    ran = True
                    writer.append({name: one[known:] for name, one in arrays.items()})
                    advance(size - known)
                at += size
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    writer.checkpoint()
                    saved = time.monotonic()
    except KeyboardInterrupt:
        writer.checkpoint()
        raise
    if at < done:
        raise ValueError(
            f"The unfinished cache {writer.folder} has {done:,} rows already, but the "
            f"data set only gives {at:,}. Delete that folder, and begin again."
        )


def _compare_with_unfinished(
    writer: RowWriter, fingerprints: dict[str, np.ndarray], at: int, known: int
) -> None:
    for name, given in fingerprints.items():
        if known and (writer.read(name, at, at + known) != given[:known]).any():
            raise ValueError(
                f"The unfinished cache {writer.folder} was begun with other data, or "
                "in another order. Delete that folder to begin again."
            )


def _check_space(
    folder: pathlib.Path, arrays: dict[str, np.ndarray], rows: int
) -> None:
    """Refuses to begin what the disk has no room for."""
    needed = rows * sum(array[0].nbytes for array in arrays.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"The teacher cache needs {needed / 1e6:,.0f} MB more, and there are "
            f"{free / 1e6:,.0f} MB free. Use `project` or fewer `layers`, or a path "
            "on another disk",
            str(folder),
        )


@contextlib.contextmanager
def _only_builder(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from building the same cache at the same time."""
    lock = filelock.FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RuntimeError(
            f"Another process is building the teacher cache {path} just now. Wait "
            "until it is done and open that, or choose another path."
        ) from None
    try:
        yield
    finally:
        # While something is unfinished the file stays, for it is the lock of that.
        if not _building(path).exists():
            pathlib.Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _building(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.building")


def _is_empty_folder(path: pathlib.Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _file_names(keys: Sequence[str]) -> dict[str, str]:
    """For each layer the name of its file, without the ending."""
    return {
        key: f"{index}-{re.sub('[^A-Za-z0-9_.]+', '-', key) or 'outputs'}"
        for index, key in enumerate(keys)
    }


def _differences(asked: dict[str, Any], there: dict[str, Any]) -> str:
    """In words, in what two caches differ."""
    words = {
        "teacher": "the teacher's weights",
        "inputs": "the shapes or dtypes of the data",
        "augmented": "`augment`",
    }
    return ", ".join(
        words.get(name, f"`{name}` ({there.get(name)!r} there, {asked[name]!r} here)")
        for name in asked
        if asked[name] != there.get(name)
    )


# Reading


def _array_files(entries: dict[str, Any]) -> dict[str, ArrayFile]:
    return {
        key: ArrayFile(**{**entry, "shape": tuple(entry["shape"])})
        for key, entry in entries.items()
    }


def _read(
    folder: pathlib.Path, files: dict[str, ArrayFile], size: int
) -> dict[str, tf.data.Dataset]:
    """Each file as a data set of `size` rows at a time, and of none at the end."""
    return {key: _read_one(folder, file, size) for key, file in files.items()}


def _read_one(folder: pathlib.Path, array: ArrayFile, size: int) -> tf.data.Dataset:
    whole, rest = divmod(array.shape[0], size)
    file, row = str(folder / array.file), array.row_bytes
    records = tf.data.Dataset.from_tensors("")
    if rest:
        start = row_files.HEADER + whole * size * row
        last = tf.data.FixedLengthRecordDataset(file, rest * row, start)
        records = last.concatenate(records)
    if whole:
        first = tf.data.FixedLengthRecordDataset(
            file, size * row, row_files.HEADER, rest * row
        )
        records = first.concatenate(records)
    dtype, shape = tf.as_dtype(np.dtype(array.dtype)), (-1, *array.shape[1:])
    return records.map(lambda raw: tf.reshape(tf.io.decode_raw(raw, dtype), shape))


def _require_same(given: dict[str, tf.Tensor], stored: dict[str, tf.Tensor]) -> None:
    """Within a pipeline, refuses a chunk of other samples than those stored."""
    for name, one in given.items():
        other = stored[name]
        as_many = tf.equal(tf.shape(one)[0], tf.shape(other)[0])
        with tf.control_dependencies([require(as_many, _OTHER_COUNT)]):
            require(tf.reduce_all(tf.equal(one, other)), _CHANGED)


@contextlib.contextmanager
def _progress(
    total: int | None, title: str, verbose: bool = True, delay: float = 0.0
) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left; gives a function that moves it on."""
    live = sys.stdout.isatty() or "ipykernel" in sys.modules
    bar = keras.utils.Progbar(total, interval=0.2 if live else 10.0, unit_name="sample")
    start, done, shown = time.monotonic(), 0, False

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        if not verbose or (not shown and time.monotonic() - start < delay):
            return
        if not shown:
            logger.info("%s:", title)
            shown = True
        bar.update(done)

    yield advance
    if shown and done != total:
        bar.update(done, finalize=True)
