"""Losses that train layers of their own, and the others beside them, in training."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.losses import (
    AttentionTransfer,
    CorrelationCongruence,
    Hint,
    LocalityPreserving,
    NeighborProbability,
    ProbabilisticTransfer,
    RelationalKnowledge,
    SimilarityPreserving,
    hint_loss,
)
from tests.distiller.conftest import cross_entropy, make_student, make_teacher, same
from tests.distiller.test_saving import output_of
from tests.subclassed import TwoLayers, body_and_head

layers = keras.layers

VECTOR_LOSSES = [
    SimilarityPreserving,
    RelationalKnowledge,
    ProbabilisticTransfer,
    CorrelationCongruence,
    NeighborProbability,
]
OTHERS = [AttentionTransfer, *VECTOR_LOSSES]


def make_looker(name, channels, size, seed=0):
    """A model whose features are square maps of that size."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(36),
            layers.Reshape((6, 6, 1)),
            layers.Conv2D(channels, 7 - size, activation="relu", name="features"),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ],
        name=name,
    )


def make_plain(name="plain", width=6, seed=1):
    """One without dropout, so that its steps can be written out by hand."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(width, activation="tanh", name="features"),
            layers.Dense(3, name="logits"),
        ],
        name=name,
    )


def features_of(model, x):
    """What its feature layer makes of them, by Keras alone."""
    layer = model.get_layer("features")
    return keras.Model(model.inputs[0], layer.output)(x, training=False)


def hinted(teacher, student, weight=1.0, **settings):
    return LPDistiller(
        teacher,
        student,
        gamma=None,
        distillation_losses=Hint(**settings),
        distillation_loss_weights=weight,
    )


def regressor_of(distiller):
    return distiller.distillation_losses[0].layer


def fit(model, *data, **kwargs):
    keras.utils.set_random_seed(5)
    return model.fit(*data, verbose=0, **kwargs).history


# Parameters


def test_a_dense_regressor_is_counted(teacher, student):
    distiller = hinted(teacher, student)
    assert distiller.auxiliary_parameters() == 24 * 6 + 24
    assert len(distiller.trainable_weights) == len(student.trainable_weights) + 2


@pytest.mark.parametrize(
    ("settings", "kernel"), [({}, (4, 4, 2, 5)), ({"regressor": "dense"}, (72, 45))]
)
def test_a_regressor_of_maps_is_counted(settings, kernel):
    teacher, student = make_looker("teacher", 5, 3), make_looker("student", 2, 6)
    distiller = hinted(teacher, student, **settings)
    assert tuple(regressor_of(distiller).kernel.shape) == kernel
    assert distiller.auxiliary_parameters() == np.prod(kernel) + kernel[-1]


@pytest.mark.parametrize("kind", OTHERS)
def test_the_other_losses_train_the_student_alone(kind):
    student = make_looker("student", 2, 6)
    distiller = LPDistiller(
        make_looker("teacher", 5, 3), student, distillation_losses=kind()
    )
    assert distiller.auxiliary_parameters() == 0
    assert len(distiller.trainable_weights) == len(student.trainable_weights)


def test_hints_with_the_same_teacher_again_keep_their_regressor(data, teacher, student):
    distiller = hinted(teacher, student)
    fit(distiller, *data)
    layer, weights = regressor_of(distiller), regressor_of(distiller).get_weights()
    distiller.set_teacher(make_teacher(seed=3))
    assert regressor_of(distiller) is layer
    assert same(layer.get_weights(), weights)
    assert distiller.auxiliary_parameters() == 24 * 6 + 24
    fit(distiller, *data)
    assert not same(layer.get_weights(), weights)


def test_two_hints_have_a_regressor_each(data):
    teacher, student = make_teacher(), make_plain()
    distiller = LPDistiller(
        teacher,
        student,
        gamma=None,
        distillation_losses=[Hint(), Hint(teacher_layer_name="logits", name="last")],
    )
    assert distiller.auxiliary_parameters() == (24 * 6 + 24) + (3 * 6 + 3)
    before = [loss.layer.get_weights() for loss in distiller.distillation_losses]
    fit(distiller, *data)
    after = [loss.layer.get_weights() for loss in distiller.distillation_losses]
    assert not same(before[0], after[0])
    assert not same(before[1], after[1])


# Training


@pytest.mark.parametrize(
    ("maps", "jit_compile"), [(False, False), (False, True), (True, False)]
)
def test_student_and_regressor_train_as_written_out_by_hand(data, maps, jit_compile):
    x, y = data
    if maps:
        teacher, student = make_looker("teacher", 5, 3), make_looker("student", 2, 6)
    else:
        teacher, student = make_teacher(), make_plain()
    by_hand = keras.models.clone_model(student)
    by_hand.set_weights(student.get_weights())
    distiller = hinted(teacher, student, weight=0.7)
    regressor = regressor_of(distiller)
    kernel, bias = (tf.Variable(weights) for weights in regressor.get_weights())
    distiller.compile(
        keras.optimizers.SGD(0.1), cross_entropy(), jit_compile=jit_compile
    )
    before = regressor.get_weights()

    logs = fit(distiller, x, y, batch_size=32, epochs=2, shuffle=False)

    taught = features_of(teacher, x)
    learned = keras.Model(
        by_hand.inputs[0], [by_hand.get_layer("features").output, by_hand.outputs[0]]
    )
    hints = []
    for start in (0, 32, 64, 0, 32, 64):
        rows = slice(start, start + 32)
        with tf.GradientTape() as tape:
            features, outputs = learned(x[rows], training=True)
            if maps:
                guess = tf.nn.conv2d(features, kernel, 1, "VALID") + bias
            else:
                guess = tf.matmul(features, kernel) + bias
            hint = tf.reduce_mean((taught[rows] - guess) ** 2)
            loss = cross_entropy()(y[rows], outputs) + 0.7 * hint
        variables = [*by_hand.trainable_variables, kernel, bias]
        for variable, gradient in zip(variables, tape.gradient(loss, variables)):
            variable.assign_sub(0.1 * gradient)
        hints.append(float(hint))

    assert not same(before, regressor.get_weights())
    for ours, theirs in zip(
        [*student.get_weights(), *regressor.get_weights()],
        [*by_hand.get_weights(), kernel, bias],
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        logs["hint_loss"], [np.mean(hints[:3]), np.mean(hints[3:])], rtol=1e-4
    )


def test_at_weight_0_the_student_is_the_one_trained_alone(data):
    students = {}
    for weight in (None, 0.0, 1.0):
        student = make_student()
        model = student if weight is None else hinted(make_teacher(), student, weight)
        model.compile("adam", cross_entropy(), metrics=["accuracy"])
        history = fit(model, *data, epochs=2)
        students[weight] = student.get_weights(), history["accuracy"]
    assert same(students[None][0], students[0.0][0])
    assert students[None][1] == students[0.0][1]
    assert not same(students[None][0], students[1.0][0])


def test_without_labels_the_student_learns_the_hints(data):
    distiller = hinted(make_teacher(), make_plain())
    distiller.compile(keras.optimizers.Adam(0.01))
    losses = fit(distiller, data[0], epochs=5)["hint_loss"]
    assert losses[-1] < 0.9 * losses[0]


# The weights that come with the losses, as their docstrings have them
DEFAULT_WEIGHTS = {
    Hint: 100.0,
    AttentionTransfer: 1000.0,
    SimilarityPreserving: 3000.0,
    RelationalKnowledge: 1.0,
    ProbabilisticTransfer: 30000.0,
    CorrelationCongruence: 0.02,
    NeighborProbability: 2.0,
}


@pytest.mark.parametrize("kind", DEFAULT_WEIGHTS)
def test_a_step_adds_the_loss_at_its_default_weight(data, kind):
    x, y = data
    teacher, student = make_looker("teacher", 5, 3), make_looker("student", 2, 6)
    features = [features_of(model, x) for model in (teacher, student)]
    distiller = LPDistiller(teacher, student, gamma=None, distillation_losses=kind())
    loss = distiller.distillation_losses[0]
    expected = float(loss.compute_loss(*features))
    assert expected > 1e-5

    distiller.compile("sgd", cross_entropy())
    logs = distiller.train_on_batch(x, y, return_dict=True)

    value = float(logs[f"{loss.name}_loss"])
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(
        logs["loss"], logs["student_loss"] + DEFAULT_WEIGHTS[kind] * value, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        (Hint, "mixed_float16"),
        (Hint, "mixed_bfloat16"),
        (AttentionTransfer, "mixed_float16"),
        (RelationalKnowledge, "mixed_float16"),
        (ProbabilisticTransfer, "mixed_float16"),
    ],
)
def test_mixed_precision(data, kind, policy):
    """In float16 the first steps are left out, until the loss is scaled to fit."""
    keras.config.set_dtype_policy(policy)
    try:
        distiller = LPDistiller(
            make_looker("teacher", 5, 3),
            make_looker("student", 2, 6),
            gamma=None,
            distillation_losses=kind(),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    before = distiller.get_weights()
    distiller.compile(keras.optimizers.Adam(1e-3), cross_entropy())
    history = fit(distiller, *data, batch_size=4)
    assert np.isfinite(history["loss"]).all()
    assert history[f"{distiller.distillation_losses[0].name}_loss"][0] > 0
    assert all(np.isfinite(weights).all() for weights in distiller.get_weights())
    assert not same(before, distiller.get_weights())
    if kind is Hint:
        assert regressor_of(distiller).kernel.dtype == "float32"
        assert regressor_of(distiller).compute_dtype == "float32"


# Files


def test_the_students_file_knows_nothing_of_the_hint(tmp_path, data):
    student, alone = make_student(), make_student()
    count = student.count_params()
    distiller = hinted(make_teacher(), student)
    fit(distiller, *data)
    assert student.count_params() == count

    student.save(tmp_path / "student.keras")
    np.save(tmp_path / "x.npy", data[0])
    code = """
        import sys, keras, numpy as np
        student = keras.models.load_model(sys.argv[1] + "/student.keras")
        x = np.load(sys.argv[1] + "/x.npy")
        np.save(sys.argv[1] + "/y.npy", student.predict(x, verbose=0))
        print(student.count_params(), "keras_lpd" in sys.modules)
    """
    assert output_of(code, tmp_path).split()[-2:] == [str(count), "False"]
    np.testing.assert_array_equal(
        np.load(tmp_path / "y.npy"), student.predict(data[0], verbose=0)
    )
    alone.load_weights(tmp_path / "student.keras")
    assert same(alone.get_weights(), student.get_weights())


@pytest.mark.parametrize("maps", [False, True])
def test_a_saved_distiller_goes_on_as_if_never_stopped(tmp_path, data, maps):
    """Student, regressor and the optimizer's moments of both, to the bit."""
    if maps:
        teacher, student = make_looker("teacher", 5, 3), make_looker("student", 2, 6)
    else:
        teacher, student = make_teacher(), make_student()
    distiller = hinted(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.01), cross_entropy())
    fit(distiller, *data)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.auxiliary_parameters() == distiller.auxiliary_parameters()
    assert same(
        regressor_of(loaded).get_weights(), regressor_of(distiller).get_weights()
    )
    loaded.set_teacher(teacher)

    fit(distiller, *data, shuffle=False, epochs=2)
    fit(loaded, *data, shuffle=False, epochs=2)

    assert same(loaded.student.get_weights(), student.get_weights())
    assert same(
        regressor_of(loaded).get_weights(), regressor_of(distiller).get_weights()
    )
    for ours, theirs in zip(
        loaded.optimizer.variables, distiller.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_checkpoints_hold_the_regressor(tmp_path, data):
    distiller = hinted(make_teacher(), make_student())
    fit(distiller, *data)
    distiller.save_weights(tmp_path / "latest.weights.h5")
    fresh = hinted(make_teacher(), make_student(seed=9))
    assert not same(fresh.get_weights(), distiller.get_weights())
    fresh.load_weights(tmp_path / "latest.weights.h5")
    assert same(fresh.get_weights(), distiller.get_weights())
    assert same(
        regressor_of(fresh).get_weights(), regressor_of(distiller).get_weights()
    )


class Cut(keras.callbacks.Callback):
    """Ends the training in the middle of an epoch, by an error."""

    def __init__(self, epoch):
        super().__init__()
        self.cut_at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.cut_at and batch == 1:
            raise InterruptedError


def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(tmp_path, data):
    results = []
    for cut in (None, 2):
        folder = tmp_path / str(cut)
        for stop in [cut] * (cut is not None) + [None]:
            distiller = hinted(make_teacher(), make_student())
            distiller.compile(keras.optimizers.Adam(0.01), cross_entropy())
            callbacks = [keras.callbacks.BackupAndRestore(folder), Cut(stop)]
            expected = pytest.raises(InterruptedError)
            with contextlib.nullcontext() if stop is None else expected:
                fit(distiller, *data, epochs=4, shuffle=False, callbacks=callbacks)
        results.append([*distiller.get_weights(), *distiller.optimizer.variables])
    assert same(*results)


def test_a_distiller_made_without_a_teacher_gets_its_regressor_with_one(data):
    distiller = hinted(None, make_plain())
    assert distiller.auxiliary_parameters() == 0
    distiller.compile("sgd", cross_entropy())
    distiller.evaluate(*data, verbose=0)
    distiller.set_teacher(make_teacher())
    assert distiller.auxiliary_parameters() == 24 * 6 + 24
    before = regressor_of(distiller).get_weights()
    fit(distiller, *data)
    assert not same(before, regressor_of(distiller).get_weights())


# Students that are no graph of layers


@pytest.fixture
def free(data):
    keras.utils.set_random_seed(1)
    student = TwoLayers(activation="tanh")
    student(data[0])
    return student


def test_a_subclassed_student_needs_a_built_hint(data, teacher, free):
    before = free.get_weights()
    with pytest.raises(ValueError, match=r"not made yet.*loss\.build\(teacher_shape"):
        distiller = LPDistiller(
            teacher,
            free,
            gamma=None,
            distillation_losses=Hint(),
            student_features=body_and_head,
        )
        fit(distiller, *data)
    assert same(before, free.get_weights())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_subclassed_student_trains_with_a_built_hint(data, teacher, free, when):
    """Built before the distiller is made, or when `fit` has asked for it."""
    loss = Hint()
    if when == "before":
        loss.build((None, 24), (None, 5))
    distiller = LPDistiller(
        teacher,
        free,
        gamma=None,
        distillation_losses=loss,
        student_features=body_and_head,
    )
    if when == "after":
        with pytest.raises(ValueError, match="not made yet"):
            fit(distiller, *data)
        loss.build((None, 24), (None, 5))
    assert distiller.auxiliary_parameters() == 24 * 5 + 24
    before = free.get_weights(), loss.layer.get_weights()
    fit(distiller, *data)
    assert not same(before[0], free.get_weights())
    assert not same(before[1], loss.layer.get_weights())


# What is refused


def test_a_teacher_of_another_width_is_refused(data, student):
    distiller = hinted(make_teacher(), student)
    fit(distiller, *data)
    other = make_plain("other", width=9)
    with pytest.raises(ValueError, match=r"regressor.*\(24,\).*\(9,\).*Make a new"):
        distiller.set_teacher(other)
    assert distiller.teacher is not other
    fit(distiller, *data)  # with the teacher it had


def test_maps_that_no_convolution_fits_are_refused():
    teacher, student = make_looker("teacher", 5, 6), make_looker("student", 2, 3)
    with pytest.raises(ValueError, match=r"no larger.*Hint\(regressor='dense'\)"):
        hinted(teacher, student)
    assert hinted(teacher, student, regressor="dense").auxiliary_parameters() > 0


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_attention_between_vectors_is_refused(data, role):
    models = {"teacher": make_looker("t", 5, 3), "student": make_looker("s", 2, 6)}
    models[role] = make_plain()
    before = models["student"].get_weights()
    with pytest.raises(ValueError, match=r"feature maps.*Name convolutional.*layer"):
        distiller = LPDistiller(
            models["teacher"],
            models["student"],
            gamma=None,
            distillation_losses=AttentionTransfer(),
        )
        fit(distiller, *data)
    assert same(before, models["student"].get_weights())


# Keras's own Distiller


def in_stock_distiller(loss, data, teacher, student):
    distiller = keras.distillation.Distiller(
        teacher, student, distillation_losses=loss, student_loss_weight=0.0
    )
    distiller.compile(keras.optimizers.SGD(0.01), cross_entropy())
    return distiller.fit(*data, batch_size=96, verbose=0).history


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("kind", [LocalityPreserving, *OTHERS])
def test_the_stock_distiller_trains_without_regressors(data, kind):
    teacher, student = make_looker("teacher", 5, 3), make_looker("student", 2, 6)
    features = [features_of(model, data[0]) for model in (teacher, student)]
    before = student.get_weights()
    loss = kind(teacher_layer_name="features", student_layer_name="features")
    history = in_stock_distiller(loss, data, teacher, student)
    expected = float(kind().compute_loss(*features))
    np.testing.assert_allclose(history["distillation_loss"], [expected], rtol=1e-4)
    assert np.any(before[0] != student.get_weights()[0])
    assert all(np.isfinite(weights).all() for weights in student.get_weights())


def test_the_stock_distiller_can_not_train_hints(data):
    loss = Hint(teacher_layer_name="features", student_layer_name="features")
    with pytest.raises(ValueError, match=r"regressor to train.*stock.*LPDistiller"):
        in_stock_distiller(loss, data, make_teacher(), make_plain())


# On what a cache keeps


def dataset_of(data):
    return tf.data.Dataset.from_tensor_slices(data)


@pytest.mark.parametrize("kind", [Hint, AttentionTransfer, NeighborProbability])
def test_a_cache_teaches_what_the_teacher_does(tmp_path, data, kind):
    teacher, batches = make_looker("teacher", 5, 3), dataset_of(data).batch(40)
    cache = TeacherCache.build(
        teacher, dataset_of(data), tmp_path / "cache", dtype="float32", verbose=0
    )
    attached = cache.attach(dataset_of(data)).batch(40)
    weights = []
    for given, x in ((teacher, batches), (cache, attached)):
        student = make_looker("student", 2, 6, seed=1)
        keras.utils.set_random_seed(2)
        distiller = LPDistiller(given, student, gamma=None, distillation_losses=kind())
        distiller.compile(keras.optimizers.SGD(1e-3), cross_entropy())
        before = distiller.trainable_weights[0].numpy()
        fit(distiller, x, epochs=2)
        assert np.any(before != distiller.trainable_weights[0])
        weights.append([weight.numpy() for weight in distiller.trainable_weights])
    assert same(*weights)


@pytest.fixture
def projected(tmp_path, data):
    """A cache of maps, flattened and projected; and its teacher."""
    teacher = make_looker("teacher", 5, 3)
    path = tmp_path / "projected"
    cache = TeacherCache.build(teacher, dataset_of(data), path, project=9, verbose=0)
    return cache, teacher


@pytest.mark.parametrize("loss", [AttentionTransfer(), Hint("convolutional")])
def test_losses_on_maps_refuse_those_that_were_flattened(data, projected, loss):
    cache, teacher = projected
    student = make_looker("student", 2, 6)
    with pytest.raises(ValueError, match="compares feature maps.*flattened"):
        LPDistiller(cache, student, gamma=None, distillation_losses=loss)
    online = LPDistiller(teacher, student, gamma=None, distillation_losses=loss)
    with pytest.raises(ValueError, match="compares feature maps.*flattened"):
        fit(online, cache.attach(dataset_of(data)).batch(32))


def test_a_hint_takes_projected_features_as_vectors(data, projected):
    cache, _ = projected
    distiller = hinted(cache, make_looker("student", 2, 6))
    assert distiller.auxiliary_parameters() == 9 * 72 + 9
    history = fit(distiller, cache.attach(dataset_of(data)).batch(32))
    assert history["hint_loss"][0] > 0


@pytest.mark.parametrize("regressor", ["auto", "dense"])
def test_a_hint_made_for_whole_features_refuses_projected_ones(
    data, projected, regressor
):
    """Batches of 5, in which as many numbers come as one sample has."""
    cache, teacher = projected
    student = make_looker("student", 2, 6)
    distiller = hinted(teacher, student, regressor=regressor)
    before = student.get_weights()
    with pytest.raises(ValueError, match="flattened|projected|made for"):
        fit(distiller, cache.attach(dataset_of(data)).batch(5, drop_remainder=True))
    assert same(before, student.get_weights())


def test_a_hint_made_for_a_cache_goes_on_with_it_after_loading(
    tmp_path, data, projected
):
    cache, _ = projected
    attached = cache.attach(dataset_of(data)).batch(32)
    distiller = hinted(cache, make_looker("student", 2, 6))
    distiller.compile(keras.optimizers.SGD(0.01), cross_entropy())
    fit(distiller, attached)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.set_teacher(cache)
    fit(distiller, attached)
    fit(loaded, attached)
    assert same(loaded.get_weights(), distiller.get_weights())
    assert hint_loss(regressor_of(loaded).kernel, regressor_of(distiller).kernel) == 0
