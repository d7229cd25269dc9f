import numpy as np
import pytest

from keras_lpd.losses import ProbabilisticTransfer, probabilistic_transfer_loss
from tests import oracles
from tests.losses.helpers import check_against, loss_and_gradient, normal


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ((8, 20), (8, 4)),
        ((3, 2), (3, 5)),
        ((6, 3, 2, 4), (6, 3)),
        ((5, 7), (5, 2, 2, 2)),
    ],
)
def test_value_and_gradient_equal_the_oracle(teacher, student):
    check_against(
        oracles.probabilistic_transfer_loss,
        probabilistic_transfer_loss,
        normal(teacher),
        normal(student, seed=1),
        rtol=1e-4,
    )


def test_loss_of_three_samples_by_hand():
    teacher = np.eye(3)  # cosines 0: each of the others at a half
    student = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    # Kernel of the student: 1 between the first two, 1/2 to the third.
    first = 0.5 * np.log(0.5 / (2 / 3)) + 0.5 * np.log(0.5 / (1 / 3))
    np.testing.assert_allclose(
        probabilistic_transfer_loss(teacher, student), 2 * first / 9, rtol=1e-5
    )


def test_a_sample_that_is_picked_by_none_costs_much_but_not_infinitely():
    teacher = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]])
    student = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.1]], "float32")
    value, gradient = loss_and_gradient(probabilistic_transfer_loss, teacher, student)
    assert 1 < value < 10
    assert np.isfinite(gradient).all()


def test_two_samples_can_only_pick_each_other():
    value, gradient = loss_and_gradient(
        probabilistic_transfer_loss, normal((2, 5)), normal((2, 3), seed=1)
    )
    np.testing.assert_allclose(value, 0, atol=1e-9)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_the_length_of_a_sample_does_not_matter():
    teacher, student = normal((8, 20)), normal((8, 4), seed=1)
    expected = probabilistic_transfer_loss(teacher, student)
    lengths = np.geomspace(0.01, 100, 8).astype("float32")[:, None]
    for sides in ((lengths, 1), (1, lengths)):
        scaled = (length * side for length, side in zip(sides, (teacher, student)))
        np.testing.assert_allclose(
            probabilistic_transfer_loss(*scaled), expected, rtol=1e-4
        )
    value, gradient = loss_and_gradient(
        probabilistic_transfer_loss, teacher, lengths * teacher
    )
    np.testing.assert_allclose(value, 0, atol=1e-8)
    np.testing.assert_allclose(lengths * gradient, 0, atol=1e-6)


def test_class_and_function_agree():
    teacher, student = normal((8, 20)), normal((8, 2, 2, 3), seed=1)
    np.testing.assert_array_equal(
        ProbabilisticTransfer().compute_loss(teacher, student),
        probabilistic_transfer_loss(teacher, student),
    )
