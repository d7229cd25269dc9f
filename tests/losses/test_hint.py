import functools

import keras
import numpy as np
import pytest

from keras_lpd.losses import Hint, hint_loss
from tests import oracles
from tests.losses.helpers import check_against, loss_and_gradient, normal


def built(teacher_shape, student_shape, kind="auto"):
    """A hint with its regressor made, whose bias is not 0."""
    keras.utils.set_random_seed(0)
    loss = Hint(kind)
    loss.build((None, *teacher_shape), (None, *student_shape))
    loss.layer.bias.assign(normal(loss.layer.bias.shape))
    return loss


def oracle_of(loss, teacher, student):
    """The loss with the regressor written out."""
    kernel, bias = (np.asarray(weights) for weights in loss.layer.weights)
    if kernel.ndim == 2:
        regressed = oracles.as_vectors(student) @ kernel + bias
        return oracles.hint_loss(oracles.as_vectors(teacher), regressed)
    padded = teacher.shape[1:3] == student.shape[1:3]
    regressed = oracles.convolution(student, kernel, bias, padded)
    return oracles.hint_loss(teacher, regressed)


@pytest.mark.parametrize("shape", [(6, 5), (1, 5), (3, 2, 2, 4)])
def test_value_and_gradient_equal_the_oracle(shape):
    teacher, regressed = normal(shape), normal(shape, seed=1)
    check_against(oracles.hint_loss, hint_loss, teacher, regressed)


def test_loss_by_hand():
    assert hint_loss([[1.0, 2.0]], [[4.0, -2.0]]) == (3**2 + 4**2) / 2


# teacher, student, kind, the kernel's shape
REGRESSORS = [
    ((9,), (4,), "auto", (4, 9)),
    ((9,), (4,), "dense", (4, 9)),
    ((9,), (3, 3, 2), "auto", (18, 9)),
    ((2, 2, 3), (5,), "auto", (5, 12)),
    ((2, 2, 3), (3, 3, 2), "dense", (18, 12)),
    ((2, 3, 4), (4, 3, 2), "auto", (3, 1, 2, 4)),
    ((2, 3, 4), (4, 4, 2), "convolutional", (3, 2, 2, 4)),
    ((1, 1, 4), (3, 3, 2), "auto", (3, 3, 2, 4)),
    ((3, 3, 4), (3, 3, 2), "auto", (3, 3, 2, 4)),
]


@pytest.mark.parametrize(("teacher", "student", "kind", "kernel"), REGRESSORS)
def test_the_regressor_fits_the_features(teacher, student, kind, kernel):
    loss = built(teacher, student, kind)
    assert loss.layers == [loss.layer]
    assert [tuple(weights.shape) for weights in loss.layer.weights] == [
        kernel,
        kernel[-1:],
    ]
    assert len(loss.layer.trainable_weights) == 2
    teacher, student = normal((3, *teacher)), normal((3, *student), seed=1)
    check_against(
        functools.partial(oracle_of, loss), loss.compute_loss, teacher, student
    )


def test_class_and_function_agree():
    loss = built((9,), (4,))
    teacher, student = normal((6, 9)), normal((6, 4), seed=1)
    np.testing.assert_array_equal(
        loss.compute_loss(teacher, student), hint_loss(teacher, loss.layer(student))
    )


def test_a_perfect_guess_costs_nothing():
    loss = built((4,), (4,))
    student = normal((6, 4))
    teacher = np.asarray(loss.layer(student))
    value, gradient = loss_and_gradient(loss.compute_loss, teacher, student)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, np.zeros((6, 4)))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`regressor` must be 'auto'.*'linear'"):
        Hint("linear")


@pytest.mark.parametrize(
    ("teacher", "student", "kind"),
    [
        ((4, 4, 3), (3, 4, 3), "auto"),
        ((4, 4, 3), (4, 3, 3), "convolutional"),
        ((4, 4, 3), (5,), "convolutional"),
        ((9,), (5,), "convolutional"),
    ],
)
def test_maps_that_no_convolution_fits_are_refused(teacher, student, kind):
    with pytest.raises(ValueError, match=r"no larger.*Hint\(regressor='dense'\)"):
        built(teacher, student, kind)


@pytest.mark.parametrize("unknown", ["teacher", "student"])
def test_sizes_must_be_known(unknown):
    shapes = {"teacher": (4, 4, 3), "student": (4, 4, 3), unknown: (None, 4, 3)}
    with pytest.raises(ValueError, match="'hint' needs to know all sizes"):
        built(shapes["teacher"], shapes["student"])


def test_a_regressor_is_made_once():
    loss = built((9,), (4,))
    layer = loss.layer
    loss.build((32, 9), (32, 4))  # the batch is no matter
    assert loss.layer is layer
    with pytest.raises(ValueError, match=r"made for a teacher's.*\(9,\).*\(8,\)"):
        loss.build((None, 8), (None, 4))
    assert loss.layer is layer


def test_without_a_regressor_there_is_no_loss():
    loss = Hint()
    assert loss.layers == []
    with pytest.raises(ValueError, match=r"not made yet.*loss\.build"):
        loss.compute_loss(normal((6, 9)), normal((6, 4)))


@pytest.mark.parametrize(("teacher", "student", "kind", "kernel"), REGRESSORS[::4])
def test_a_built_hint_comes_back_built(teacher, student, kind, kernel):
    loss = built(teacher, student, kind)
    serialized = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(serialized)
    assert tuple(again.layer.kernel.shape) == kernel
    again.layer.set_weights(loss.layer.get_weights())
    teacher, student = normal((3, *teacher)), normal((3, *student), seed=1)
    np.testing.assert_array_equal(
        again.compute_loss(teacher, student), loss.compute_loss(teacher, student)
    )


@pytest.mark.usefixtures("channels_first")
def test_channels_may_come_first():
    """TensorFlow convolves them on accelerators alone; the regressor is made so."""
    loss = built((5, 2, 3), (2, 4, 3))
    assert tuple(loss.layer.kernel.shape) == (3, 1, 2, 5)
