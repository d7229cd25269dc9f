import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.losses import LocalityPreserving, locality_preserving_loss
from tests import oracles
from tests.losses import helpers

NORMALIZE = [None, "l2", "spread"]


@pytest.fixture
def features(rng):
    """Teacher and student features of different widths."""
    teacher = rng.normal(size=(12, 20)) * 0.5
    student = rng.normal(size=(12, 7))
    return teacher.astype("float32"), student.astype("float32")


def loss_and_gradient(teacher, student, **settings):
    loss = functools.partial(locality_preserving_loss, **settings)
    return helpers.loss_and_gradient(loss, teacher, student)


def oracle_gradient(teacher, student, **settings):
    def loss(student):
        return oracles.locality_preserving_loss(teacher, student, **settings)

    return helpers.finite_differences(loss, student)


# Values


@pytest.mark.parametrize("k", [1, 5, 100])
@pytest.mark.parametrize("sigma", ["auto", 1.5])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_loss_equals_the_oracle(features, normalize, sigma, k):
    settings = {"k": k, "sigma": sigma, "normalize": normalize}
    expected = oracles.locality_preserving_loss(*features, **settings)
    assert expected > 1e-3

    loss = locality_preserving_loss(*features, **settings)

    assert loss.shape == ()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_of_three_points_by_hand():
    teacher = np.array([[0.0], [1.0], [3.0]])
    student = np.array([[0.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    # Nearest: 0 -> 1 and 1 -> 0, at 1; 2 -> 1, at 4. So sigma^2 = (1 + 1 + 4) / 3 = 2.
    expected = (2 * np.exp(-1 / 2) * 4 + np.exp(-4 / 2) * 1) / 6
    loss = locality_preserving_loss(teacher, student, k=1)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_loss_of_feature_maps_equals_the_oracle(rng, rank, pooling):
    teacher = rng.normal(size=(9, *(4, 3, 2)[: rank - 2], 6)).astype("float32")
    student = rng.normal(size=(9, *(2, 3, 3)[: rank - 2], 5)).astype("float32")
    expected = oracles.locality_preserving_loss(teacher, student, 3, pooling=pooling)
    loss = locality_preserving_loss(teacher, student, k=3, pooling=pooling)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_teacher_maps_and_student_vectors_go_together(rng):
    teacher = rng.normal(size=(9, 4, 4, 6)).astype("float32")
    student = rng.normal(size=(9, 3)).astype("float32")
    expected = oracles.locality_preserving_loss(teacher, student, pooling="avg")
    loss = locality_preserving_loss(teacher, student, pooling="avg")
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("normalize", [None, "spread"])
def test_loss_far_from_the_origin_equals_the_oracle(features, normalize):
    far = [side + np.float32(1000) for side in features]
    expected = oracles.locality_preserving_loss(*far, normalize=normalize)
    loss = locality_preserving_loss(*far, normalize=normalize)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


# Gradients


@pytest.mark.parametrize("k", [2, 100])
@pytest.mark.parametrize("sigma", ["auto", 1.5])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_gradient_equals_finite_differences(features, normalize, sigma, k):
    teacher, student = features[0][:7], features[1][:7, :3]
    settings = {"k": k, "sigma": sigma, "normalize": normalize}
    _, gradient = loss_and_gradient(teacher, student, **settings)
    expected = oracle_gradient(teacher, student, **settings)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_gradient_of_feature_maps_equals_finite_differences(rng, pooling):
    teacher = rng.normal(size=(5, 2, 2, 6)).astype("float32")
    student = rng.normal(size=(5, 2, 3, 2)).astype("float32")
    _, gradient = loss_and_gradient(teacher, student, k=2, pooling=pooling)
    expected = oracle_gradient(teacher, student, k=2, pooling=pooling)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-6)


def test_features_that_are_their_own_teacher_get_the_student_gradient(features):
    _, expected = loss_and_gradient(features[1], features[1])
    both = tf.constant(features[1])
    with tf.GradientTape() as tape:
        tape.watch(both)
        loss = locality_preserving_loss(both, both)
    np.testing.assert_allclose(tape.gradient(loss, both), expected, rtol=1e-6)


# The edges


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_student_features_of_zero_give_no_loss_and_no_nan(features, normalize):
    loss, gradient = loss_and_gradient(
        features[0], np.zeros((12, 7), "float32"), normalize=normalize
    )
    assert float(loss) == 0
    np.testing.assert_array_equal(gradient, np.zeros((12, 7)))


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_where_the_teacher_is_constant_all_samples_attract_alike(features, normalize):
    teacher = np.repeat(features[0][:1], 12, axis=0)
    settings = {"k": 100, "normalize": normalize}
    loss = locality_preserving_loss(teacher, features[1], **settings)
    expected = oracles.locality_preserving_loss(teacher, features[1], **settings)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_where_all_neighbors_are_duplicates_all_weights_are_one(rng, normalize):
    teacher = np.repeat(rng.uniform(size=(3, 64)), 6, axis=0).astype("float32")
    student = rng.normal(size=(18, 4)).astype("float32")
    loss = locality_preserving_loss(teacher, student, normalize=normalize)
    expected = oracles.locality_preserving_loss(teacher, student, normalize=normalize)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_shrinking_pays_only_without_normalization(features, normalize, scale):
    teacher, student = features
    loss = locality_preserving_loss(teacher, student, normalize=normalize)
    scaled = locality_preserving_loss(
        teacher, np.float32(scale) * student, normalize=normalize
    )
    factor = scale**2 if normalize is None else 1
    np.testing.assert_allclose(scaled, factor * loss, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_sigma_auto_makes_the_scale_of_the_teacher_irrelevant(features, scale):
    teacher, student = features
    np.testing.assert_allclose(
        locality_preserving_loss(np.float32(scale) * teacher, student),
        locality_preserving_loss(teacher, student),
        rtol=1e-4,
    )


# The class

REFUSALS = [
    ({"k": 0}, "`k` must be an integer of at least 1. Received: k=0"),
    ({"k": True}, "`k` must be an integer of at least 1. Received: k=True"),
    ({"k": 2.5}, "`k` must be an integer of at least 1. Received: k=2.5"),
    ({"sigma": 0}, "`sigma` must be 'auto' or a positive number. Received: sigma=0"),
    ({"sigma": -1.0}, "`sigma` must be 'auto' or a positive number"),
    ({"sigma": float("nan")}, "`sigma` must be 'auto' or a positive number"),
    ({"sigma": float("inf")}, "`sigma` must be 'auto' or a positive number"),
    ({"sigma": "wide"}, "`sigma` must be 'auto' or a positive number.*'wide'"),
    ({"normalize": "l1"}, "`normalize` must be None, 'l2' or 'spread'.*'l1'"),
    ({"pooling": "min"}, "`pooling` must be None, 'avg' or 'max'.*'min'"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSALS)
def test_settings_out_of_range_are_refused(features, settings, message):
    with pytest.raises(ValueError, match=message):
        LocalityPreserving(**settings)
    with pytest.raises(ValueError, match=message):
        locality_preserving_loss(*features, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"k": 2}, {"sigma": 1.5}, {"normalize": "l2"}, {"normalize": "spread"}],
)
def test_the_class_computes_what_the_function_does(features, settings):
    loss = LocalityPreserving(**settings)
    expected = locality_preserving_loss(*features, **settings)
    np.testing.assert_array_equal(loss.compute_loss(*features), expected)
    assert expected != locality_preserving_loss(*features)


def test_the_class_pools(rng):
    teacher, student = rng.normal(size=(2, 9, 4, 4, 3)).astype("float32")
    expected = locality_preserving_loss(teacher, student, pooling="max")
    loss = LocalityPreserving(pooling="max")
    np.testing.assert_array_equal(loss.compute_loss(teacher, student), expected)


def test_outputs_may_differ_in_anything_but_the_batch(rng):
    loss = LocalityPreserving()
    teacher, student = rng.normal(size=(6, 4, 4, 3)), rng.normal(size=(6, 2))
    loss.validate_outputs(teacher, student)
    loss.validate_outputs(keras.KerasTensor((None, 3)), student)
    assert np.isfinite(loss.compute_loss(teacher, student))
