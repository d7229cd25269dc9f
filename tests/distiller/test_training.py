"""What `LPDistiller.fit` does to the student, and to nothing else."""

import logging
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import (
    LocalityPreserving,
    LPDistiller,
    NeighborProbability,
    locality_preserving_loss,
    neighbor_probability_loss,
)
from keras_lpd.models import cnn_student, cnn_teacher
from keras_lpd.training.terms import PROBABILITY_FACTOR
from tests.distiller.conftest import (
    cross_entropy,
    make_student,
    make_teacher,
    same,
)
from tests.subclassed import TwoLayers, body_and_head

layers = keras.layers

OLD = tf.__version__.startswith("2.18.")


def fit(model, *args, seed=5, **kwargs):
    keras.utils.set_random_seed(seed)
    return model.fit(*args, verbose=0, **kwargs)


# One step


@pytest.mark.parametrize(
    ("losses", "weights", "probability_weight"),
    [
        ("auto", None, 0.7 * PROBABILITY_FACTOR),
        ("auto", 0.3, 0.3),
        (NeighborProbability(), 0.3, 0.3),
        (None, None, 0.0),
    ],
    ids=["default", "weighted", "loss", "paper"],
)
def test_a_step_adds_the_losses_to_the_cross_entropy(
    data, losses, weights, probability_weight
):
    """One SGD step against a tape written out by hand."""
    x, y = data
    teacher = make_teacher()
    keras.utils.set_random_seed(1)
    student = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, activation="tanh"), layers.Dense(3)]
    )
    by_hand = keras.models.clone_model(student)
    by_hand.set_weights(student.get_weights())

    distiller = LPDistiller(
        teacher,
        student,
        gamma=0.7,
        k=3,
        distillation_losses=losses,
        distillation_loss_weights=weights,
    )
    distiller.compile(keras.optimizers.SGD(0.1), cross_entropy())
    logs = distiller.train_on_batch(x, y, return_dict=True)

    taught = keras.Model(teacher.inputs, teacher.get_layer("features").output)(
        x, training=False
    )
    with tf.GradientTape() as tape:
        features = by_hand.layers[0](x)
        error = cross_entropy()(y, by_hand.layers[1](features))
        locality = locality_preserving_loss(taught, features, k=3)
        probability = neighbor_probability_loss(taught, features)
        loss = error + 0.7 * locality + probability_weight * probability
    gradients = tape.gradient(loss, by_hand.trainable_variables)
    for variable, gradient in zip(by_hand.trainable_variables, gradients):
        variable.assign_sub(0.1 * gradient)

    for ours, theirs in zip(student.get_weights(), by_hand.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert logs["student_loss"] == pytest.approx(float(error), rel=1e-5)
    assert logs["lp_loss"] == pytest.approx(float(locality), rel=1e-5)
    assert ("neighbor_probability_loss" in logs) == (losses is not None)
    if losses is not None:
        value = logs["neighbor_probability_loss"]
        assert value == pytest.approx(float(probability), rel=1e-5)
    features = np.asarray(features)
    spread = np.sqrt(np.mean(np.sum((features - features.mean(0)) ** 2, axis=1)))
    assert logs["feature_spread"] == pytest.approx(spread, rel=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Counted(layers.Layer):
    """Passes its input on, and counts how often it runs on real data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = 0

    def call(self, inputs):
        if tf.executing_eagerly():
            self.calls += 1
        return inputs


@pytest.mark.parametrize("with_outputs", [False, True])
def test_forward_passes_of_a_step(data, with_outputs):
    """Teacher once, its head only where a loss wants it; student once."""
    x, y = data
    counters = {name: Counted(name=name) for name in ("body", "head", "student")}
    teacher = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(9, activation="relu"),
            counters["body"],
            layers.Dense(3),
            counters["head"],
        ]
    )
    student = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(5, activation="relu", name="features"),
            counters["student"],
            layers.Dense(3),
        ]
    )
    losses = [
        LocalityPreserving(teacher_layer_name="body", student_layer_name="features"),
        LocalityPreserving(k=2, teacher_layer_name="body", name="second"),
    ]
    if with_outputs:
        losses.append(keras.distillation.LogitsDistillation())
    distiller = LPDistiller(teacher, student, distillation_losses=losses)
    distiller.compile("adam", cross_entropy(), run_eagerly=True)
    fit(distiller, x, y, batch_size=32)  # 3 steps

    assert counters["body"].calls == 3
    assert counters["head"].calls == (3 if with_outputs else 0)
    assert counters["student"].calls == 3


# The weight 0


def vectors(x, y):
    return {"x": x, "y": y}


def dataset(x, y):
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(32)}


def ragged_batches(x, y):
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(40)}


def generator(x, y):
    def batches():
        while True:
            for start in range(0, 96, 32):
                yield x[start : start + 32], y[start : start + 32]

    return {"x": batches(), "steps_per_epoch": 3}


def py_dataset(x, y):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(32 * index, 32 * index + 32)
            return x[rows], y[rows]

    return {"x": Batches()}


def sample_weights(x, y):
    return {"x": x, "y": y, "sample_weight": np.linspace(0.1, 2, 96)}


def class_weights(x, y):
    return {"x": x, "y": y, "class_weight": {0: 1.0, 1: 0.2, 2: 3.0}}


@pytest.mark.parametrize(
    "feed",
    [
        vectors,
        ragged_batches,
        sample_weights,
        *(
            pytest.param(feed, marks=pytest.mark.slow)
            for feed in (dataset, generator, py_dataset, class_weights)
        ),
    ],
)
def test_at_weight_0_the_student_is_the_one_trained_alone(data, feed):
    check_weight_0(lambda: feed(*data))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 2},
        {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9)},
        {"optimizer": lambda: keras.optimizers.Adam(gradient_accumulation_steps=2)},
        {"optimizer": lambda: keras.optimizers.Adam(use_ema=True, ema_momentum=0.9)},
        {"optimizer": lambda: keras.optimizers.AdamW(global_clipnorm=0.5)},
    ],
    ids=["eager", "xla", "steps_per_execution", "sgd", "accumulation", "ema", "clip"],
)
def test_at_weight_0_whatever_it_is_compiled_with(data, options):
    check_weight_0(lambda: vectors(*data), **options)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_at_weight_0_in_mixed_precision(data, policy):
    keras.config.set_dtype_policy(policy)
    try:
        check_weight_0(lambda: vectors(*data), activity_regularizer=None)
        student = make_student(activity_regularizer=None)
        distiller = LPDistiller(make_teacher(), student)
    finally:
        keras.config.set_dtype_policy("float32")
    distiller.compile("adam", cross_entropy())
    scaled = isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    history = fit(distiller, *data, epochs=3).history
    assert np.isfinite(history["loss"]).all()
    assert history["lp_loss"][0] > 0


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_at_weight_0_on_integer_images(data, dtype):
    images = np.random.default_rng(0).integers(0, 256, (96, 4, 4, 1)).astype(dtype)
    check_weight_0(lambda: vectors(images, data[1]), shape=(4, 4, 1))


def check_weight_0(
    feed,
    shape=(8,),
    activity_regularizer="l2",
    optimizer=lambda: "adam",
    **options,
):
    """`fit` at gamma 0 equals `student.fit` to the bit; at gamma 1 it does not."""
    results = {}
    for gamma in (None, 0.0, 1.0):
        student = make_student(shape=shape, activity_regularizer=activity_regularizer)
        model = student
        if gamma is not None:
            model = LPDistiller(make_teacher(shape=shape), student, gamma=gamma)
        keras.utils.set_random_seed(1)
        model.compile(optimizer(), cross_entropy(), metrics=["accuracy"], **options)
        history = fit(model, epochs=2, **feed()).history
        results[gamma] = student.get_weights(), history
    alone, zero, one = (results[gamma][0] for gamma in (None, 0.0, 1.0))
    if OLD:  # TensorFlow 2.18 fuses the two steps in two ways.
        assert all(map(np.allclose, alone, zero))
        return
    assert same(alone, zero)
    assert not same(alone, one)
    assert all(np.isfinite(weights).all() for weights in one)
    for name, values in results[None][1].items():
        assert results[0.0][1][name] == values


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_several_inputs(structure):
    random = np.random.default_rng(0)
    left, right = random.normal(size=(2, 64, 5)).astype("float32")
    y = random.integers(0, 3, 64)

    def model(width):
        inputs = {name: keras.Input((5,), name=name) for name in ("left", "right")}
        joined = layers.Concatenate()([inputs["left"], inputs["right"]])
        hidden = layers.Dense(width, activation="relu")(joined)
        return keras.Model(
            inputs if structure == "dict" else list(inputs.values()),
            layers.Dense(3)(hidden),
        )

    x = {"left": left, "right": right} if structure == "dict" else [left, right]
    weights = []
    for gamma in (None, 0.0, 1.0):
        keras.utils.set_random_seed(0)
        teacher, student = model(30), model(4)
        trained = (
            student if gamma is None else LPDistiller(teacher, student, gamma=gamma)
        )
        trained.compile("adam", cross_entropy())
        fit(trained, x, y)
        weights.append(student.get_weights())
    assert same(weights[0], weights[1])
    assert not same(weights[0], weights[2])


# Losses and their weights


def test_other_losses_come_beside_the_locality_preserving_loss(data, teacher, student):
    x, y = data
    distiller = LPDistiller(
        teacher,
        student,
        gamma=0.5,
        distillation_losses=[
            keras.distillation.LogitsDistillation(temperature=2.0),
            keras.distillation.FeatureDistillation(
                teacher_layer_name="logits", student_layer_name="logits"
            ),
        ],
        distillation_loss_weights=[2.0, 3.0],
    )
    distiller.compile("sgd", cross_entropy())
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(
        logs["student_loss"]
        + 0.5 * logs["lp_loss"]
        + 2.0 * logs["logits_distillation_loss"]
        + 3.0 * logs["feature_distillation_loss"],
        rel=1e-5,
    )
    assert min(logs[name] for name in logs if name.endswith("_loss")) > 0


def test_settings_are_those_of_the_losses_that_are_used(teacher, student):
    own = LocalityPreserving(pooling="avg")
    distiller = LPDistiller(
        teacher, student, distillation_losses=own, distillation_loss_weights=0.3
    )
    assert (distiller.gamma, distiller.pooling) == (0.3, "avg")
    distiller = LPDistiller(
        teacher, student, gamma=None, distillation_losses=NeighborProbability()
    )
    assert (distiller.gamma, distiller.pooling) == (None, None)


def test_each_loss_has_a_name_of_its_own_in_the_logs(data, teacher, student):
    losses = [NeighborProbability(name=name) for name in ("a", "a_2", "a", "a")]
    distiller = LPDistiller(teacher, student, distillation_losses=losses)
    logs = fit(distiller, *data).history
    assert {"lp_loss", "a_loss", "a_2_loss", "a_3_loss", "a_4_loss"} <= set(logs)


def test_several_locality_terms_take_the_place_of_the_one_by_gamma(data):
    x, y = data
    teacher, student = make_teacher(), make_student()
    hidden = student.layers[3].name
    distiller = LPDistiller(
        teacher,
        student,
        distillation_losses=[
            LocalityPreserving(student_layer_name=hidden),
            LocalityPreserving(teacher_layer_name="logits"),
            LocalityPreserving(k=2, name="near"),
        ],
        distillation_loss_weights=[0.1, 0.2, 0.4],
    )
    distiller.compile("sgd", cross_entropy())
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(
        logs["student_loss"]
        + 0.1 * logs["lp_loss"]
        + 0.2 * logs["lp_2_loss"]
        + 0.4 * logs["near_loss"],
        rel=1e-5,
    )
    assert (
        len({float(logs[name]) for name in ("lp_loss", "lp_2_loss", "near_loss")}) == 3
    )


def test_gamma_none_leaves_the_locality_preserving_loss_out(data, teacher, student):
    distiller = LPDistiller(
        teacher,
        student,
        gamma=None,
        distillation_losses=keras.distillation.LogitsDistillation(),
    )
    distiller.compile("sgd", cross_entropy())
    logs = distiller.train_on_batch(*data, return_dict=True)
    assert "lp_loss" not in logs and "feature_spread" not in logs
    assert logs["logits_distillation_loss"] > 0


def test_the_losses_add_no_parameters(teacher, student):
    assert LPDistiller(teacher, student).auxiliary_parameters() == 0


def test_auxiliary_parameters_counts_what_is_not_the_students(teacher, student):
    distiller = LPDistiller(teacher, student)
    distiller.extra = keras.layers.Dense(7)
    distiller.extra.build((None, 5))
    assert distiller.auxiliary_parameters() == 5 * 7 + 7


@pytest.mark.parametrize("by", [dict, list])
def test_a_student_with_two_outputs(data, by):
    """Losses and metrics go by output, as in the student's own `compile`."""
    x, y = data

    def model(width):
        inputs = keras.Input((8,))
        hidden = layers.Dense(width, activation="relu", name="hidden")(inputs)
        return keras.Model(
            inputs,
            [
                layers.Dense(3, name="kind")(hidden),
                layers.Dense(1, name="size")(hidden),
            ],
        )

    losses = {"kind": cross_entropy(), "size": "mse"}
    metrics = {"kind": ["accuracy"], "size": ["mae"]}
    if by is list:
        losses, metrics = list(losses.values()), list(metrics.values())
    results = {}
    for gamma in (None, 0.0, 1.0):
        keras.utils.set_random_seed(0)
        teacher, student = model(30), model(5)
        trained = student
        if gamma is not None:
            trained = LPDistiller(
                teacher,
                student,
                gamma=gamma,
                teacher_layer="hidden",
                student_layer="hidden",
            )
        trained.compile("adam", losses, metrics=metrics)
        history = fit(trained, x, [y, x[:, :1]]).history
        results[gamma] = student.get_weights(), history
    assert same(results[None][0], results[0.0][0])
    assert not same(results[None][0], results[1.0][0])
    for name, values in results[None][1].items():
        assert results[0.0][1][name] == values
    assert {"kind_loss", "size_loss", "kind_accuracy", "size_mae"} < results[0.0][
        1
    ].keys()


def test_an_optional_input_may_be_missing(data):
    x, y = data

    class Join(layers.Layer):
        def call(self, extra, inputs):
            return inputs if extra is None else inputs + extra

        def compute_output_shape(self, extra_shape, inputs_shape):
            return inputs_shape

    def model(width):
        extra = keras.Input((8,), optional=True, name="extra")
        inputs = keras.Input((8,), name="inputs")
        hidden = layers.Dense(width, activation="relu")(Join()(extra, inputs))
        return keras.Model([extra, inputs], layers.Dense(3)(hidden))

    distiller = LPDistiller(model(20), model(4))
    distiller.compile("adam", cross_entropy())
    logs = distiller.train_on_batch([None, x], y, return_dict=True)
    assert logs["lp_loss"] > 0


# Sample weights, labels


def test_rows_of_weight_0_teach_through_the_neighbours_alone(data):
    """Their labels have no say, at any gamma; the images do, but for gamma 0."""
    x, y = data
    weight = np.repeat([1.0, 0.0], 48)
    moved = x.copy()
    moved[48:] += 1.0
    other = np.where(weight == 0, (y + 1) % 3, y)

    def weights(gamma, images, labels):
        keras.utils.set_random_seed(1)
        student = keras.Sequential(
            [keras.Input((8,)), layers.Dense(6, activation="tanh"), layers.Dense(3)]
        )
        distiller = LPDistiller(make_teacher(), student, gamma=gamma)
        keras.utils.set_random_seed(1)
        distiller.compile("sgd", cross_entropy())
        distiller.train_on_batch(images, labels, sample_weight=weight)
        return student.get_weights()

    assert same(weights(1.0, x, y), weights(1.0, x, other))
    assert same(weights(0.0, x, y), weights(0.0, moved, y))
    assert not same(weights(1.0, x, y), weights(1.0, moved, y))


def test_weighted_metrics_see_the_sample_weights(data, teacher, student):
    x, y = data
    weight = np.repeat([1.0, 0.0], 48)
    distiller = LPDistiller(teacher, student)
    distiller.compile(
        "sgd",
        cross_entropy(),
        weighted_metrics=["accuracy"],
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
    )
    logs = distiller.evaluate(x, y, sample_weight=weight, return_dict=True, verbose=0)
    right = np.argmax(student.predict(x, verbose=0), axis=1) == y
    assert float(logs["accuracy"]) == pytest.approx(right[:48].mean())
    assert {"loss", "top2"} == logs.keys() - {"accuracy"}


def test_labels_may_be_missing_by_default(data):
    x, _ = data
    student = make_student()
    history = fit(LPDistiller(make_teacher(), student), x, epochs=10).history
    values = history["neighbor_probability_loss"]
    assert values[-1] < values[0]
    assert "accuracy" not in history


def test_the_default_losses_go_with_gamma_and_pooling():
    shape, pooled = (8, 8, 3), {"teacher_layer": "pool_2", "student_layer": "pool_1"}
    models = cnn_teacher(shape), cnn_student(shape)
    distiller = LPDistiller(*models, gamma=0.1, pooling="max", **pooled)
    (loss,) = distiller.distillation_losses
    assert isinstance(loss, NeighborProbability) and loss.pooling == "max"
    assert distiller.distillation_loss_weights == [0.1 * PROBABILITY_FACTOR]
    with pytest.raises(ValueError, match="nothing to distil: `gamma` is None"):
        LPDistiller(*models, gamma=None)


def test_labels_may_be_missing_beside_a_loss_that_keeps_samples_apart(data):
    x, _ = data
    student = make_student()
    before = student.get_weights()
    distiller = LPDistiller(
        make_teacher(),
        student,
        distillation_losses=keras.distillation.LogitsDistillation(),
    )
    history = fit(distiller, x, epochs=10).history
    assert not same(before, student.get_weights())
    values = history["logits_distillation_loss"]
    assert values[-1] < values[0]
    assert "accuracy" not in history


@pytest.mark.parametrize("labels", ["missing", "without a loss"])
def test_the_locality_preserving_loss_alone_is_refused(data, teacher, student, labels):
    x, y = data
    before = student.get_weights()
    distiller = LPDistiller(teacher, student, distillation_losses=None)
    if labels == "without a loss":
        distiller.compile("adam")
    with pytest.raises(ValueError, match="to one point.*NeighborProbability"):
        distiller.fit(x, None if labels == "missing" else y, verbose=0)
    assert same(before, student.get_weights())


# Without `compile`


@pytest.mark.parametrize(
    ("activation", "classes", "labels", "loss", "said"),
    [
        (None, 3, "sparse", cross_entropy(), "sparse categorical.*logits"),
        (
            "softmax",
            3,
            "sparse",
            keras.losses.SparseCategoricalCrossentropy(),
            "sparse categorical.*probabilities",
        ),
        (
            None,
            3,
            "one-hot",
            keras.losses.CategoricalCrossentropy(from_logits=True),
            "one-hot.*logits",
        ),
        (
            "softmax",
            3,
            "one-hot",
            keras.losses.CategoricalCrossentropy(),
            "one-hot.*probabilities",
        ),
        (
            None,
            1,
            "binary",
            keras.losses.BinaryCrossentropy(from_logits=True),
            "binary.*logits",
        ),
        (
            "sigmoid",
            1,
            "binary",
            keras.losses.BinaryCrossentropy(),
            "binary.*probabilities",
        ),
    ],
)
def test_fit_without_compile(data, caplog, activation, classes, labels, loss, said):
    """Equals Adam, the fitting loss and accuracy, chosen by hand."""
    x, y = data
    if labels == "one-hot":
        y = keras.utils.to_categorical(y, 3)
    if labels == "binary":
        y = (y == 1).astype("float32")
    results = []
    for by_hand in (False, True):
        student = make_student(classes=classes, activation=activation)
        distiller = LPDistiller(make_teacher(), student)
        if by_hand:
            accuracy = "accuracy"
            if classes == 1:
                threshold = 0.0 if activation is None else 0.5
                accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=threshold)
            distiller.compile(keras.optimizers.Adam(), loss, metrics=[accuracy])
            caplog.clear()
        with caplog.at_level(logging.INFO, logger="keras_lpd"):
            history = fit(distiller, x, y, epochs=2, validation_data=(x, y)).history
        results.append((student.get_weights(), history))
        lines = [line for line in caplog.messages if "Not compiled" in line]
        assert len(lines) == (0 if by_hand else 1)
        if not by_hand:
            assert re.search(f"Adam.*{said}.*accuracy", lines[0])
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_the_chosen_layers_are_said_once_and_readable(caplog, data):
    with caplog.at_level(logging.INFO, logger="keras_lpd"):
        distiller = LPDistiller(make_teacher(), make_student())
        fit(distiller, *data, epochs=2)
        distiller.evaluate(*data, verbose=0)
    said = [line for line in caplog.messages if "Features" in line]
    assert len(said) == 1
    assert "'features' of 'teacher' (24 wide)" in said[0]
    assert "'features' of 'student' (6 wide)" in said[0]
    assert distiller.teacher_layer == distiller.student_layer == "features"


# Models of other kinds


def test_subclassed_models_with_feature_functions(data):
    x, y = data
    weights = []
    for gamma in (None, 0.0, 1.0):
        keras.utils.set_random_seed(3)
        teacher, student = (TwoLayers(n, activation="relu") for n in (20, 5))
        teacher(x)
        student(x)
        model = student
        if gamma is not None:
            model = LPDistiller(
                teacher,
                student,
                gamma=gamma,
                teacher_features=body_and_head,
                student_features=body_and_head,
            )
        model.compile("adam", cross_entropy())
        fit(model, x, y)
        weights.append(student.get_weights())
    assert same(weights[0], weights[1])
    assert not same(weights[0], weights[2])


def test_feature_functions_may_name_several_features(data):
    x, y = data
    teacher, student = (TwoLayers(width, activation="relu") for width in (20, 5))
    teacher(x)
    student(x)

    def named(model, inputs, training):
        features = model.body(inputs)
        return {"body": features, "half": features[:, ::2]}, model.head(features)

    distiller = LPDistiller(
        teacher,
        student,
        distillation_losses=[
            LocalityPreserving(teacher_layer_name="body", student_layer_name="half"),
            LocalityPreserving(teacher_layer_name="half", student_layer_name="body"),
        ],
        teacher_features=named,
        student_features=named,
    )
    distiller.compile("adam", cross_entropy())
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert logs["lp_loss"] > 0 and logs["lp_2_loss"] > 0


@pytest.mark.slow
def test_a_keras_applications_teacher_and_student():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (16, 32, 32, 3), dtype="uint8")
    y = random.integers(0, 5, 16)

    def model(alpha):
        backbone = keras.applications.MobileNetV2(
            (32, 32, 3), alpha=alpha, include_top=False, weights=None, pooling="avg"
        )
        return keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.Rescaling(1 / 127.5, offset=-1),
                backbone,
                layers.Dropout(0.2),
                layers.Dense(5),
            ]
        )

    teacher, student = model(0.5), model(0.35)
    before = teacher.get_weights()
    distiller = LPDistiller(
        teacher,
        student,
        teacher_layer="mobilenetv2_0.50_32/block_12_project",
        pooling="avg",
    )
    assert distiller.student_layer == "mobilenetv2_0.35_32"
    history = fit(distiller, x, y, batch_size=8).history
    assert history["lp_loss"][0] > 0
    assert same(before, teacher.get_weights())


