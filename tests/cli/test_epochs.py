"""The order of samples in the epochs of a training."""

import numpy as np
import tensorflow as tf

from keras_lpd.cli.epochs import epochs_of


def rows(first, last, seed=0, count=10):
    data = epochs_of(
        np.arange(count), np.arange(count), batch_size=4, first=first, last=last,
        seed=seed,
    )  # fmt: skip
    batches = list(data.as_numpy_iterator())
    for x, y in batches:
        np.testing.assert_array_equal(x, y)
    assert [len(x) for x, _ in batches] == [4, 4, 2] * (last - first)
    return np.concatenate([x for x, _ in batches]).reshape(last - first, count)


def test_each_epoch_has_each_sample_once_in_another_order():
    epochs = rows(0, 3)
    np.testing.assert_array_equal(np.sort(epochs), [np.arange(10)] * 3)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_what_begins_later_has_the_same_epochs():
    tf.random.set_seed(1)
    whole = rows(0, 4)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(rows(2, 4), whole[2:])


def test_the_seed_decides():
    assert not np.array_equal(rows(0, 1, seed=0), rows(0, 1, seed=1))
