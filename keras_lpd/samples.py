"""Samples taken out of a data set, to be looked at and held in memory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lpd.arguments import as_integer
from keras_lpd.taught import Taught, inputs_of, split

_SHUFFLES = {"ShuffleDatasetV3": 4, "ShuffleAndRepeatDatasetV2": 5}
"""Operations that shuffle anew each time, and which input the seeds come from."""


class Samples(NamedTuple):
    """Some samples.

    Args:
        inputs: What models take: an array, or a structure of them.
        labels: A class for each, `int` of shape `(n,)`, or `None` without such.
        taught: What a teacher made of them, where the data brought that along.
    """

    inputs: Any
    labels: np.ndarray | None
    taught: Taught | None

    def __len__(self) -> int:
        return count_of(self.inputs)

    @classmethod
    def take(cls, dataset: Any, most: int) -> Samples:
        """The first samples of a data set, at most so many.

        Args:
            dataset: What `validation_data` may be: arrays `(x, y)`, or batches in a
                `tf.data.Dataset` or a `keras.utils.PyDataset`. Labels may be missing.
                What shuffles comes as in its own first pass, and goes on
                shuffling elsewhere as if nobody had looked.
            most: How many.

        Raises:
            TypeError: If it is none of these.
            ValueError: If it is empty, or not batched.
        """
        batches, count = [], 0
        for batch in _batches(dataset):
            batches.append(batch)
            count += count_of(batch)
            if count >= most:
                break
        if not count:
            raise ValueError("`dataset` is empty: there are no samples to look at.")
        x, *y = keras.tree.map_structure(
            lambda *rows: np.concatenate(rows)[:most], *batches
        )
        return cls(inputs_of(x), as_classes(y[0]) if y else None, split(x))


def at_most(max_samples: int | None, dataset: Any) -> int:
    """How many samples to take at most; refuses all of a data set without an end."""
    if max_samples is not None:
        return as_integer("max_samples", max_samples, least=1)
    if isinstance(dataset, keras.utils.PyDataset):
        endless = dataset.num_batches is None
    else:
        endless = (
            isinstance(dataset, tf.data.Dataset)
            and dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        )
    if endless:
        raise ValueError(
            "`dataset` goes on for ever. Give `max_samples=`, or leave `repeat` out."
        )
    return sys.maxsize


def count_of(x: Any) -> int:
    """How many samples a batch has."""
    return len(keras.tree.flatten(x)[0])


def as_classes(y: Any) -> np.ndarray | None:
    """Labels as classes, `int` of shape `(n,)`: as they are, or out of one-hot rows.

    `None` for anything else, such as several labels a sample, or real numbers.
    """
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf":
        return None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and np.all(np.isin(y, (0, 1))) and np.all(y.sum(axis=1) == 1):
        y = y.argmax(axis=1)
    if y.ndim != 1 or not np.all(y == np.floor(y)) or y.min() < 0:
        return None
    return y.astype(np.int64)


def _batches(dataset: Any) -> Iterator[tuple[Any, ...]]:
    """`(inputs, labels)` or `(inputs,)`, batch after batch, as arrays."""
    if isinstance(dataset, tf.data.Dataset):
        batches: Any = _own_copy(dataset).as_numpy_iterator()
    elif isinstance(dataset, keras.utils.PyDataset):
        last = dataset.num_batches  # `None` if there is none.
        batches = (dataset[i] for i in itertools.islice(itertools.count(), last))
    elif isinstance(dataset, tuple) or hasattr(dataset, "__array__"):
        batches = [dataset]
    else:
        raise TypeError(
            "`dataset` must be arrays (x, y), or batches in a `tf.data.Dataset` or a "
            f"`keras.utils.PyDataset`. Received: {type(dataset).__name__}"
        )
    for batch in batches:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        found = keras.tree.map_structure(np.asarray, (x,) if y is None else (x, y))
        shapes = [one.shape for one in keras.tree.flatten(found)]
        if () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(
                "`dataset` must give batches, inputs and labels of as many samples. "
                f"Received: arrays of shapes {shapes}. Is a `.batch(...)` missing?"
            )
        yield found


def _own_copy(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same data set, with a shuffling of its own.

    Each pass over a data set that reshuffles draws from one stream of seeds: to look
    at the data of training would change the order in which training sees them.
    """
    try:
        graph = tf.compat.v1.GraphDef.FromString(
            tf.raw_ops.DatasetToGraphV2(
                input_dataset=tf.data.experimental.to_variant(dataset),
                external_state_policy=1,  # what has state is copied all the same
            ).numpy()
        )
        for node in list(graph.node):
            if node.op in _SHUFFLES:
                seeds = graph.node.add(op="DummySeedGenerator", name=f"own_{node.name}")
                node.input[_SHUFFLES[node.op]] = seeds.name
        variant = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    except tf.errors.OpError:  # It can't be copied, as a lookup table can't.
        return dataset
    return tf.data.experimental.from_variant(variant, dataset.element_spec)
