"""The samples of a data set as the teacher sees them, and how to know them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lpd.arguments import as_integer
from keras_lpd.checks import shapes_agree
from keras_lpd.features import graph_ends, is_graph, own_inputs

Augment = Callable[[Any, Any], Any]
"""`(inputs, seed) -> inputs`, of one sample; `seed` is a tensor of shape `(2,)`."""

ELEMENTS, AUGMENTED = "elements", "augmented"
"""Names of the fingerprints: of the inputs as they come, and when augmented."""

_CHUNK_BYTES, _CHUNK_ROWS = 1 << 20, 256


class SampleStream:
    """A data set of single samples, gone through view after view.

    Args:
        dataset: A `tf.data.Dataset` of `inputs` or of tuples which begin with
            them, neither batched nor endless.
        augment: Makes views of a sample, if there is more to see than itself.
        views: How many views.
        seed: Seed of the views.

    Raises:
        TypeError: If it is no `tf.data.Dataset` of dense inputs.
        ValueError: If it is empty or endless, or an argument out of its range.
    """

    def __init__(
        self, dataset: Any, augment: Augment | None, views: int = 1, seed: int = 0
    ):
        if not isinstance(dataset, tf.data.Dataset):
            raise TypeError(
                "The data set must be a `tf.data.Dataset`. Received: "
                f"{type(dataset).__name__}. For arrays, give "
                "`tf.data.Dataset.from_tensor_slices((x, y))`."
            )
        views = as_integer("views", views, least=1)
        seed = as_integer("seed", seed, least=0)
        if views > 1 and augment is None:
            raise ValueError(
                f"`views={views}` needs `augment`, a function (inputs, seed) -> "
                "inputs: all views would be the same without."
            )
        self.cardinality = int(dataset.cardinality())
        if self.cardinality == tf.data.INFINITE_CARDINALITY:
            raise ValueError("The data set has no end. Leave `repeat` for afterwards.")
        if self.cardinality == 0:
            raise ValueError("The data set is empty.")
        self.in_tuples = isinstance(dataset.element_spec, tuple)
        spec = dataset.element_spec[0] if self.in_tuples else dataset.element_spec
        self._specs = tf.nest.flatten(spec)
        if not all(isinstance(one, tf.TensorSpec) for one in self._specs):
            raise TypeError(
                "Inputs must be dense tensors, to be put together in batches. "
                f"Received: {spec}"
            )
        if hasattr(dataset.element_spec, "_fields"):  # named tuples aren't unpacked
            dataset = dataset.map(tuple)
        self._elements = dataset.map(lambda *element: element)
        self._augment, self._views, self._seed = augment, views, seed

    @property
    def about(self) -> dict[str, Any]:
        """What has to be the same another day, as JSON data."""
        return {
            "inputs": [
                [one.dtype.name, None if one.shape.rank is None else list(one.shape)]
                for one in self._specs
            ],
            "views": self._views,
            "seed": self._seed if self._augment is not None else 0,
            "augmented": self._augment is not None,
        }

    @property
    def total(self) -> int | None:
        """How many samples there are in all views together, if that is known."""
        return self.cardinality * self._views if self.cardinality > 0 else None

    def chunk(self, more: int = 0) -> int:
        """How many samples, with so many bytes more each, are handled best together."""
        size = 1 + more
        for spec in tf.nest.flatten(self._elements.element_spec):
            if not isinstance(spec, tf.TensorSpec) or not spec.shape.is_fully_defined():
                return 1
            if spec.shape.num_elements() == 0:  # TensorFlow can't unbatch these.
                return 1
            size += spec.shape.num_elements() * spec.dtype.size
        return max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // size))

    def batches(self, size: int) -> tf.data.Dataset:
        """All views one after another: `(element, fingerprints)`, batched."""
        return _batched(self._views_of(self._elements, self._views), size)

    def singles(self) -> tf.data.Dataset:
        """The same one by one."""
        return self._views_of(self._elements, self._views).map(
            lambda element, clean: (element, _prints_of_one(element[0], clean))
        )

    def inputs(self, size: int) -> tf.data.Dataset:
        """Batches without labels: `(inputs, fingerprints)`."""
        inputs = self._elements.map(lambda *element: (element[0],))
        return _batched(self._views_of(inputs, self._views), size).map(
            lambda element, prints: (element[0], prints)
        )

    def spread(self, wanted: int, size: int) -> tf.data.Dataset:
        """Batches of inputs spread evenly over the data set, `wanted` in all."""
        count = self.cardinality
        if count < 0:
            count = int(self._elements.reduce(np.int64(0), lambda n, *_: n + 1))
        inputs = self._elements.map(lambda *element: (element[0],))
        few = inputs.enumerate().filter(
            lambda i, _: i * wanted // count > (i - 1) * wanted // count
        )
        few = self._views_of(few.map(lambda i, element: element), 1)
        return few.map(lambda element, clean: element[0]).batch(size)

    def fingerprints(self) -> Iterator[dict[str, np.ndarray]]:
        """The fingerprints alone, chunk after chunk."""
        batches = self.inputs(self.chunk()).map(lambda inputs, prints: prints)
        return batches.prefetch(2).as_numpy_iterator()

    def _views_of(self, elements: tf.data.Dataset, views: int) -> tf.data.Dataset:
        """`(element, clean)`: in `clean` the inputs, if `element` has others now."""
        if self._augment is None:
            return elements.map(lambda *element: (element, {}))
        seen = self._view(elements, 0)
        for view in range(1, views):
            seen = seen.concatenate(self._view(elements, view))
        return seen

    def _view(self, elements: tf.data.Dataset, view: int) -> tf.data.Dataset:
        assert self._augment is not None
        augment, first = self._augment, view << 40  # further than any index

        def augmented(index: Any, element: Any) -> Any:
            seed = tf.stack([tf.constant(self._seed, tf.int64), first + index])
            inputs = augment(element[0], seed)
            return (inputs, *element[1:]), {ELEMENTS: element[0]}

        return elements.enumerate().map(augmented, tf.data.AUTOTUNE)

    # What can be known before the teacher runs

    def check_fits(self, teacher: keras.Model) -> None:
        """Refuses samples that the teacher can't take."""
        if not is_graph(teacher) or tf.nest.is_nested(graph_ends(teacher)[0]):
            return
        spec = own_inputs(teacher, self.inputs(1).element_spec[0])
        specs = tf.nest.flatten(spec)
        if len(specs) != 1:
            raise ValueError(
                f"Teacher '{teacher.name}' takes one input. Received: {spec}. Give a "
                "data set of `(inputs, labels)`; tensorflow-datasets makes one with "
                "`as_supervised=True`."
            )
        if specs[0].shape.rank is None:
            return
        expected, shape = tuple(teacher.inputs[0].shape), tuple(specs[0].shape[1:])
        if shapes_agree((None, *shape), expected):
            return
        message = (
            f"The data set's inputs don't fit teacher '{teacher.name}'. Expected: "
            f"single samples of shape {expected[1:]}. Received: {shape}."
        )
        if shapes_agree(shape, expected):
            message += " These are batches: give `dataset.unbatch()`."
        raise ValueError(message)

    def check_alike(self, inputs: list[Any], opening: str) -> None:
        """Refuses other dtypes or shapes than those in another day's `about`.

        Args:
            inputs: `about["inputs"]` of that day.
            opening: Beginning of what is said then.
        """
        shapes = [one.shape for one in self._specs]
        expected = [tf.TensorShape(shape) for _, shape in inputs]
        dtypes = [one.dtype.name for one in self._specs]
        if dtypes == [dtype for dtype, _ in inputs] and all(
            one.is_compatible_with(other) for one, other in zip(shapes, expected)
        ):
            return
        message = (
            f"{opening} the inputs' dtype or shape differs. Expected: "
            f"{_in_words(inputs)}. Received: {_in_words(self.about['inputs'])}."
        )
        if all(
            one.rank and one[1:].is_compatible_with(other)
            for one, other in zip(shapes, expected)
        ):
            message += " These look like batches: attach before `batch`."
        raise ValueError(message)

    def check_repeats(self) -> None:
        """Refuses a data set whose first samples are others each time."""
        first, again = (next(self.fingerprints(), None) for _ in range(2))
        if first is None or again is None:
            raise ValueError("The data set is empty.")
        if not np.array_equal(first[ELEMENTS], again[ELEMENTS]):
            raise ValueError(
                "The data set gives other samples, or another order, each time it is "
                "gone through. Build the cache before `shuffle` and random changes, "
                "and read files in a fixed order (`shuffle_files=False`)."
            )
        if AUGMENTED in first and not np.array_equal(
            first[AUGMENTED], again[AUGMENTED]
        ):
            raise ValueError(
                "`augment` gives something else each time, for the same inputs and "
                "seed. Use functions such as `tf.image.stateless_random_crop`, with "
                "the seed they are given."
            )