# The teacher, `evaluate` and `predict` are left alone


def test_the_teacher_comes_out_as_it_went_in(data, teacher):
    teacher.layers[1].trainable = False
    flags = [(layer.name, layer.trainable) for layer in teacher._flatten_layers()]
    variables = [variable.numpy() for variable in teacher.variables]
    trainable = [variable.path for variable in teacher.trainable_variables]
    distiller = LPDistiller(
        teacher,
        make_student(),
        distillation_losses=keras.distillation.LogitsDistillation(),
    )
    fit(distiller, *data, epochs=2, validation_data=data)
    distiller.predict(data[0], verbose=0)
    assert same(variables, [variable.numpy() for variable in teacher.variables])
    assert flags == [(x.name, x.trainable) for x in teacher._flatten_layers()]
    assert trainable == [variable.path for variable in teacher.trainable_variables]


def test_the_teacher_runs_in_inference_mode(data, teacher):
    """Its dropout and batch statistics would make other neighbours."""
    x, y = data
    student = make_student()
    probe = keras.Model(teacher.inputs, teacher.get_layer("features").output)
    taught = probe(x, training=False)
    seen = []

    class Look(LocalityPreserving):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            seen.append(teacher_outputs)
            return super().compute_loss(teacher_outputs, student_outputs)

    distiller = LPDistiller(teacher, student, distillation_losses=Look())
    distiller.compile("sgd", cross_entropy(), run_eagerly=True)
    distiller.train_on_batch(x, y)
    assert np.array_equal(seen[-1], taught)


