"""Samples taken out of data sets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import taught
from keras_lpd.samples import Samples, as_classes, at_most

X = np.arange(20, dtype="float32").reshape(10, 2)
Y = np.arange(10)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[3 * index : 3 * index + 3], Y[3 * index : 3 * index + 3]


def batches_of(*parts, size=3):
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


@pytest.mark.parametrize(
    "dataset",
    [
        (X, Y),
        (X, Y, np.ones(10)),
        (tf.constant(X), tf.constant(Y)),
        batches_of(X, Y),
        batches_of(X, Y, np.ones(10)),
        Batches(),
    ],
    ids=["arrays", "weights", "tensors", "batches", "weighted batches", "PyDataset"],
)
@pytest.mark.parametrize("most, count", [(7, 7), (9, 9), (100, 10)])
def test_the_first_samples_are_taken(dataset, most, count):
    samples = Samples.take(dataset, most)
    assert len(samples) == count
    np.testing.assert_array_equal(samples.inputs, X[:count])
    np.testing.assert_array_equal(samples.labels, Y[:count])
    assert samples.taught is None


def test_no_more_batches_are_made_than_needed():
    def endless():
        yield from ((X[i : i + 2], Y[i : i + 2]) for i in (0, 2))
        raise AssertionError("one batch too many")

    spec = (tf.TensorSpec((None, 2)), tf.TensorSpec((None,), "int64"))
    dataset = tf.data.Dataset.from_generator(endless, output_signature=spec)
    assert len(Samples.take(dataset, 4)) == 4


@pytest.mark.parametrize("dataset", [X, (X,), batches_of(X).map(lambda x: x)])
def test_labels_may_be_missing(dataset):
    samples = Samples.take(dataset, 5)
    np.testing.assert_array_equal(samples.inputs, X[:5])
    assert samples.labels is None


def test_inputs_may_be_a_dict():
    samples = Samples.take(batches_of({"a": X, "b": 2 * X}, Y), 5)
    np.testing.assert_array_equal(samples.inputs["b"], 2 * X[:5])
    assert len(samples) == 5


def test_what_a_teacher_made_of_the_samples_comes_along():
    mark = taught.Mark("0123456789abcdef")
    joined = taught.join(X, mark, {"features": 3 * X})
    samples = Samples.take(batches_of(joined, Y), 5)
    np.testing.assert_array_equal(samples.inputs, X[:5])
    assert samples.taught.mark == mark
    np.testing.assert_array_equal(samples.taught.features["features"], 3 * X[:5])


@pytest.mark.parametrize("repeated", [False, True])
def test_what_is_shuffled_goes_on_as_if_nobody_had_looked(repeated):
    def made():
        tf.random.set_seed(3)
        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(10)
        return (dataset.repeat(2) if repeated else dataset).batch(4)

    def order(dataset):
        return [int(y) for _, ys in dataset for y in ys]

    untouched = made()
    expected = [order(untouched), order(untouched)]
    assert expected[0] != expected[1]
    watched = made()
    samples = Samples.take(watched, 10)
    assert [order(watched), order(watched)] == expected
    np.testing.assert_array_equal(samples.labels, expected[0][:10])


def test_a_data_set_that_cannot_be_copied_is_read_itself():
    keys = tf.constant(Y)
    table = tf.lookup.experimental.DenseHashTable(
        tf.int64, tf.int64, default_value=-1, empty_key=-2, deleted_key=-3
    )
    table.insert(keys, keys * 7)
    dataset = batches_of(X, Y).map(lambda x, y: (x, table.lookup(y)))
    np.testing.assert_array_equal(Samples.take(dataset, 5).labels, 7 * Y[:5])


@pytest.mark.parametrize(
    "dataset, error, words",
    [
        (batches_of(X, Y).take(0), ValueError, "is empty"),
        (
            tf.data.Dataset.from_tensor_slices((X, Y)),
            ValueError,
            "Is a `.batch\\(...\\)` missing",
        ),
        ((X, Y[:9]), ValueError, "inputs and labels of as many samples"),
        (iter([(X, Y)]), TypeError, "Received: .*iterator"),
        ([X, Y], TypeError, "Received: list"),
    ],
    ids=["empty", "not batched", "too few labels", "iterator", "list"],
)
def test_refusals(dataset, error, words):
    with pytest.raises(error, match=words):
        Samples.take(dataset, 5)


@pytest.mark.parametrize(
    "labels, classes",
    [
        (np.array([2, 0, 1]), [2, 0, 1]),
        (np.array([[2], [0], [1]]), [2, 0, 1]),
        (np.array([2.0, 0.0]), [2, 0]),
        (np.array([True, False]), [1, 0]),
        (np.array([[0, 0, 1], [1, 0, 0]], "float32"), [2, 0]),
        (np.array([[0, 1, 1], [1, 0, 0]]), None),
        (np.array([0.3, 1.5]), None),
        (np.array([-1, 1]), None),
        (np.array([np.nan, 1.0]), None),
        (np.array(["a", "b"]), None),
        ({"one": np.array([1])}, None),
        (np.zeros((2, 5, 5)), None),
    ],
)
def test_labels_as_classes(labels, classes):
    found = as_classes(labels)
    assert (found is None) == (classes is None)
    if classes is not None:
        assert found.tolist() == classes and found.dtype == np.int64


class Endless(Batches):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return X, Y


def test_the_first_of_an_endless_data_set():
    assert len(Samples.take(Endless(), 25)) == 25


@pytest.mark.parametrize("dataset", [Endless(), batches_of(X, Y).repeat()])
def test_all_of_an_endless_data_set_are_refused(dataset):
    assert at_most(7, dataset) == 7
    with pytest.raises(ValueError, match="goes on for ever. Give `max_samples=`"):
        at_most(None, dataset)


def test_all_of_a_data_set_that_ends():
    assert at_most(None, Batches()) > 1e9