def _batched(views: tf.data.Dataset, size: int) -> tf.data.Dataset:
    return views.batch(size).map(
        lambda element, clean: (element, _prints(element[0], clean))
    )


def _prints(inputs: Any, clean: dict[str, Any]) -> dict[str, tf.Tensor]:
    """The fingerprints of a batch, by name."""
    named = {**clean, AUGMENTED: inputs} if clean else {ELEMENTS: inputs}
    return {name: fingerprints(one) for name, one in named.items()}


def _prints_of_one(inputs: Any, clean: dict[str, Any]) -> dict[str, tf.Tensor]:
    one = tf.nest.map_structure(lambda tensor: tensor[None], (inputs, clean))
    return {name: prints[0] for name, prints in _prints(*one).items()}


def fingerprints(inputs: Any) -> tf.Tensor:
    """Eight bytes for each sample of a batch, a FarmHash over its own bytes."""
    parts = [
        tf.raw_ops.Fingerprint(data=tensor, method="farmhash64")
        for tensor in tf.nest.flatten(inputs)
    ]
    if len(parts) == 1:
        return parts[0]
    together = tf.concat(parts, axis=1)
    return tf.raw_ops.Fingerprint(data=together, method="farmhash64")


def check_same(
    opening: str, name: str, known: np.ndarray, at: int, given: np.ndarray, count: int
) -> None:
    """Refuses samples with other fingerprints than those known.

    Args:
        opening: Beginning of what is said then.
        name: Of the fingerprints.
        known: The fingerprints of all samples, view after view.
        at: Where in them those that were given begin.
        given: Fingerprints of some samples.
        count: How many samples there should be in all.
    """
    expected = known[at : at + len(given)]
    wrong = np.flatnonzero((expected != given[: len(expected)]).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        sample = f"sample {(at + row) % count:,}"
        if name == AUGMENTED:
            raise ValueError(
                f"{opening} the augmentation differs. It makes of {sample} another "
                "view than the teacher saw. Give the same `augment`."
            )
        if (known == given[row]).all(axis=1).any():
            raise ValueError(
                f"{opening} the order differs. What comes as {sample} had another "
                "place. Attach before `shuffle`, and read files in a fixed order "
                "(`shuffle_files=False`)."
            )
        raise ValueError(
            f"{opening} the data differ. What comes as {sample} was not among them."
        )
    if len(expected) < len(given):
        raise ValueError(
            f"{opening} the count differs. Expected: {count:,} samples. Received: more."
        )


def _in_words(inputs: list[Any]) -> str:
    return ", ".join(f"{dtype} {shape}" for dtype, shape in inputs)
