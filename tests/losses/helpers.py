"""What the tests of the losses share."""

import numpy as np
import tensorflow as tf


def loss_and_gradient(loss, teacher, student):
    """The loss, and its gradient with respect to the student's features."""
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student)
    return value, tape.gradient(value, student)


def finite_differences(function, x):
    """The gradient of a function of float64 arrays, by central differences."""
    x = x.astype("float64")
    gradient = np.zeros_like(x)
    step = 1e-5
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(function(moved))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def check_against(oracle, loss, teacher, student, rtol=1e-5):
    """Value and gradient of a loss, both functions of the two sides' features."""
    expected = oracle(teacher, student)
    assert expected > 1e-5
    value, gradient = loss_and_gradient(loss, teacher, student)
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=rtol)

    expected = finite_differences(lambda moved: oracle(teacher, moved), student)
    largest = np.abs(expected).max()
    assert largest > 1e-6
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * largest)


def normal(shape, seed=0):
    """Random features, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")
