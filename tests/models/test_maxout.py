import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.models import Maxout


def slow_maxout(x, pieces):
    """Unit by unit, over the last axis."""
    units = x.shape[-1] // pieces
    result = np.empty((*x.shape[:-1], units), x.dtype)
    for unit in range(units):
        group = [x[..., unit + piece * units] for piece in range(pieces)]
        result[..., unit] = np.max(group, axis=0)
    return result


# Values


@pytest.mark.parametrize(
    "shape", [(5, 12), (5, 7, 12), (5, 3, 4, 12), (2, 3, 2, 2, 12)]
)
@pytest.mark.parametrize("pieces", [2, 3, 12])
def test_it_equals_the_loop(rng, pieces, shape):
    x = rng.normal(size=shape).astype("float32")
    layer = Maxout(pieces)
    result = layer(x)
    np.testing.assert_array_equal(result, slow_maxout(x, pieces))
    assert layer.compute_output_shape(shape) == tuple(result.shape)
    assert layer.weights == []


def test_channels_first_takes_the_second_axis_of_maps(rng, channels_first):
    x = rng.normal(size=(5, 6, 4, 3)).astype("float32")
    layer = Maxout(2)
    expected = np.moveaxis(slow_maxout(np.moveaxis(x, 1, -1), 2), -1, 1)
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.compute_output_shape((None, 6, None, 3)) == (None, 3, None, 3)


def test_channels_first_takes_the_last_axis_of_vectors(rng, channels_first):
    x = rng.normal(size=(5, 6)).astype("float32")
    np.testing.assert_array_equal(Maxout(2)(x), slow_maxout(x, 2))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_sizes_may_be_unknown(rng, jit_compile):
    layer = Maxout(2)
    traced = tf.function(
        layer.call,
        input_signature=[tf.TensorSpec([None, None, None, 6])],
        jit_compile=jit_compile,
    )
    for shape in [(3, 4, 5, 6), (2, 1, 7, 6)]:
        x = rng.normal(size=shape).astype("float32")
        np.testing.assert_array_equal(traced(x), slow_maxout(x, 2))
    assert layer(keras.Input((None, None, 6))).shape == (None, None, None, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_it_keeps_the_dtype_of_its_policy(rng, dtype):
    numpy_dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    x = rng.normal(size=(5, 6)).astype(numpy_dtype)
    result = Maxout(2, dtype=dtype)(x)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    np.testing.assert_array_equal(result, slow_maxout(x, 2))


# Gradients


def test_the_gradient_goes_to_the_largest_of_each_group():
    x = tf.constant([[1.0, 5.0, -2.0, -3.0], [4.0, 0.0, 7.0, 8.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = tf.reduce_sum(Maxout(2)(x) * [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(
        tape.gradient(result, x), [[1, 2, 0, 0], [0, 0, 3, 4]]
    )


# Refusals and configuration


@pytest.mark.parametrize("pieces", [1, 0, -2, 2.0, True, "2", None])
def test_pieces_out_of_range_are_refused(pieces):
    with pytest.raises(ValueError, match="`pieces` must be an integer of at least 2"):
        Maxout(pieces)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 7), "'units' needs a known number.*3 pieces.*Received: 7 channels"),
        ((None, 6, 6, 8), "multiple of its 3 pieces.*Received: 8 channels"),
        ((None, None), "a known number of channels.*Received: None channels"),
        ((6,), "needs a batch axis and channels"),
    ],
)
def test_channels_that_make_no_groups_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        Maxout(3, name="units").build(shape)


def test_a_model_refuses_them_as_it_is_built():
    with pytest.raises(ValueError, match="multiple of its 3 pieces"):
        keras.Sequential([keras.Input((7,)), Maxout(3)])


def test_serialization_round_trip(rng):
    layer = Maxout(np.int64(3), name="units")
    serialized = keras.saving.serialize_keras_object(layer)
    assert serialized["registered_name"] == "keras_lpd>Maxout"
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is Maxout
    assert (again.pieces, again.name) == (3, "units")
    assert again.get_config() == layer.get_config()
    x = rng.normal(size=(5, 6)).astype("float32")
    np.testing.assert_array_equal(again(x), layer(x))
