import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.losses import (
    NeighborProbability,
    locality_preserving_loss,
    neighbor_probability_loss,
)
from tests import oracles
from tests.losses.helpers import check_against, normal


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_value_and_gradient_equal_the_oracle(k, temperature):
    settings = {"k": k, "temperature": temperature}
    check_against(
        functools.partial(oracles.neighbor_probability_loss, **settings),
        functools.partial(neighbor_probability_loss, **settings),
        normal((8, 20)),
        normal((8, 4), seed=1),
    )


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_value_and_gradient_of_maps_equal_the_oracle(pooling):
    settings = {"k": 2, "pooling": pooling}
    check_against(
        functools.partial(oracles.neighbor_probability_loss, **settings),
        functools.partial(neighbor_probability_loss, **settings),
        normal((6, 3, 2, 4)),
        normal((6, 2, 2, 2), seed=1),
    )


def test_loss_of_three_samples_by_hand():
    teacher = np.array([[0.0], [1.0], [3.0]])
    student = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    # The teacher's nearest: 1, 0 and 1. Cosines: 0, 1 and 0 at the last with the first.
    among = np.log(1 + np.e**2)
    expected = (np.log(2) + among + (among - 2)) / 3
    loss = neighbor_probability_loss(teacher, student, k=1, temperature=0.5)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_neighbors_that_are_all_duplicates_are_picked_alike():
    teacher = np.repeat(normal((2, 20)), 4, axis=0)
    student = normal((8, 4), seed=1)
    np.testing.assert_allclose(
        neighbor_probability_loss(teacher, student, k=3),
        oracles.neighbor_probability_loss(teacher, student, k=3),
        rtol=1e-5,
    )


def test_the_teachers_scale_and_the_students_lengths_do_not_matter():
    teacher, student = normal((8, 20)), normal((8, 4), seed=1)
    expected = neighbor_probability_loss(teacher, student, k=3)
    lengths = np.geomspace(0.01, 100, 8).astype("float32")[:, None]
    np.testing.assert_allclose(
        neighbor_probability_loss(teacher, lengths * student, k=3), expected, rtol=1e-4
    )
    for scale in (0.001, 1000.0):
        scaled = np.float32(scale) * teacher
        np.testing.assert_allclose(
            neighbor_probability_loss(scaled, student, k=3), expected, rtol=1e-4
        )


# What it is for: nothing but this loss moves free points in the plane


def spread(points):
    return np.sqrt(oracles.feature_variance(points))


def share_of_neighbors(teacher, points, k):
    """How many of the teacher's neighbours are neighbours by direction, too."""
    directions = np.stack([oracles.unit(point) for point in points])
    theirs = oracles.nearest_neighbors(teacher, k)[1]
    ours = oracles.nearest_neighbors(directions, k)[1]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(theirs, ours)])


def trained_alone(loss, teacher, start, steps=400, rate=2.0):
    points = tf.Variable(start)

    @tf.function
    def train():
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                value = loss(teacher, points, k=5)
            points.assign_sub(rate * tape.gradient(value, points))

    train()
    return points.numpy()


def test_it_does_not_collapse_where_the_locality_preserving_loss_does():
    teacher, start = normal((40, 3)), normal((40, 2), seed=1)
    collapsed = trained_alone(locality_preserving_loss, teacher, start)
    assert spread(collapsed) < 0.01 * spread(start)

    points = trained_alone(neighbor_probability_loss, teacher, start)
    assert np.isfinite(points).all()
    assert spread(points) > 0.7 * spread(start)
    directions = np.stack([oracles.unit(point) for point in points])
    assert spread(directions) > 0.5  # at most 1; of a single direction it were 0
    before = share_of_neighbors(teacher, start, k=5)
    assert share_of_neighbors(teacher, points, k=5) > 2 * before


# The class


@pytest.mark.parametrize(
    "settings", [{}, {"k": 2}, {"temperature": 0.5}, {"pooling": "max"}]
)
def test_class_and_function_agree(settings):
    teacher, student = normal((8, 3, 2, 4)), normal((8, 2, 2, 3), seed=1)
    value = neighbor_probability_loss(teacher, student, **settings)
    np.testing.assert_array_equal(
        NeighborProbability(**settings).compute_loss(teacher, student), value
    )
    if settings:
        assert value != neighbor_probability_loss(teacher, student)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "`k` must be an integer of at least 1. Received: k=0"),
        ({"k": 2.5}, "`k` must be an integer of at least 1. Received: k=2.5"),
        ({"temperature": 0}, "`temperature` must be a positive.*temperature=0"),
        ({"temperature": -1.0}, "`temperature` must be a positive number"),
        ({"temperature": float("nan")}, "`temperature` must be a positive number"),
        ({"temperature": float("inf")}, "`temperature` must be a positive number"),
        ({"temperature": True}, "`temperature` must be.*temperature=True"),
        ({"temperature": "low"}, "`temperature` must be.*temperature='low'"),
        ({"pooling": "min"}, "`pooling` must be None, 'avg' or 'max'.*'min'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NeighborProbability(**settings)
    with pytest.raises(ValueError, match=message):
        neighbor_probability_loss(normal((4, 3)), normal((4, 3)), **settings)
