import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.losses import AttentionTransfer, attention_transfer_loss
from tests import oracles
from tests.losses.helpers import check_against, normal

# Height and width of the teacher's maps and of the student's.
SIZES = {
    "equal": ((4, 4), (4, 4)),
    "a multiple": ((6, 6), (3, 3)),
    "the student's are a multiple": ((2, 3), (4, 6)),
    "not divisible": ((7, 7), (4, 4)),
    "the student's not divisible": ((3, 4), (5, 7)),
    "one larger in height, one in width": ((5, 2), (3, 4)),
    "a single place in height": ((1, 4), (5, 3)),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_value_and_gradient_equal_the_oracle(sizes):
    teacher, student = normal((3, *sizes[0], 5)), normal((3, *sizes[1], 2), seed=1)
    check_against(
        oracles.attention_transfer_loss, attention_transfer_loss, teacher, student
    )


def test_loss_by_hand():
    """The teacher looks at the left half alone, the student at the right."""
    teacher = np.zeros((1, 2, 4, 3))
    teacher[:, :, :2] = 5.0
    student = np.zeros((1, 2, 2, 1))
    student[:, :, 1] = -0.3
    # Both attentions have two places of 1 / sqrt(2), not one of them in common.
    np.testing.assert_allclose(
        attention_transfer_loss(teacher, student), 4 * (1 / 2) / 4, rtol=1e-6
    )


def test_equal_maps_cost_nothing_whatever_their_channels():
    maps = normal((5, 4, 4, 3))
    twice = np.concatenate([maps, -maps], axis=3)
    np.testing.assert_allclose(attention_transfer_loss(maps, twice), 0, atol=1e-9)
    doubled = maps.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(attention_transfer_loss(maps, doubled), 0, atol=1e-9)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_strength_of_a_map_does_not_matter(scale):
    teacher, student = normal((5, 4, 4, 3)), normal((5, 4, 4, 3), seed=1)
    expected = attention_transfer_loss(teacher, student)
    teacher[2] *= np.float32(scale)
    student[3] *= np.float32(scale)
    np.testing.assert_allclose(
        attention_transfer_loss(teacher, student), expected, rtol=1e-5
    )


@pytest.mark.usefixtures("channels_first")
def test_channels_may_come_first():
    teacher, student = normal((3, 7, 5, 4)), normal((3, 4, 5, 2), seed=1)
    expected = oracles.attention_transfer_loss(teacher, student)
    first = [np.moveaxis(side, 3, 1) for side in (teacher, student)]
    np.testing.assert_allclose(attention_transfer_loss(*first), expected, rtol=1e-5)


def test_class_and_function_agree():
    teacher, student = normal((5, 7, 7, 3)), normal((5, 4, 4, 2), seed=1)
    np.testing.assert_array_equal(
        AttentionTransfer().compute_loss(teacher, student),
        attention_transfer_loss(teacher, student),
    )


@pytest.mark.parametrize("shape", [(5, 12), (5, 4, 3), (5, 2, 2, 2, 3)])
@pytest.mark.parametrize("side", [0, 1])
def test_features_that_are_no_maps_are_refused(shape, side):
    sides = [normal((5, 4, 4, 3)), normal((5, 4, 4, 3))]
    sides[side] = normal(shape)
    with pytest.raises(ValueError, match="compares feature maps.*Name convolutional"):
        attention_transfer_loss(*sides)


def test_sizes_must_be_known():
    @tf.function(input_signature=[tf.TensorSpec([None, None, 4, 3])])
    def loss(maps):
        return attention_transfer_loss(maps, maps)

    with pytest.raises(ValueError, match="known height and width.*fixed size"):
        loss(normal((5, 4, 4, 3)))
