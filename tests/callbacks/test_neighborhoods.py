"""`NeighborhoodMetrics`, in the `fit` of distillers and of plain models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.callbacks import NeighborhoodMetrics
from tests.helpers import (
    cross_entropy,
    make_student,
    make_teacher,
    same,
)
from tests.subclassed import TwoLayers, body_and_head

K = 4
NAMES = {
    "val_neighbor_overlap",
    "val_trustworthiness",
    "val_continuity",
    "val_knn_accuracy",
    "val_feature_spread",
}


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 300)
    x = 1.5 * random.normal(size=(3, 8))[y] + random.normal(size=(300, 8))
    return x.astype("float32"), y


def features_of(model, x, layer="features"):
    graph = keras.Model(model.inputs[0], model.get_layer(layer).output)
    return np.asarray(graph(x, training=False)).reshape(len(x), -1)


def neighbors_of(features):
    return NearestNeighbors(n_neighbors=K).fit(features).kneighbors()[1]


def expected(taught, learned, y):
    near, found = neighbors_of(taught), neighbors_of(learned)
    votes = [np.bincount(y[row]).argmax() for row in found]
    return {
        "val_neighbor_overlap": np.mean(
            [len(set(a) & set(b)) / K for a, b in zip(near, found)]
        ),
        "val_trustworthiness": trustworthiness(taught, learned, n_neighbors=K),
        "val_continuity": trustworthiness(learned, taught, n_neighbors=K),
        "val_knn_accuracy": np.mean(votes == y),
        "val_feature_spread": np.sqrt(
            np.mean(np.sum((learned - learned.mean(axis=0)) ** 2, axis=1))
        ),
    }


def fitted(student, data, callbacks, epochs=2, **kwargs):
    keras.utils.set_random_seed(7)
    student.compile(keras.optimizers.SGD(0.05), cross_entropy())
    return student.fit(
        *data, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs
    ).history


def last_of(history):
    return {name: history[name][-1] for name in history if name in NAMES}


def assert_values(history, values):
    assert last_of(history).keys() == values.keys()
    for name, value in values.items():
        assert history[name][-1] == pytest.approx(value, abs=1e-5), name
        assert isinstance(history[name][-1], float)


@pytest.mark.parametrize("count", [300, 40])
def test_values_after_an_epoch(data, count):
    teacher, student = make_teacher(), make_student()
    x, y = (part[:count] for part in data)
    history = fitted(
        LPDistiller(teacher, student), data, [NeighborhoodMetrics((x, y), k=K)]
    )
    values = expected(features_of(teacher, x), features_of(student, x), y)
    assert_values(history, values)
    assert len(history["val_continuity"]) == 2


def test_values_of_a_student_that_is_fitted_by_itself(data):
    teacher, student = make_teacher(), make_student()
    watch = NeighborhoodMetrics(data, k=K, teacher=teacher)
    history = fitted(student, data, [watch])
    x, y = data
    assert_values(
        history, expected(features_of(teacher, x), features_of(student, x), y)
    )


def test_values_in_the_stock_distiller(data):
    teacher, student = make_teacher(), make_student()
    distiller = keras.distillation.Distiller(
        teacher,
        student,
        keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence()),
    )
    history = fitted(distiller, data, [NeighborhoodMetrics(data, k=K)])
    x, y = data
    assert_values(
        history, expected(features_of(teacher, x), features_of(student, x), y)
    )


def test_other_layers_than_the_loss_compares(data):
    teacher, student = make_teacher(), make_student()
    watch = NeighborhoodMetrics(
        data, k=K, teacher_layer="dense", student_layer="activation"
    )
    teacher.layers[1].name, student.layers[3].name = "dense", "activation"
    history = fitted(LPDistiller(teacher, student), data, [watch])
    x, y = data
    values = expected(
        features_of(teacher, x, "dense"), features_of(student, x, "activation"), y
    )
    assert_values(history, values)


def maps(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Reshape((2, 2, 2)),
            keras.layers.Conv2D(5, 1, activation="relu", name="features"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ],
        name=f"maps_{seed}",
    )


@pytest.mark.parametrize("by_distiller", [True, False])
def test_maps_are_pooled_as_the_loss_does_it(data, by_distiller):
    teacher, student = maps(0), maps(1)
    if by_distiller:
        model = LPDistiller(teacher, student, pooling="avg")
        watch = NeighborhoodMetrics(data, k=K)
    else:
        model = student
        watch = NeighborhoodMetrics(data, k=K, teacher=teacher, pooling="avg")
    history = fitted(model, data, [watch])
    taught, learned = (
        features_of(one, data[0]).reshape(-1, 4, 5).mean(axis=1)
        for one in (teacher, student)
    )
    assert_values(history, expected(taught, learned, data[1]))


def test_subclassed_models(data):
    x, y = data
    teacher, student = TwoLayers(20), TwoLayers(6)
    for model in (teacher, student):
        model(x[:1])
    distiller = LPDistiller(
        teacher,
        student,
        teacher_features=body_and_head,
        student_features=body_and_head,
    )
    history = fitted(distiller, data, [NeighborhoodMetrics(data, k=K)])
    taught, learned = (np.asarray(one.body(x)) for one in (teacher, student))
    assert_values(history, expected(taught, learned, y))

    other = TwoLayers(6)
    other(x[:1])
    watch = NeighborhoodMetrics(
        data,
        k=K,
        teacher=teacher,
        teacher_features=body_and_head,
        student_features=body_and_head,
    )
    history = fitted(other, data, [watch])
    assert_values(history, expected(taught, np.asarray(other.body(x)), y))


def test_a_teacher_of_other_inputs(data):
    teacher = make_teacher(shape=(16,))
    wide = {"teacher_preprocessing": lambda x: keras.ops.concatenate([x, -x], axis=1)}
    student = make_student()
    model = LPDistiller(teacher, student, **wide)
    history = fitted(model, data, [NeighborhoodMetrics(data, k=K)])
    x, y = data
    taught = features_of(teacher, np.concatenate([x, -x], axis=1))
    assert_values(history, expected(taught, features_of(student, x), y))

    student = make_student()
    watch = NeighborhoodMetrics(data, k=K, teacher=teacher, **wide)
    history = fitted(student, data, [watch])
    assert_values(history, expected(taught, features_of(student, x), y))


def test_half_precision(data):
    teacher = make_teacher()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = make_student(activity_regularizer=None)
    finally:
        keras.config.set_dtype_policy("float32")
    history = fitted(
        LPDistiller(teacher, student), data, [NeighborhoodMetrics(data, k=K)]
    )
    x, y = data
    learned = features_of(student, x).astype("float32")
    values = expected(features_of(teacher, x), learned, y)
    # Values of eight bits tie, and each side breaks ties in its own way.
    for name, value in values.items():
        assert history[name][-1] == pytest.approx(value, abs=0.02), name


def test_a_cached_teacher(data, tmp_path):
    teacher = make_teacher()
    samples = tf.data.Dataset.from_tensor_slices(data)
    cache = TeacherCache.build(
        teacher, samples, tmp_path / "cache", dtype="float32", verbose=0
    )
    student = make_student()
    attached = cache.attach(samples).batch(64)
    distiller = LPDistiller(cache, student)
    distiller.compile("sgd", cross_entropy())
    watch = NeighborhoodMetrics(attached, k=K)
    history = distiller.fit(attached, epochs=1, verbose=0, callbacks=[watch]).history
    x, y = data
    values = expected(features_of(teacher, x), features_of(student, x), y)
    assert_values(history, values)

    with pytest.raises(ValueError, match="dataset=cache.attach"):
        distiller.fit(attached, verbose=0, callbacks=[NeighborhoodMetrics(data)])
    other = TeacherCache.build(
        make_teacher(seed=5), samples, tmp_path / "other", verbose=0
    )
    watch = NeighborhoodMetrics(other.attach(samples).batch(64))
    with pytest.raises(ValueError, match="the features of that cache"):
        distiller.fit(attached, verbose=0, callbacks=[watch])
    watch = NeighborhoodMetrics(attached, teacher_layer="early")
    with pytest.raises(ValueError, match="'features', not the features of .*'early'"):
        distiller.fit(attached, verbose=0, callbacks=[watch])

    # With the teacher itself there is no need of the cache.
    watch = NeighborhoodMetrics(data, k=K, teacher=teacher)
    history = distiller.fit(attached, verbose=0, callbacks=[watch]).history
    assert last_of(history).keys() == NAMES


@pytest.mark.parametrize("distils", [True, False])
def test_training_is_not_disturbed(data, distils):
    """To the bit, with dropout, batch normalization and the very data of training."""

    def weights(watched):
        student = make_student()
        tf.random.set_seed(2)
        dataset = tf.data.Dataset.from_tensor_slices(data).shuffle(300).batch(50)
        keras.utils.set_random_seed(3)
        teacher = make_teacher()
        model = LPDistiller(teacher, student) if distils else student
        watch = NeighborhoodMetrics(dataset, teacher=None if distils else teacher)
        model.compile("adam", cross_entropy())
        keras.utils.set_random_seed(4)
        model.fit(dataset, epochs=3, verbose=0, callbacks=[watch] if watched else [])
        return [*student.get_weights(), np.random.rand(), keras.random.uniform(())]

    assert same(weights(True), weights(False))


def test_the_teacher_is_run_once(data):
    runs = []

    def counted(x):
        tf.py_function(lambda: runs.append(len(runs)), [], [])
        return x

    watch = NeighborhoodMetrics(
        data, teacher=make_teacher(), teacher_preprocessing=counted
    )
    fitted(make_student(), data, [watch], epochs=4)
    assert len(runs) == 2  # 300 samples in two batches


@pytest.mark.parametrize("every, seen", [(1, 5), (2, 3), (3, 3), (100, 2)])
def test_every_so_many_epochs_and_the_last(data, every, seen):
    watch = NeighborhoodMetrics(data, every=every, teacher=make_teacher())
    history = fitted(make_student(), data, [watch], epochs=5)
    assert len(history["val_neighbor_overlap"]) == seen


@pytest.mark.parametrize("place, seen", [(0, 2), (1, 1)])
def test_the_last_epoch_of_a_training_that_is_stopped(data, place, seen):
    """It is known for that to the callbacks behind the one that stops."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    callbacks = [NeighborhoodMetrics(data, every=10, teacher=make_teacher())]
    callbacks.insert(place, Stop())
    history = fitted(make_student(), data, callbacks, epochs=9)
    assert len(history["val_neighbor_overlap"]) == seen


