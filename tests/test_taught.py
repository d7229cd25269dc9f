"""Features that travel with their samples, and whose they are."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.taught import INPUTS, Mark, inputs_of, join, split
from tests.pipelines import assert_same

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
FEATURES = {
    "features": (2 * X).astype("float16"),
    "backbone/conv 5": X.reshape(12, 2, 2),
    "": X[:, :3],
}
TEACHER = "0123456789abcdef" * 4
MARKS = [
    Mark.of(TEACHER),
    Mark.of(TEACHER, "", False),
    Mark.of(TEACHER, "pca-16-0a1b2c3d"),
    Mark.of(TEACHER, "gaussian-16-0a1b2c3d", True),
    Mark.of(TEACHER, "pca-16-0a1b2c3d+pca-16-4e5f6071", True),
    Mark.of(TEACHER, "pca-16-0a1b2c3d+pca-16-4e5f6071", False),
    Mark.of("fedcba98" * 8, "pca-1-00000000", True),
]


# Taken apart as it was put together


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize(
    "inputs",
    [X, {"image": X, "mask": X}, (X, X), {INPUTS: X, "other": X}, [X]],
    ids=["one", "a dict", "a tuple", "a dict like ours", "a list"],
)
def test_what_was_put_together_is_taken_apart(mark, inputs):
    taught = split(join(inputs, mark, FEATURES))
    assert taught.inputs is inputs
    assert taught.mark == mark
    assert isinstance(taught.mark.flattened, bool)
    assert taught.features is FEATURES


def test_a_mark_comes_back_from_json():
    """As a list, from a manifest."""
    for mark in MARKS:
        assert Mark(*json.loads(json.dumps(mark))) == mark


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("mark", MARKS[2:5])
def test_features_stay_with_their_samples_in_a_pipeline(tmp_path, mark, saved):
    places = np.arange(12)
    data = tf.data.Dataset.from_tensor_slices((join(X, mark, FEATURES), places))
    data = data.shuffle(12, seed=1)
    if saved:
        data.save(str(tmp_path / "data"))
        data = tf.data.Dataset.load(str(tmp_path / "data"))
    order = []
    for x, at in data.batch(5).prefetch(1).as_numpy_iterator():
        taught = split(x)
        assert taught.mark == mark
        np.testing.assert_array_equal(taught.inputs, X[at])
        assert_same(taught.features, {key: FEATURES[key][at] for key in FEATURES})
        order += list(at)
    assert sorted(order) == list(range(12))
    assert order != sorted(order)


def test_inputs_can_be_changed_on_the_way():
    """As `TeacherCache.attach` shows it."""
    data = tf.data.Dataset.from_tensor_slices(join(X, MARKS[0], FEATURES))
    data = data.map(lambda x: {**x, "inputs": -x["inputs"]}).batch(12)
    taught = split(next(iter(data)))
    np.testing.assert_array_equal(taught.inputs, -X)
    assert_same(taught.features, FEATURES)


@pytest.mark.parametrize(
    "x",
    [
        X,
        None,
        (X, X),
        [INPUTS, "teacher 0123"],
        {},
        {INPUTS: X},
        {INPUTS: X, "mask": X},
        {INPUTS: X, "teacher": X},
        {INPUTS: X, "teacher_features": X},
        {INPUTS: X, "teacher ": X},
        {INPUTS: X, "teacher forcing": X},
        {INPUTS: X, "teacher forcing": {"of": X}},
        {INPUTS: X, 0: X},
        {"image": X, f"teacher {TEACHER[:16]}": FEATURES},
        {f"teacher {TEACHER[:16]}": FEATURES},
        {INPUTS: X, "mask": X, f"teacher {TEACHER[:16]}": FEATURES},
        {INPUTS: X, f"teacher {TEACHER[:16]}": FEATURES, "mask": X},
    ],
    ids=lambda x: str(list(x)) if isinstance(x, dict) else type(x).__name__,
)
def test_what_users_call_their_inputs_is_theirs(x):
    assert split(x) is None
    assert inputs_of(x) is x


def test_the_inputs_alone():
    assert inputs_of(join(X, MARKS[0], FEATURES)) is X
    inside = join(X, MARKS[0], FEATURES)
    assert inputs_of(join(inside, MARKS[1], FEATURES)) is inside


def test_a_mark_knows_its_teacher():
    mark = Mark.of(TEACHER, "pca-2-00000000", True)
    assert mark.made_by(TEACHER)
    assert split(join(X, mark, FEATURES)).mark.made_by(TEACHER)
    assert not mark.made_by("fedcba98" * 8)
