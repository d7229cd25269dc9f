"""Batches for all epochs, in an order that the count of epochs alone decides."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_lpd import TeacherCache, taught


def epochs_of(
    x: Any, y: Any, *, batch_size: int, first: int, last: int, seed: int
) -> tf.data.Dataset:
    """The batches of the epochs from `first` to `last`, one after another.

    Each epoch has each sample once, in another order. A training which goes on at
    epoch `first` has the very batches that it would have had: see `ChiefBackup`.

    Args:
        x: Arrays, in any structure, with a row for each sample.
        y: Their labels.
        batch_size: Samples in a batch. The last one of an epoch may have fewer.
        first: The epoch to begin with, from 0.
        last: The epoch before which it ends.
        seed: Seed of the orders.
    """
    with tf.device("CPU"):  # where pipelines run, even if there is a GPU
        arrays = tf.nest.map_structure(tf.constant, (x, y))

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        drawn = tf.stack([tf.constant(seed, tf.int64), epoch])
        rows = tf.range(len(y), dtype=tf.int64)
        order = tf.random.experimental.stateless_shuffle(rows, drawn)
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    def batch(rows: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda array: tf.gather(array, rows), arrays)

    batches = tf.data.Dataset.range(first, last).flat_map(one_epoch)
    return batches.map(batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def with_features(cache: TeacherCache, x: Any) -> Any:
    """The samples with what the cache has for them, to be shuffled together."""
    cache.attach(tf.data.Dataset.from_tensor_slices(x))  # compares them all
    return taught.join(x, cache.mark, {layer: cache[layer] for layer in cache.layers})
