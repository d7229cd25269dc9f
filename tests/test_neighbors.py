import pathlib
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_lpd.neighbors import (
    as_vectors,
    feature_variance,
    heat_kernel,
    nearest_neighbors,
    pairwise_squared_distances,
)
from tests import oracles

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
    "int32": np.int32,
    "uint8": np.uint8,
}


def some_rows(rng, dtype, shape=(17, 9)):
    """Numbers between 0 and 10, rounded as the type has it."""
    return rng.uniform(0, 10, shape).astype(DTYPES[dtype])


def assert_float32(tensor):
    assert keras.backend.standardize_dtype(tensor.dtype) == "float32"


def tight_clusters(rng):
    """Four clusters, each 32 times narrower than they are far apart, and more."""
    centers = np.repeat(rng.normal(size=(4, 64)) * 100, 8, axis=0)
    return (centers + rng.normal(size=(32, 64)) * 0.01).astype("float32")


# pairwise_squared_distances


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_equal_the_oracle(rng, dtype, as_tensor):
    x = some_rows(rng, dtype)
    given = ops.convert_to_tensor(x) if as_tensor else x

    squared = pairwise_squared_distances(given)

    assert_float32(squared)
    np.testing.assert_allclose(
        squared, oracles.squared_distances(x, x), rtol=1e-5, atol=2e-4
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_between_two_sets_equal_the_oracle(rng, dtype):
    x, y = some_rows(rng, dtype), some_rows(rng, dtype, (5, 9))

    squared = pairwise_squared_distances(x, y)

    assert_float32(squared)
    np.testing.assert_allclose(
        squared, oracles.squared_distances(x, y), rtol=1e-5, atol=2e-4
    )


def test_distances_take_plain_lists():
    squared = pairwise_squared_distances([[0, 0], [3, 4]], [[0, 0]])
    np.testing.assert_allclose(squared, [[0], [25]], atol=1e-6)


def test_bfloat16_features_do_not_spoil_the_distances(rng):
    """The expanded square gives 8.0 for a true 0.0005 in bfloat16."""
    x = rng.uniform(1, 2, (32, 700)).astype(ml_dtypes.bfloat16)
    x[1::2] = x[::2]
    x[1::2, :8] += ml_dtypes.bfloat16(2.0**-7)  # the last bit of numbers in [1, 2)
    pairs = (np.arange(0, 32, 2), np.arange(1, 32, 2))
    expected = oracles.squared_distances(x, x)
    np.testing.assert_allclose(expected[pairs], 0.0005, atol=0.0001)

    one, other = tf.constant(x[::2]), tf.constant(x[1::2])
    expanded = (
        tf.reduce_sum(one * one, axis=1)
        - 2 * tf.reduce_sum(one * other, axis=1)
        + tf.reduce_sum(other * other, axis=1)
    )
    assert max(abs(float(value)) for value in expanded) >= 8

    squared = np.asarray(pairwise_squared_distances(x))
    np.testing.assert_allclose(squared[pairs], expected[pairs], atol=5e-4)
    np.testing.assert_allclose(squared, expected, rtol=1e-5, atol=5e-4)


def test_distances_far_from_the_origin_are_as_accurate(rng):
    x = (rng.normal(size=(17, 9)) + 1000).astype("float32")
    y = (rng.normal(size=(5, 9)) + 1000).astype("float32")
    for one, other in ((x, None), (x, y)):
        expected = oracles.squared_distances(one, one if other is None else other)
        squared = pairwise_squared_distances(one, other)
        np.testing.assert_allclose(squared, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_distances_are_never_negative(rng, dtype):
    rows = (rng.normal(size=(40, 64)) * 30).astype(DTYPES[dtype])
    x = np.repeat(rows, 3, axis=0)
    wide = x.astype("float32")
    lengths = np.sum(wide**2, axis=1)
    assert (lengths[:, None] - 2 * wide @ wide.T + lengths).min() < 0  # a hard case

    assert ops.min(pairwise_squared_distances(x)) >= 0
    assert ops.min(pairwise_squared_distances(x, x[::2])) >= 0


# nearest_neighbors


@pytest.mark.parametrize("k", [1, 5, 16, 17, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbors_equal_the_oracle(rng, dtype, k):
    x = some_rows(rng, dtype)
    expected, _ = oracles.nearest_neighbors(x, k)
    true = oracles.squared_distances(x, x)

    squared, indices = nearest_neighbors(x, k)

    assert_float32(squared)
    assert keras.backend.standardize_dtype(indices.dtype) == "int32"
    np.testing.assert_allclose(squared, expected, rtol=1e-5, atol=2e-4)
    # Integers have ties, so it is the distances that must agree.
    chosen = np.take_along_axis(true, np.asarray(indices), axis=1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=2e-4)


def test_neighbors_have_the_indices_of_the_oracle(rng):
    x = some_rows(rng, "float32")
    _, expected = oracles.nearest_neighbors(x, 5)
    _, indices = nearest_neighbors(x, 5)
    np.testing.assert_array_equal(indices, expected)


def test_neighbors_come_nearest_first_and_once_each(rng):
    squared, indices = nearest_neighbors(some_rows(rng, "float32", (30, 4)), 12)
    assert np.all(np.diff(squared, axis=1) >= 0)
    for i, row in enumerate(np.asarray(indices)):
        assert len({*row}) == 12
        assert i not in row


def test_k_shrinks_to_the_batch(rng):
    squared, indices = nearest_neighbors(some_rows(rng, "float32", (4, 9)), 5)
    assert squared.shape == indices.shape == (4, 3)


def test_a_batch_of_one_has_no_neighbors(rng):
    squared, indices = nearest_neighbors(some_rows(rng, "float32", (1, 9)), 5)
    assert squared.shape == indices.shape == (1, 0)


def test_a_duplicate_is_the_nearest_neighbor_with_weight_one(rng):
    x = rng.normal(size=(32, 64)).astype("float32")
    x[7] = x[5]

    squared, indices = nearest_neighbors(x, 5)
    weights = heat_kernel(squared)

    assert indices[5, 0] == 7
    assert indices[7, 0] == 5
    np.testing.assert_allclose([squared[5, 0], squared[7, 0]], 0, atol=1e-4)
    np.testing.assert_allclose([weights[5, 0], weights[7, 0]], 1, atol=1e-5)


@pytest.mark.parametrize("width", [3, 64, 500])
def test_where_all_neighbors_are_duplicates_all_weights_are_one(rng, width):
    groups = rng.uniform(size=(4, width)).astype("float32")
    squared, indices = nearest_neighbors(np.repeat(groups, 8, axis=0), 5)

    assert np.all(np.asarray(indices) // 8 == np.arange(32)[:, None] // 8)
    np.testing.assert_allclose(heat_kernel(squared), np.ones((32, 5)), rtol=1e-5)
    np.testing.assert_array_equal(squared, np.zeros((32, 5)))


def test_distances_to_neighbors_are_accurate_in_tight_clusters_far_apart(rng):
    x = tight_clusters(rng)
    true = oracles.squared_distances(x, x)

    squared, indices = nearest_neighbors(x, 5)

    chosen = np.take_along_axis(true, np.asarray(indices), axis=1)
    assert np.all(np.asarray(indices) // 8 == np.arange(32)[:, None] // 8)
    np.testing.assert_allclose(squared, chosen, rtol=1e-3)


@pytest.mark.parametrize("case", ["a pair", "all"])
def test_duplicates_give_no_nan_in_values_or_gradients(rng, case):
    x = rng.normal(size=(8, 6)).astype("float32")
    x[3] = x[2]
    if case == "all":
        x[:] = x[0]
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        squared, _ = nearest_neighbors(x, 3)
        weights = heat_kernel(squared)
        total = tf.reduce_sum(weights) + tf.reduce_sum(squared)
    assert np.isfinite(weights).all()
    assert np.isfinite(squared).all()
    assert np.isfinite(tape.gradient(total, x)).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_neighbors_work_with_a_dynamic_batch(rng, jit_compile):
    @tf.function(input_signature=[tf.TensorSpec([None, 4])], jit_compile=jit_compile)
    def traced(x):
        return nearest_neighbors(x, 5)

    for count in (12, 3):
        x = rng.normal(size=(count, 4)).astype("float32")
        expected, expected_indices = oracles.nearest_neighbors(x, 5)
        squared, indices = traced(x)
        np.testing.assert_allclose(squared, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(indices, expected_indices)
    squared, indices = traced(np.ones((1, 4), "float32"))
    assert squared.shape == indices.shape == (1, 0)


@pytest.mark.parametrize("k", [0, -1, True, 2.5, None, "5"])
def test_k_must_be_a_positive_integer(k):
    with pytest.raises(ValueError, match=r"`k` must be an integer of at least 1.*k="):
        nearest_neighbors(np.ones((3, 2)), k)


# heat_kernel


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("sigma", [0.5, 2, 3.0])
def test_heat_kernel_equals_its_formula(rng, sigma, dtype):
    squared = some_rows(rng, dtype, (6, 5))
    weights = heat_kernel(squared, sigma)
    assert_float32(weights)
    expected = np.exp(-squared.astype("float64") / sigma**2)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_sigma_auto_is_the_root_of_the_mean_squared_distance(rng):
    squared = some_rows(rng, "float32", (6, 5))
    explicit = float(np.sqrt(squared.astype("float64").mean()))
    np.testing.assert_allclose(
        heat_kernel(squared, "auto"), heat_kernel(squared, explicit), rtol=1e-5
    )
    np.testing.assert_allclose(
        heat_kernel(squared), np.exp(-squared / squared.mean()), rtol=1e-5
    )


def test_sigma_auto_depends_on_no_scale(rng):
    squared = some_rows(rng, "float32", (6, 5))
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(
            heat_kernel(scale * squared), heat_kernel(squared), rtol=1e-4
        )


@pytest.mark.parametrize("sigma", ["auto", 1.5])
def test_weights_of_zero_distances_are_one(sigma):
    np.testing.assert_array_equal(heat_kernel(np.zeros((4, 3)), sigma), np.ones((4, 3)))


@pytest.mark.parametrize(
    ("sigma", "expected"), [(1e-30, [1, 0]), (1e30, [1, 1]), (1e200, [1, 1])]
)
def test_extreme_sigmas_give_the_limits(sigma, expected):
    np.testing.assert_array_equal(heat_kernel([0.0, 1.0], sigma), expected)


@pytest.mark.parametrize("sigma", ["auto", 1.5])
def test_heat_kernel_of_nothing_is_nothing(sigma):
    squared = tf.zeros((1, 0))
    with tf.GradientTape() as tape:
        tape.watch(squared)
        weights = heat_kernel(squared, sigma)
        total = tf.reduce_sum(weights)
    assert weights.shape == (1, 0)
    assert float(total) == 0
    assert tape.gradient(total, squared).shape == (1, 0)


@pytest.mark.parametrize(
    "sigma", [0, 0.0, -1, float("nan"), float("inf"), "wide", True, None, [1.0]]
)
def test_sigma_must_be_auto_or_a_positive_number(sigma):
    message = r"`sigma` must be 'auto' or a positive number\. Received: sigma="
    with pytest.raises(ValueError, match=message):
        heat_kernel([1.0], sigma)


# feature_variance


@pytest.mark.parametrize("dtype", DTYPES)
def test_variance_equals_the_oracle(rng, dtype):
    x = some_rows(rng, dtype)
    variance = feature_variance(x)
    assert_float32(variance)
    assert variance.shape == ()
    np.testing.assert_allclose(variance, oracles.feature_variance(x), rtol=1e-5)


def test_variance_far_from_the_origin_is_as_accurate(rng):
    x = (rng.normal(size=(17, 9)) + 1000).astype("float32")
    np.testing.assert_allclose(
        feature_variance(x), oracles.feature_variance(x), rtol=1e-5
    )


def test_variance_of_one_sample_is_zero(rng):
    assert feature_variance(some_rows(rng, "float32", (1, 9))) == 0


# as_vectors


SPACES = [(), (3,), (3, 4), (3, 4, 2)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
@pytest.mark.parametrize("pooling", [None, "avg", "max"])
@pytest.mark.parametrize("space", SPACES)
def test_feature_maps_become_vectors(rng, space, pooling, dtype):
    features = some_rows(rng, dtype, (6, *space, 5))
    vectors = as_vectors(features, pooling)
    assert_float32(vectors)
    expected = oracles.as_vectors(features, pooling)
    assert vectors.shape == expected.shape
    np.testing.assert_allclose(vectors, expected, rtol=1e-5)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.usefixtures("channels_first")
def test_channels_come_second_under_channels_first(rng, space, pooling):
    features = some_rows(rng, "float32", (6, 5, *space))
    if pooling is None:
        expected = features.reshape(6, -1)
    else:
        expected = oracles.as_vectors(np.moveaxis(features, 1, -1), pooling)
    np.testing.assert_allclose(as_vectors(features, pooling), expected, rtol=1e-5)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_one_number_a_sample_becomes_a_vector(pooling):
    vectors = as_vectors(np.array([1, 2, 3]), pooling)
    np.testing.assert_array_equal(vectors, [[1], [2], [3]])


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_space_may_be_unknown(rng, pooling):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def traced(features):
        vectors = as_vectors(features, pooling)
        assert vectors.shape.as_list() == [None, 3 if pooling else None]
        return vectors

    for shape in ((4, 5, 6, 3), (2, 1, 7, 3)):
        features = some_rows(rng, "float32", shape)
        np.testing.assert_allclose(
            traced(features), oracles.as_vectors(features, pooling), rtol=1e-5
        )


def test_a_known_width_stays_known():
    features = keras.KerasTensor((None, 7, 6, 4))
    assert as_vectors(features).shape == (None, 168)
    assert as_vectors(features, "max").shape == (None, 4)


def test_a_scalar_is_refused():
    with pytest.raises(ValueError, match=r"must have a batch axis.*Received a scalar"):
        as_vectors(np.float32(1))


@pytest.mark.parametrize("pooling", ["min", True, ""])
def test_pooling_must_be_known(pooling):
    message = "`pooling` must be None, 'avg' or 'max'. Received: pooling="
    with pytest.raises(ValueError, match=message):
        as_vectors(np.ones((2, 3)), pooling)


# Memory: a batch of m rows may take some matrices of m x m, nothing of m x m x d.

MEASURE = """
import numpy as np
import tensorflow as tf

from keras_lpd.losses import locality_preserving_loss
from keras_lpd.neighbors import nearest_neighbors


def status(field):
    with open("/proc/self/status") as lines:
        return next(int(s.split()[1]) * 1024 for s in lines if s.startswith(field))


def loss_and_gradient(x):
    student = x[:, :64]
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = locality_preserving_loss(x, student)
    return loss, tape.gradient(loss, student)


def neighbors(x):
    return nearest_neighbors(x, 5)


with tf.device("CPU"):
    x = tf.constant(np.random.default_rng(0).random((8192, 512), "float32"))
    FUNCTION(x[:8])
    before = status("VmRSS")
    result = FUNCTION(x)
    assert np.isfinite(result[0]).all()
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="needs Linux"
)
@pytest.mark.parametrize("function", ["neighbors", "loss_and_gradient"])
def test_peak_memory_of_a_large_batch(function):
    # Not ru_maxrss, which starts at what the process had that started this one.
    script = MEASURE.replace("FUNCTION", function)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout.split()[-1]) < 1.5e9
