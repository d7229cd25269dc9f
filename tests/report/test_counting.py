"""How many multiplications there are in a graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_lpd.report import multiplications


def test_multiplications_of_a_model():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same"),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(5),
        ]
    )
    convolution, depthwise, dense = 64 * 9 * 3 * 4, 16 * 9 * 4, 64 * 5
    counted = multiplications(model, (2, 8, 8, 3))
    assert counted == [2 * (convolution + depthwise + dense)]


def test_multiplications_by_input():
    def function(x, y):
        return keras.ops.einsum("ab,cb->ac", x * x, y), keras.ops.transpose(x) @ x

    assert multiplications(function, (2, 3), (5, 3)) == [6 + 3 * 2 * 3, 2 * 3 * 5]


def test_multiplications_that_cannot_be_counted():
    def loop(x):
        return keras.ops.while_loop(lambda x: x[0] < 1, lambda x: (x * x,), (x,))

    with pytest.raises(ValueError, match="can't be counted"):
        multiplications(loop, (3,))
    with pytest.raises(ValueError, match="not all known"):
        multiplications(lambda x: x * x, (None, 3))


def einsum(equation):
    return lambda *tensors: tf.einsum(equation, *tensors)


@pytest.mark.parametrize(
    "equation, shapes, expected",
    [
        ("ij,jk->ik", [(4, 5), (5, 6)], 4 * 5 * 6),
        ("...ij,jk->...ik", [(2, 3, 4, 5), (5, 6)], 2 * 3 * 4 * 5 * 6),
        ("i...j,j...k->i...k", [(4, 2, 3, 5), (5, 3, 6)], 4 * 2 * 3 * 5 * 6),
        # A size of 1 is repeated.
        ("...ij,...jk->...ik", [(2, 1, 4, 5), (3, 5, 6)], 2 * 3 * 4 * 5 * 6),
        ("...ij,...jk->...ik", [(4, 5), (7, 5, 6)], 7 * 4 * 5 * 6),
        ("ij->ji", [(4, 5)], 0),
    ],
)
def test_einsum(equation, shapes, expected):
    assert sum(multiplications(einsum(equation), *shapes)) == expected


@pytest.mark.parametrize("transposed", [False, True])
def test_batches_of_matrices(transposed):
    """Of both versions of the operation: the newer one gives other dtypes."""

    def newer(x, y):
        return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_x=transposed)

    def older(x, y):
        return tf.matmul(x, y, transpose_a=transposed)

    shape = (2, 5, 3) if transposed else (2, 3, 5)
    for function in (newer, older):
        assert multiplications(function, shape, (2, 5, 7)) == [0, 2 * 3 * 5 * 7]


@pytest.mark.parametrize(
    "shape, layer, expected",
    [
        # Each input goes into all of the kernel.
        ((4, 4, 2), layers.Conv2DTranspose(3, 2, strides=2), 4 * 4 * 2 * 3 * 4),
        ((3, 3, 3, 2), layers.Conv3DTranspose(4, 2), 27 * 2 * 4 * 8),
        ((5, 2), layers.Conv1DTranspose(3, 2), 5 * 2 * 3 * 2),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_transposed_convolutions(shape, layer, expected):
    model = keras.Sequential([keras.Input(shape), layer])
    layer.bias.assign(np.zeros(layer.bias.shape))
    assert multiplications(model, (2, *shape)) == [2 * expected]


def test_gradients_of_kernels_cannot_be_counted():
    kernel = tf.ones((2, 2, 3, 4))

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.nn.conv2d(x, kernel, 1, "VALID")
        return tape.gradient(y, kernel)

    with pytest.raises(ValueError, match="Conv2DBackpropFilter.*can't be counted"):
        multiplications(gradient, (1, 5, 5, 3))


def test_products_of_sparse_matrices_cannot_be_counted():
    sparse = tf.sparse.from_dense([[0.0, 1.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match="SparseTensorDenseMatMul.*Known are MatMul"):
        multiplications(lambda x: tf.sparse.sparse_dense_matmul(sparse, x), (2, 3))