def test_evaluate_and_predict_are_the_students_and_change_nothing(data, teacher):
    x, y = data
    student = make_student()
    distiller = LPDistiller(teacher, student)
    for model in (distiller, student):
        model.compile("adam", cross_entropy(), metrics=["accuracy"])
    fit(distiller, x, y)
    variables = [variable.numpy() for variable in distiller.variables]
    ours = distiller.evaluate(x, y, return_dict=True, verbose=0)
    assert same(variables, [variable.numpy() for variable in distiller.variables])
    assert ours == student.evaluate(x, y, return_dict=True, verbose=0)
    assert np.array_equal(
        distiller.predict(x, verbose=0), student.predict(x, verbose=0)
    )
    assert np.array_equal(distiller(x), student(x))
    assert same(variables, [variable.numpy() for variable in distiller.variables])


def test_validation_in_fit_is_the_students(data, teacher, student):
    history = fit(LPDistiller(teacher, student), *data, validation_data=data).history
    assert sorted(history) == [
        "accuracy",
        "feature_spread",
        "loss",
        "lp_loss",
        "neighbor_probability_loss",
        "student_loss",
        "val_accuracy",
        "val_loss",
    ]


def test_a_callback_list_is_taken_as_it_is(data, teacher, student):
    distiller = LPDistiller(teacher, student)
    distiller.compile("adam", cross_entropy())
    epochs = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda e, logs: epochs.append(e)
    )
    callbacks = keras.callbacks.CallbackList([count], add_history=True, model=distiller)
    distiller.fit(*data, epochs=2, callbacks=callbacks, verbose=0)
    assert epochs == [0, 1]


def test_a_last_batch_of_one(data, teacher, student):
    x, y = data
    history = fit(LPDistiller(teacher, student), x[:33], y[:33], batch_size=32).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(weights).all() for weights in student.get_weights())