def test_other_callbacks_use_them(data, tmp_path):
    best = str(tmp_path / "{epoch}-{val_neighbor_overlap:.4f}.keras")
    callbacks = [
        NeighborhoodMetrics(data, k=K),
        keras.callbacks.ModelCheckpoint(
            best, monitor="val_neighbor_overlap", mode="max"
        ),
        keras.callbacks.EarlyStopping("val_feature_spread", mode="min", baseline=0.0),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
    ]
    history = fitted(
        LPDistiller(make_teacher(), make_student()), data, callbacks, epochs=3
    )
    values = history["val_neighbor_overlap"]
    assert len(values) == 2  # stopped early
    names = [f"{epoch}-{value:.4f}.keras" for epoch, value in enumerate(values, 1)]
    assert sorted(file.name for file in tmp_path.glob("*.keras")) == names
    (events,) = (tmp_path / "logs").glob("validation/events*")
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert "epoch_neighbor_overlap" in tags


def test_without_labels_there_is_nothing_to_vote_for(data):
    distiller = LPDistiller(make_teacher(), make_student())
    history = fitted(distiller, data, [NeighborhoodMetrics(data[0])])
    assert last_of(history).keys() == NAMES - {"val_knn_accuracy"}


def test_only_so_many_samples(data):
    teacher, student = make_teacher(), make_student()
    watch = NeighborhoodMetrics(data, k=K, max_samples=50)
    history = fitted(LPDistiller(teacher, student), data, [watch])
    x, y = data[0][:50], data[1][:50]
    assert_values(
        history, expected(features_of(teacher, x), features_of(student, x), y)
    )


