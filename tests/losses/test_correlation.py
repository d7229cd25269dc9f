import functools

import numpy as np
import pytest

from keras_lpd.losses import CorrelationCongruence, correlation_congruence_loss
from tests import oracles
from tests.losses.helpers import check_against, loss_and_gradient, normal


@pytest.mark.parametrize(
    "settings", [{}, {"width": 1.5}, {"order": 1}, {"width": 0.1, "order": 5}]
)
@pytest.mark.parametrize(
    ("teacher", "student"), [((8, 20), (8, 4)), ((4, 3, 2, 4), (4, 2, 2, 2))]
)
def test_value_and_gradient_equal_the_oracle(settings, teacher, student):
    check_against(
        functools.partial(oracles.correlation_congruence_loss, **settings),
        functools.partial(correlation_congruence_loss, **settings),
        normal(teacher),
        normal(student, seed=1),
    )


@pytest.mark.parametrize("width", [0.4, 1.0])
def test_a_long_expansion_is_the_gaussian_kernel(width):
    teacher, student = normal((8, 20)), normal((8, 4), seed=1)
    kernels = []
    for side in (teacher, student):
        directions = np.stack([oracles.unit(row) for row in side])
        squared = oracles.squared_distances(directions, directions)
        kernels.append(np.exp(-width * squared))
    np.testing.assert_allclose(
        correlation_congruence_loss(teacher, student, width=width, order=20),
        np.mean((kernels[0] - kernels[1]) ** 2),
        rtol=1e-5,
    )


def test_the_length_of_a_sample_does_not_matter():
    teacher, student = normal((8, 20)), normal((8, 4), seed=1)
    expected = correlation_congruence_loss(teacher, student)
    lengths = np.geomspace(0.01, 100, 8).astype("float32")[:, None]
    for sides in ((lengths, 1), (1, lengths)):
        scaled = (length * side for length, side in zip(sides, (teacher, student)))
        np.testing.assert_allclose(
            correlation_congruence_loss(*scaled), expected, rtol=1e-5
        )
    value, gradient = loss_and_gradient(
        correlation_congruence_loss, teacher, lengths * teacher
    )
    np.testing.assert_allclose(value, 0, atol=1e-9)
    np.testing.assert_allclose(lengths * gradient, 0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"width": 1.5}, {"order": 3}])
def test_class_and_function_agree(settings):
    teacher, student = normal((8, 20)), normal((8, 2, 2, 3), seed=1)
    value = correlation_congruence_loss(teacher, student, **settings)
    np.testing.assert_array_equal(
        CorrelationCongruence(**settings).compute_loss(teacher, student), value
    )
    if settings:
        assert value != correlation_congruence_loss(teacher, student)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "`width` must be a positive number. Received: .*0"),
        ({"width": -1.0}, "`width` must be a positive number"),
        ({"width": float("nan")}, "`width` must be a positive number"),
        ({"width": float("inf")}, "`width` must be a positive number"),
        ({"width": "auto"}, "`width` must be a positive number.*'auto'"),
        ({"width": True}, "`width` must be a positive number.*True"),
        ({"order": 0}, "`order` must be an integer of at least 1. .*order=0"),
        ({"order": 2.0}, "`order` must be an integer of at least 1. .*order=2.0"),
        ({"order": True}, "`order` must be an integer of at least 1. .*order=True"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CorrelationCongruence(**settings)
    with pytest.raises(ValueError, match=message):
        correlation_congruence_loss(normal((4, 3)), normal((4, 3)), **settings)
