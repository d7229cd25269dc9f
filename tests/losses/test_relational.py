import functools

import numpy as np
import pytest

from keras_lpd.losses import (
    RelationalKnowledge,
    relational_angle_loss,
    relational_distance_loss,
)
from tests import oracles
from tests.losses.helpers import check_against, loss_and_gradient, normal

LOSSES = {
    "distances": (relational_distance_loss, oracles.relational_distance_loss),
    "angles": (relational_angle_loss, oracles.relational_angle_loss),
}
both = pytest.mark.parametrize(("loss", "oracle"), LOSSES.values(), ids=LOSSES)


@both
@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ((7, 20), (7, 3)),
        ((3, 2), (3, 5)),
        ((5, 3, 2, 4), (5, 3)),
        ((5, 7), (5, 2, 2, 1)),
    ],
)
def test_value_and_gradient_equal_the_oracle(loss, oracle, teacher, student):
    check_against(oracle, loss, normal(teacher), normal(student, seed=1))


@both
def test_value_and_gradient_of_great_differences(loss, oracle):
    """So that beyond 1 the Huber loss goes on straight."""
    teacher, student = normal((6, 2)), normal((6, 3), seed=1)
    teacher[0] += 30
    student[1] -= 20
    check_against(oracle, loss, teacher, student)


def test_distances_by_hand():
    # In units of their means, 4 and 1: 3/4, 5/4 and 1; and 1 each.
    teacher = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    student = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    expected = 2 * (2 * 0.5 * 0.25**2) / 9
    np.testing.assert_allclose(
        relational_distance_loss(teacher, student), expected, rtol=1e-5
    )


def test_angles_by_hand():
    """Three points in a row, of which the student has another one in the middle."""
    teacher = np.array([[0.0], [1.0], [2.0]])
    student = np.array([[1.0], [0.0], [2.0]])
    # Cosines at the three: 1, -1, 1 and -1, 1, 1; each of two triples (i, j, k).
    expected = 2 * 2 * (2 - 0.5) / 27
    np.testing.assert_allclose(
        relational_angle_loss(teacher, student), expected, rtol=1e-5
    )


@both
@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_equal_features_cost_nothing_moved_or_scaled(loss, oracle, scale):
    features = normal((8, 5))
    value, gradient = loss_and_gradient(
        loss, features, np.float32(scale) * (features + 3)
    )
    np.testing.assert_allclose(value, 0, atol=1e-9)
    np.testing.assert_allclose(np.float32(scale) * gradient, 0, atol=1e-4)


@both
@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_where_features_lie_and_their_scale_do_not_matter(loss, oracle, scale):
    teacher, student = normal((8, 20)), normal((8, 4), seed=1)
    expected = loss(teacher, student)
    np.testing.assert_allclose(
        loss(np.float32(scale) * (teacher - 5), student), expected, rtol=1e-4
    )
    np.testing.assert_allclose(
        loss(teacher, np.float32(scale) * (student + 5)), expected, rtol=1e-4
    )


@both
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_duplicates_are_at_distance_0_and_have_no_angle(loss, oracle, side):
    teacher, student = normal((7, 20)), normal((7, 3), seed=1)
    changed = teacher if side == "teacher" else student
    changed[4:6] = changed[2]
    expected = oracle(teacher, student)
    value, gradient = loss_and_gradient(loss, teacher, student)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() < 10


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"distance_weight": 2.0, "angle_weight": 3.0},
        {"distance_weight": 0},
        {"angle_weight": 0},
    ],
)
def test_the_class_adds_both_up(weights):
    teacher, student = normal((7, 20)), normal((7, 3), seed=1)
    loss = RelationalKnowledge(**weights)
    oracle = functools.partial(oracles.relational_loss, **weights)
    np.testing.assert_allclose(
        loss.compute_loss(teacher, student), oracle(teacher, student), rtol=1e-5
    )
    expected = sum(
        weight * function(teacher, student)
        for weight, function in (
            (loss.distance_weight, relational_distance_loss),
            (loss.angle_weight, relational_angle_loss),
        )
    )
    np.testing.assert_allclose(loss.compute_loss(teacher, student), expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), True, "25"])
@pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
def test_weights_out_of_range_are_refused(name, weight):
    with pytest.raises(ValueError, match=f"at least 0. Received.*{name}={weight!r}"):
        RelationalKnowledge(**{name: weight})


def test_two_weights_of_0_are_refused():
    with pytest.raises(ValueError, match="both 0: nothing is left"):
        RelationalKnowledge(distance_weight=0, angle_weight=0.0)
