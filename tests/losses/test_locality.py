import functools

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

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


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
)
def test_any_dtype_gives_a_float32_loss(features, dtype, normalize):
    rounded = [side.astype(dtype) for side in features]
    as_tensors = [ops.convert_to_tensor(side) for side in rounded]

    loss = locality_preserving_loss(*as_tensors, normalize=normalize)

    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = oracles.locality_preserving_loss(*rounded, normalize=normalize)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    in_float32 = locality_preserving_loss(*features, normalize=normalize)
    np.testing.assert_allclose(loss, in_float32, rtol=0.02)


@pytest.mark.parametrize("normalize", [None, "spread"])
def test_loss_far_from_the_origin_equals_the_oracle(features, normalize):
    far = [side + np.float32(1000) for side in features]
    expected = oracles.locality_preserving_loss(*far, normalize=normalize)
    loss = locality_preserving_loss(*far, normalize=normalize)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_the_order_of_the_batch_does_not_matter(rng, features, normalize):
    order = rng.permutation(12)
    loss, gradient = loss_and_gradient(*features, normalize=normalize)
    permuted, permuted_gradient = loss_and_gradient(
        *(side[order] for side in features), normalize=normalize
    )
    np.testing.assert_allclose(permuted, loss, rtol=1e-5)
    np.testing.assert_allclose(
        permuted_gradient, gradient.numpy()[order], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_loss_works_with_a_dynamic_batch(features, normalize, jit_compile):
    @tf.function(
        input_signature=[tf.TensorSpec([None, 20]), tf.TensorSpec([None, 7])],
        jit_compile=jit_compile,
    )
    def traced(teacher, student):
        return loss_and_gradient(teacher, student, normalize=normalize)

    for count in (12, 4):
        sides = [side[:count] for side in features]
        loss, gradient = loss_and_gradient(*sides, normalize=normalize)
        traced_loss, traced_gradient = traced(*sides)
        np.testing.assert_allclose(traced_loss, loss, rtol=1e-5)
        np.testing.assert_allclose(traced_gradient, gradient, rtol=1e-4, atol=1e-6)
    loss, gradient = traced(*(side[:1] for side in features))
    assert float(loss) == 0
    np.testing.assert_array_equal(gradient, np.zeros((1, 7)))


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


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_no_gradient_flows_into_the_teacher(features, normalize):
    teacher, student = (tf.constant(side) for side in features)
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        loss = locality_preserving_loss(teacher, student, normalize=normalize)
    into_teacher, into_student = tape.gradient(
        loss, [teacher, student], unconnected_gradients="zero"
    )
    np.testing.assert_array_equal(into_teacher, np.zeros((12, 20)))
    assert np.abs(into_student).max() > 0


def test_features_that_are_their_own_teacher_get_the_student_gradient(features):
    _, expected = loss_and_gradient(features[1], features[1])
    both = tf.constant(features[1])
    with tf.GradientTape() as tape:
        tape.watch(both)
        loss = locality_preserving_loss(both, both)
    np.testing.assert_allclose(tape.gradient(loss, both), expected, rtol=1e-6)


# The edges


@pytest.mark.parametrize("case", ["a pair", "teacher", "student", "both"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_duplicates_give_finite_losses_and_gradients(features, normalize, case):
    teacher, student = features
    if case == "a pair":
        teacher[3], student[3] = teacher[2], student[2]
    if case in ("teacher", "both"):
        teacher[:] = teacher[0]
    if case in ("student", "both"):
        student[:] = student[0]

    loss, gradient = loss_and_gradient(teacher, student, normalize=normalize)

    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    if case in ("student", "both"):
        np.testing.assert_allclose(loss, 0, atol=1e-9)
    else:
        assert loss > 0.01


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


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_batch_of_one_gives_zero(features, normalize):
    loss, gradient = loss_and_gradient(
        features[0][:1], features[1][:1], normalize=normalize
    )
    assert float(loss) == 0
    np.testing.assert_array_equal(gradient, np.zeros((1, 7)))


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


SETTINGS = {
    "k": 3,
    "sigma": 1.5,
    "normalize": "spread",
    "pooling": "avg",
    "teacher_layer_name": "backbone/conv5",
    "student_layer_name": "hidden",
    "name": "near",
}


@pytest.mark.parametrize("settings", [{}, SETTINGS])
def test_config_round_trip(settings):
    loss = LocalityPreserving(**settings)
    again = LocalityPreserving.from_config(loss.get_config())
    assert type(again) is LocalityPreserving
    assert again.get_config() == loss.get_config()
    assert settings.items() <= loss.get_config().items()
    for name, value in settings.items():
        assert getattr(again, name) == value


def test_keras_serialization_round_trip(features):
    loss = LocalityPreserving(**SETTINGS)
    serialized = keras.saving.serialize_keras_object(loss)
    assert serialized["registered_name"] == "keras_lpd>LocalityPreserving"
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is LocalityPreserving
    assert again.get_config() == loss.get_config()
    np.testing.assert_array_equal(
        again.compute_loss(*features), loss.compute_loss(*features)
    )


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


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ([np.ones((4, 3))], np.ones((4, 3)), "Received for the teacher: list"),
        (np.ones((4, 3)), {"a": np.ones((4, 3))}, "Received for the student: dict"),
        (np.float32(1), np.ones((4, 3)), "the teacher's features.*a scalar"),
        (np.ones((4, 3)), np.float32(1), "the student's features.*a scalar"),
        (np.ones((4, 3)), np.ones((5, 3)), "teacher batch of 4, student batch of 5"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(teacher, student, message):
    with pytest.raises(ValueError, match=f"LocalityPreserving.*{message}"):
        LocalityPreserving().validate_outputs(teacher, student)


def test_outputs_may_differ_in_anything_but_the_batch(rng):
    loss = LocalityPreserving()
    teacher, student = rng.normal(size=(6, 4, 4, 3)), rng.normal(size=(6, 2))
    loss.validate_outputs(teacher, student)
    loss.validate_outputs(keras.KerasTensor((None, 3)), student)
    assert np.isfinite(loss.compute_loss(teacher, student))


def model_of_width(width):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, activation="relu", name="hidden"),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_the_stock_distiller_trains_with_it(rng):
    keras.utils.set_random_seed(0)
    teacher, student = model_of_width(16), model_of_width(4)
    before = {"teacher": teacher.get_weights(), "student": student.get_weights()}
    loss = LocalityPreserving(teacher_layer_name="hidden", student_layer_name="hidden")
    distiller = keras.distillation.Distiller(
        teacher, student, distillation_losses=loss, student_loss_weight=0.0
    )
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    history = distiller.fit(
        rng.normal(size=(24, 6)).astype("float32"),
        rng.integers(0, 3, 24),
        batch_size=8,
        verbose=0,
    ).history

    assert np.isfinite(history["distillation_loss"]).all()
    assert history["distillation_loss"][0] > 0
    # With no weight on the labels it is the loss alone that moves the hidden layer.
    assert np.any(student.get_weights()[0] != before["student"][0])
    for now, then in zip(teacher.get_weights(), before["teacher"], strict=True):
        np.testing.assert_array_equal(now, then)
