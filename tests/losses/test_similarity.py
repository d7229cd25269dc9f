import numpy as np
import pytest

from keras_lpd.losses import SimilarityPreserving, similarity_preserving_loss
from tests import oracles
from tests.losses.helpers import check_against, loss_and_gradient, normal


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ((8, 20), (8, 4)),
        ((2, 3), (2, 5)),
        ((6, 3, 2, 4), (6, 3)),
        ((5, 7), (5, 2, 2, 2)),
    ],
)
def test_value_and_gradient_equal_the_oracle(teacher, student):
    check_against(
        oracles.similarity_preserving_loss,
        similarity_preserving_loss,
        normal(teacher),
        normal(student, seed=1),
    )


def test_loss_of_two_samples_by_hand():
    teacher = np.array([[1.0, 0.0], [0.0, 2.0]])  # nothing in common
    student = np.array([[3.0, 0.0], [4.0, 0.0]])  # rows (9, 12) and (12, 16)
    expected = 2 * ((1 - 0.6) ** 2 + 0.8**2 + 0.6**2 + (1 - 0.8) ** 2) / 2 / 4
    np.testing.assert_allclose(
        similarity_preserving_loss(teacher, student), expected, rtol=1e-6
    )


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_equal_features_cost_nothing_at_any_scale(scale):
    features = normal((8, 5))
    value, gradient = loss_and_gradient(
        similarity_preserving_loss, features, np.float32(scale) * features
    )
    np.testing.assert_allclose(value, 0, atol=1e-9)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_scale_of_either_side_does_not_matter(scale):
    teacher, student = normal((8, 20)), normal((8, 4), seed=1)
    expected = similarity_preserving_loss(teacher, student)
    for sides in ((scale, 1), (1, scale)):
        scaled = (np.float32(s) * f for s, f in zip(sides, (teacher, student)))
        np.testing.assert_allclose(
            similarity_preserving_loss(*scaled), expected, rtol=1e-5
        )


def test_class_and_function_agree():
    teacher, student = normal((8, 20)), normal((8, 2, 2, 3), seed=1)
    np.testing.assert_array_equal(
        SimilarityPreserving().compute_loss(teacher, student),
        similarity_preserving_loss(teacher, student),
    )