def test_a_backbone_for_a_teacher(data):
    teacher = make_teacher()
    backbone = keras.Model(teacher.inputs[0], teacher.get_layer("features").output)
    student = make_student()
    history = fitted(
        LPDistiller(backbone, student), data, [NeighborhoodMetrics(data, k=K)]
    )
    x, y = data
    assert_values(
        history, expected(features_of(teacher, x), features_of(student, x), y)
    )


def test_a_student_that_diverges_is_told_of(data):
    student = make_student()

    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            student.layers[1].kernel.assign(np.nan * np.ones((8, 12)))

    watch = NeighborhoodMetrics(
        data, teacher=make_teacher(), student_layer=student.layers[1].name
    )
    with pytest.warns(UserWarning, match="After epoch 2 the student's features have"):
        history = fitted(student, data, [watch, Break()], epochs=2)
    assert len(history["val_neighbor_overlap"]) == 1


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda data: NeighborhoodMetrics(data), "knows no teacher.*teacher=teacher"),
        (
            lambda data: NeighborhoodMetrics(
                data, max_samples=20, teacher=make_teacher()
            ),
            "has 20 samples.*more than 20.*smaller `k`",
        ),
        (
            lambda data: NeighborhoodMetrics((data[0][:0], data[1][:0])),
            "`dataset` is empty",
        ),
        (
            lambda data: NeighborhoodMetrics(data, teacher=broken()),
            "'teacher' has NaN or infinite values in its weights",
        ),
        (lambda data: NeighborhoodMetrics(data, k=0), "`k` must be an integer"),
        (lambda data: NeighborhoodMetrics(data, every=0.5), "`every` must be"),
        (lambda data: NeighborhoodMetrics(data, max_samples=1), "`max_samples` must"),
        (lambda data: NeighborhoodMetrics(data, pooling="sum"), "`pooling` must be"),
        (
            lambda data: NeighborhoodMetrics(
                data, teacher=make_teacher(), student_layer="fetures"
            ),
            "Did you mean: features",
        ),
    ],
)
def test_refusals_before_training(data, made, words):
    student = make_student()
    before = student.get_weights()
    with pytest.raises(ValueError, match=words):
        fitted(student, data, [made(data)])
    assert same(before, student.get_weights())


def broken():
    teacher = make_teacher()
    teacher.layers[1].kernel.assign(np.nan * np.ones((8, 40)))
    return teacher
