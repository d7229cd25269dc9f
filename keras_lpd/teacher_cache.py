"""`TeacherCache`: what a teacher makes of a data set, computed once, kept on disk."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lpd import taught
from keras_lpd.arguments import as_integer
from keras_lpd.caching import building, row_files
from keras_lpd.caching.building import MANIFEST
from keras_lpd.caching.progress import progress
from keras_lpd.caching.recipe import Recipe
from keras_lpd.caching.row_files import ArrayFile
from keras_lpd.caching.sample_stream import Augment, SampleStream, check_same
from keras_lpd.features import FeatureFunction, Preprocessing
from keras_lpd.log import logger
from keras_lpd.refusals import explaining, require

CHECK_DELAY = 3.0
"""After how many seconds of checking the data there is a progress bar."""

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
        asked = manifest["asked"]
        self.path = path.absolute()
        self.count: int = manifest["count"]
        self.views: int = asked["views"]
        self.layers: list[str] = asked["layers"]
        self.outputs: bool = asked["outputs"]
        self.feature_layer: str | None = manifest["feature_layer"]
        self.teacher_name: str = manifest["teacher_name"]
        self.output_activation: str | None = manifest["output_activation"]
        self.mark = taught.Mark(*manifest["mark"])
        self._asked = asked
        self._manifest = manifest
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
        teacher_preprocessing: Preprocessing | None = None,
        verbose: int | str = "auto",
    ) -> TeacherCache:
        """Runs the teacher over a data set once, and keeps what it makes of it.

        Interrupted, even killed, it goes on where it stopped when it is called
        again in the same way. Where the cache is there already, it is checked
        against teacher, data and settings, and returned. The teacher is known
        by its weights and layers, and by its features of the first samples.

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
            dtype: `"float16"` or `"float32"`. Half precision is refused where
                it would change the neighbours and their weights noticeably.
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
            teacher_preprocessing: Makes of a batch what the teacher takes, as in
                `LPDistiller`.
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
        path = pathlib.Path(path).resolve()
        samples = SampleStream(dataset, augment, views, seed)
        recipe = Recipe(
            teacher,
            layers,
            outputs,
            dtype,
            project,
            projection,
            teacher_features,
            teacher_preprocessing,
        )
        batch_size = as_integer("batch_size", batch_size, least=1)
        if teacher_preprocessing is None:
            samples.check_fits(teacher)
        samples.check_repeats()
        plan = building.plan_of(recipe, samples)
        path.parent.mkdir(parents=True, exist_ok=True)
        with building.only_builder(path):
            if path.exists() and not (path.is_dir() and not any(path.iterdir())):
                return cls._found(path, plan, samples, bool(verbose))
            building.build(path, recipe, samples, plan, batch_size, bool(verbose))
        cache = cls.open(path, verify=False)
        logger.info("Built %r, %.1f MB.", cache, cache.nbytes / 1e6)
        return cache

    @classmethod
    def _found(
        cls,
        path: pathlib.Path,
        plan: building.Plan,
        samples: SampleStream,
        verbose: bool,
    ) -> TeacherCache:
        """What is at `path` already, if it is what was to be built."""
        if not (path / MANIFEST).exists():
            raise FileExistsError(
                f"{path} is there already, and is no teacher cache. Choose another "
                "path."
            )
        cache = cls.open(path)
        if different := building.differences(plan, cache._manifest):
            raise FileExistsError(
                f"{path} holds another cache already. It differs in {different}. "
                "Choose another path, or delete that folder first."
            )
        cache._check_samples(samples, verbose=verbose)
        if not building.features_alike(plan, cache._manifest):
            raise FileExistsError(
                f"{path} holds another cache already. It differs in what the teacher "
                "makes of the first samples. Choose another path, or delete that "
                "folder first."
            )
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
        if not (path / MANIFEST).is_file():
            unfinished = building.folder_for(path)
            hint = "Make one with `TeacherCache.build`."
            if (unfinished / row_files.PROGRESS).exists():
                hint = (
                    f"{unfinished} is an unfinished one: call `TeacherCache.build` "
                    "as before, and it goes on."
                )
            raise FileNotFoundError(f"There is no teacher cache at {path}. {hint}")
        try:
            manifest = row_files.read_sealed(path / MANIFEST)
        except ValueError as error:
            raise _damaged(path, error) from None
        if any(manifest.get(name) != value for name, value in building.FORMAT.items()):
            raise ValueError(
                f"The teacher cache {path} was made by another version "
                f"({manifest.get('written_by')}). Expected: {building.FORMAT}. Install "
                "that version, or build the cache again elsewhere."
            )
        cache = cls(path, manifest)
        cache._check_files(thoroughly=verify)
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
            verify: Whether to go through all files and samples now, and say
                what differs. Without, other samples are found only when
                training comes to them. Defaults to `True`.

        Returns:
            A `tf.data.Dataset` of as many samples, times `views`.

        Raises:
            TypeError: If it is no `tf.data.Dataset`.
            ValueError: If these are other data, in another order, or more or
                fewer; says which.
        """
        if (augment is not None) != self._asked["augmented"]:
            raise ValueError(
                f"The cache {self.path} was built with `augment`: give `attach` the "
                "same function."
                if augment is None
                else f"The cache {self.path} was built without `augment`. For random "
                "changes that the student alone sees, map what `attach` gives."
            )
        samples = SampleStream(dataset, augment, self.views, self._asked["seed"])
        self._check_files(thoroughly=verify)
        self._check_samples(samples, thoroughly=verify)
        files = (*self._features.values(), *self._fingerprints.values())
        chunk = samples.chunk(sum(file.row_bytes for file in files))

        def hand_over(sample: Any, stored: Any) -> Any:
            element, fingerprints = sample
            _require_same(fingerprints, stored["fingerprints"])
            x = taught.join(element[0], self.mark, stored["features"])
            return (x, *element[1:]) if samples.in_tuples else x

        stored = tf.data.Dataset.zip(
            {
                "features": _read(self.path, self._features, chunk),
                "fingerprints": _read(self.path, self._fingerprints, chunk),
            }
        )
        if chunk == 1:
            together = tf.data.Dataset.zip((samples.singles(), stored.unbatch()))
            attached = together.map(hand_over)
        else:  # A call of a function costs more than what it does here.
            together = tf.data.Dataset.zip((samples.batches(chunk), stored))
            attached = together.map(hand_over).unbatch()
        total = tf.data.experimental.assert_cardinality(self.count * self.views)
        return attached.apply(total)

    def _check_files(self, thoroughly: bool) -> None:
        """Refuses files that are missing, truncated or altered."""
        try:
            for file in (*self._features.values(), *self._fingerprints.values()):
                file.check(self.path, thoroughly)
        except ValueError as error:
            raise _damaged(self.path, error) from None

    def _check_samples(
        self, samples: SampleStream, thoroughly: bool = True, verbose: bool = True
    ) -> None:
        """Refuses other data than the cache was built from, saying what differs."""
        opening = f"The teacher cache {self.path} is of another data set:"
        samples.check_alike(self._asked["inputs"], opening)
        if samples.cardinality not in (tf.data.UNKNOWN_CARDINALITY, self.count):
            raise ValueError(
                f"{opening} the count differs. Expected: {self.count:,} samples. "
                f"Received: {samples.cardinality:,}."
            )
        if not thoroughly:
            return
        known = {name: one.open(self.path) for name, one in self._fingerprints.items()}
        total = self.count * self.views
        at = 0
        bar = progress(total, "Checking the data", verbose, delay=CHECK_DELAY)
        with bar as advance, explaining():
            for fingerprints in samples.fingerprints():
                for name, given in fingerprints.items():
                    check_same(opening, name, known[name], at, given, self.count)
                advance(len(given))
                at += len(given)
        if at != total:
            raise ValueError(
                f"{opening} the count differs. Expected: {self.count:,} samples. "
                f"Received: {at // self.views:,}."
            )


def _damaged(path: pathlib.Path, error: ValueError) -> ValueError:
    return ValueError(
        f"The teacher cache {path} can't be used. {error} Delete the folder, and build "
        "it again."
    )


def _array_files(entries: dict[str, Any]) -> dict[str, ArrayFile]:
    return {
        key: ArrayFile(**{**entry, "shape": tuple(entry["shape"])})
        for key, entry in entries.items()
    }


def _read(
    folder: pathlib.Path, files: dict[str, ArrayFile], size: int
) -> dict[str, tf.data.Dataset]:
    """Each file as a data set of `size` rows at a time, and one of zeros at the end.

    That row has the fingerprint of no sample: there must not come one for it.
    """
    return {key: _read_one(folder, file, size) for key, file in files.items()}


def _read_one(folder: pathlib.Path, array: ArrayFile, size: int) -> tf.data.Dataset:
    whole, rest = divmod(array.shape[0], size)
    file, row = str(folder / array.file), array.row_bytes
    records = tf.data.Dataset.from_tensors(bytes(row))
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
