import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_lpd.report.macs import graph_of, macs


def counted(model, *shape, dtype="float32"):
    return macs(graph_of(model, np.zeros((1, *shape), dtype)))


def sequential(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


def test_a_small_cnn_by_hand():
    model = sequential(
        (8, 8, 3),
        layers.Conv2D(4, 3, padding="same", activation="relu"),  # 8x8x4, each of 3x3x3
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3),  # 6x6x4, each of 3x3
        layers.MaxPooling2D(2),
        layers.SeparableConv2D(5, 2),  # 2x2x4, each of 2x2; 2x2x5, each of 4
        layers.Conv2D(6, 1, strides=2),  # 1x1x6, each of 5
        layers.GlobalAveragePooling2D(),
        layers.Dense(7, activation="gelu"),
        layers.Dense(2, activation="softmax"),
    )
    assert counted(model, 8, 8, 3) == (
        8 * 8 * 4 * 27 + 6 * 6 * 4 * 9 + 2 * 2 * 4 * 4 + 2 * 2 * 5 * 4 + 6 * 5
    ) + (6 * 7 + 7 * 2)


@pytest.mark.parametrize(
    "shape, layer, products",
    [
        # In two groups an output is of half the channels.
        ((4, 4, 6), layers.Conv2D(8, 3, groups=2), 2 * 2 * 8 * 9 * 3),
        ((5, 3), layers.Conv1D(4, 2), 4 * 4 * 2 * 3),
        ((3, 3, 3, 2), layers.Conv3D(4, 2), 8 * 4 * 8 * 2),
        # Each input goes into all of the kernel.
        ((4, 4, 2), layers.Conv2DTranspose(3, 2, strides=2), 4 * 4 * 2 * 3 * 2 * 2),
        ((3, 3, 3, 2), layers.Conv3DTranspose(4, 2), 27 * 2 * 4 * 8),
        ((5, 3), layers.Dense(4), 5 * 3 * 4),
        ((4,), layers.Embedding(10, 3), 0),
        ((5, 3), layers.LSTM(2, unroll=True), 5 * (3 + 2) * 2 * 4),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_by_hand(shape, layer, products):
    assert counted(sequential(shape, layer), *shape) == products


def test_attention_by_hand():
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))
    projections = 4 * 5 * 6 * 8  # queries, keys, values, outputs
    assert counted(model, 5, 6) == projections + 2 * (2 * 5 * 5 * 4)


def test_products_with_the_first_matrix_transposed():
    graph = tf.function(lambda x: tf.matmul(x, x, transpose_a=True))
    spec = tf.TensorSpec((2, 3, 5))
    assert macs(graph.get_concrete_function(spec).graph) == 2 * 5 * 5 * 3


def test_products_of_the_newer_operation():
    for transposed, shape in ((False, (2, 3, 5)), (True, (2, 5, 3))):
        graph = tf.function(
            lambda x, y, flag=transposed: tf.raw_ops.BatchMatMulV3(
                x=x, y=y, Tout=tf.float32, adj_x=flag
            )
        )
        specs = tf.TensorSpec(shape), tf.TensorSpec((2, 5, 7))
        assert macs(graph.get_concrete_function(*specs).graph) == 2 * 3 * 5 * 7


def test_dots_in_an_einsum():
    class Dots(layers.Layer):
        def call(self, x):
            return tf.einsum("...ij,jk->...ik", x, tf.ones((5, 6)))

    assert counted(sequential((2, 4, 5), Dots()), 2, 4, 5) == 2 * 4 * 5 * 6


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="While"):
        counted(sequential((5, 3), layers.LSTM(2)), 5, 3)


def test_functions_run_as_before():
    model = sequential((4,), layers.Dense(2))
    for eagerly in (False, True):
        tf.config.run_functions_eagerly(eagerly)
        try:
            graph_of(model, np.zeros((1, 4), "float32"))
            assert tf.config.functions_run_eagerly() is eagerly
        finally:
            tf.config.run_functions_eagerly(False)
