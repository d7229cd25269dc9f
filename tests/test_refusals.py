"""What is said when something goes wrong inside compiled functions."""

import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.refusals import explained, explaining, require, require_finite

MESSAGES = [
    "Something is missing.",
    "Attach before `shuffle` (`shuffle_files=False`). Expected: 3, [1, 2].",
    "The layer 'features' of model \"wise\" has NaN.",
    "Bäume, 水",
    r"C:\data\new",
    "One line,\nand another.",
    "much " * 200,
]


def in_a_function(check):
    compiled = tf.function(check)
    return lambda values: [compiled(value) for value in values]


def in_a_pipeline(check):
    def run(values):
        data = tf.data.Dataset.from_tensor_slices(values)
        return list(data.map(check, tf.data.AUTOTUNE).batch(2).prefetch(1))

    return run


def in_a_pipeline_within_a_function(check):
    def run(values):
        data = tf.data.Dataset.from_tensor_slices(values).map(check)
        return tf.function(lambda: data.reduce(0.0, lambda one, other: one + other))()

    return run


PLACES = [in_a_function, in_a_pipeline, in_a_pipeline_within_a_function]


def failure(run, values):
    with pytest.raises(tf.errors.OpError) as failed:
        run(tf.constant(values, "float32"))
    return failed.value


def positive(message):
    def check(value):
        require(value > 0, message)
        return value

    return check


def finite(message):
    return lambda value: require_finite(value, message)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("check", "value"),
    [(positive, -1.0), (finite, np.nan), (finite, np.inf), (finite, -np.inf)],
)
def test_what_is_refused_is_said(place, check, value):
    run = place(check(MESSAGES[1]))
    run(tf.constant([1.0, 2.0]))  # what holds is no matter
    error = explained(failure(run, [1.0, value]))
    assert isinstance(error, ValueError)
    assert str(error) == MESSAGES[1]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
@pytest.mark.parametrize(("check", "value"), [(positive, -1.0), (finite, np.nan)])
def test_whatever_is_said_arrives_in_full(message, check, value):
    run = in_a_function(check(message))
    assert str(explained(failure(run, [value]))) == message


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_finite_numbers_go_through_as_they_are(dtype):
    numbers = tf.cast([[1.5, -2.0]], dtype)
    found = require_finite(numbers, "")
    assert found.dtype == dtype
    assert found.numpy().tolist() == [[1.5, -2.0]]
    with pytest.raises(tf.errors.InvalidArgumentError):
        require_finite(numbers / 0, "")


@pytest.mark.parametrize("numbers", [[3, 4], [True, False], ["a", "b"]])
def test_what_is_always_finite_is_let_through(numbers):
    tensor = tf.constant(numbers)
    assert require_finite(tensor, "") is tensor


@pytest.mark.parametrize("count", [4, 6])
def test_another_count_than_was_asserted_is_said(count):
    data = tf.data.Dataset.range(5).filter(lambda value: True)
    data = data.apply(tf.data.experimental.assert_cardinality(count))
    with pytest.raises(tf.errors.OpError) as failed:
        list(data)
    error = explained(failed.value)
    assert isinstance(error, ValueError)
    assert "another count of samples" in str(error)
    assert "teacher cache is attached" in str(error)
    assert "`assert_cardinality`" in str(error)
    assert f"Expected: {count}. Received: 5" in str(error)
    assert str(error).endswith(".")
    assert "{{" not in str(error) and "name:" not in str(error)


def of_lengths(*lengths):
    return tf.data.Dataset.from_tensor_slices(list(lengths)).map(tf.zeros)


def of_rows(*lengths):
    return tf.data.Dataset.from_tensor_slices(list(lengths)).map(
        lambda length: tf.zeros([length, 2])
    )


@pytest.mark.parametrize(
    ("data", "shapes"),
    [
        (of_lengths(3, 4), ["[3]", "[4]"]),
        (of_rows(3, 4), ["[3,2]", "[4,2]"]),
        (tf.data.Dataset.zip(of_rows(2, 2), of_lengths(3, 4)), ["[3]", "[4]"]),
        (of_lengths(3, 4).map(lambda x: {"a": x}), ["[3]", "[4]"]),
    ],
    ids=["vectors", "matrices", "the second of two", "in a dict"],
)
@pytest.mark.parametrize("parallel", [None, 2])
def test_samples_of_different_shapes_are_said(data, shapes, parallel):
    batches = data.batch(2, num_parallel_calls=parallel)
    message = "must have one shape.*batches"
    with pytest.raises(ValueError, match=message) as refusal, explaining():
        list(batches)
    assert all(shape in str(refusal.value) for shape in shapes)


def test_a_file_that_is_gone_is_said(tmp_path):
    path = tmp_path / "features.npy"
    data = tf.data.FixedLengthRecordDataset(str(path), 4)
    message = r"features\.npy is gone.*Attach it again"
    with pytest.raises(ValueError, match=message), explaining():
        list(data)


def test_errors_that_are_not_ours_pass_as_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError), explaining():
        shapes_that_do_not_fit()
    with pytest.raises(KeyError), explaining():
        raise KeyError("<<x>>")
    with explaining():
        pass


def shapes_that_do_not_fit():
    tf.matmul(tf.ones((2, 3)), tf.ones((2, 3)))


def somebody_elses_assertion():
    tf.debugging.assert_positive(tf.constant(-1), message="Not <<so>.")


def somebody_elses_numbers():
    tf.debugging.check_numerics(tf.constant(np.nan), "loss")


def end_of_data():
    tf.data.Dataset.range(1).take(0).get_single_element()


@pytest.mark.parametrize(
    "fails",
    [
        shapes_that_do_not_fit,
        somebody_elses_assertion,
        somebody_elses_numbers,
        end_of_data,
    ],
)
def test_other_errors_are_not_ours_to_explain(fails):
    with pytest.raises(tf.errors.OpError) as failed:
        fails()
    assert explained(failed.value) is None


def test_an_error_without_a_word():
    assert explained(tf.errors.OpError(None, None, None, 0)) is None
