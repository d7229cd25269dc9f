"""Metrics of training leave out samples of weight 0."""

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller
from keras_lpd.training.labelled import counting_labelled
from tests.helpers import cross_entropy, make_student, make_teacher

layers = keras.layers


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 8)).astype("float32")
    y = random.integers(0, 3, 32)
    weight = np.where(np.arange(32) % 4, 0.0, random.uniform(1, 4, 32))
    return x, y, weight.astype("float32")


def still_student(**kwargs):
    """One whose predictions are the same in training and after it."""
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, activation="relu"), layers.Dense(3)]
    )


def top_2(y_true, y_pred):
    return keras.metrics.sparse_top_k_categorical_accuracy(y_true, y_pred, k=2)


def test_metrics_count_the_labelled_alone(data):
    x, y, weight = data
    student = still_student()
    predicted = student.predict(x, verbose=0)
    distiller = LPDistiller(make_teacher(), student)
    distiller.compile(
        keras.optimizers.SGD(0.0),
        cross_entropy(),
        metrics=["accuracy", top_2],
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="weighted")],
    )

    logs = distiller.fit(x, y, 16, sample_weight=weight, verbose=0, shuffle=False)

    right = predicted.argmax(axis=1) == y
    in_two = [label in row.argsort()[-2:] for row, label in zip(predicted, y)]
    assert 0 < right[weight > 0].mean() != right.mean()
    history = logs.history
    assert history["accuracy"] == pytest.approx([right[weight > 0].mean()])
    assert history["top_2"] == pytest.approx([np.mean(in_two, where=weight > 0)])
    assert history["weighted"] == pytest.approx([np.average(right, weights=weight)])


def test_without_compile_too(data):
    x, y, weight = data
    student = still_student()
    distiller = LPDistiller(make_teacher(), student)
    logs = distiller.fit(x, y, 32, sample_weight=weight, verbose=0, shuffle=False)
    right = still_student().predict(x, verbose=0).argmax(axis=1) == y
    assert logs.history["accuracy"] == pytest.approx([right[weight > 0].mean()])


@pytest.mark.parametrize("weights", ["for all", "for each"])
def test_of_several_outputs(data, weights):
    x, y, weight = data
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, activation="relu", name="hidden")(inputs)
    outputs = {name: layers.Dense(3, name=name)(hidden) for name in ("one", "two")}
    student = keras.Model(inputs, outputs)
    predicted = student.predict(x, verbose=0)
    distiller = LPDistiller(make_teacher(), student, student_layer="hidden")
    distiller.compile(
        keras.optimizers.SGD(0.0),
        {"one": cross_entropy(), "two": cross_entropy()},
        metrics={"one": ["accuracy"], "two": ["accuracy"]},
    )
    every = {"one": weight, "two": weight[::-1].copy()}

    logs = distiller.fit(
        x,
        {"one": y, "two": y},
        sample_weight=every if weights == "for each" else weight,
        verbose=0,
        shuffle=False,
    ).history

    for name in ("one", "two"):
        used = (every[name] if weights == "for each" else weight) > 0
        right = predicted[name].argmax(axis=1) == y
        assert logs[f"{name}_accuracy"] == pytest.approx([right[used].mean()])


def test_evaluate_is_kerass(data):
    x, y, weight = data
    student = make_student()
    distiller = LPDistiller(make_teacher(), student)
    for model in (student, distiller):
        model.compile("sgd", cross_entropy(), metrics=["accuracy"])
    options = {"sample_weight": weight, "verbose": 0, "return_dict": True}
    assert distiller.evaluate(x, y, **options) == student.evaluate(x, y, **options)


def test_without_weights_nothing_changes(data):
    x, y, _ = data
    logs = {}
    for distilled in (False, True):
        model = student = make_student()
        if distilled:
            model = LPDistiller(make_teacher(), student, gamma=0.0)
        model.compile("sgd", cross_entropy(), metrics=["accuracy", top_2])
        keras.utils.set_random_seed(3)
        logs[distilled] = model.fit(x, y, 16, verbose=0, shuffle=False).history
    for name in ("accuracy", "top_2"):
        assert logs[True][name] == logs[False][name]


def test_metrics_are_left_as_they_were(data):
    x, y, weight = data
    student = still_student()
    student.compile("sgd", cross_entropy(), metrics=["accuracy"])
    student.train_on_batch(x, y)
    compiled = student._compile_metrics
    predicted = student(x)
    compiled.reset_state()
    with pytest.raises(ZeroDivisionError), counting_labelled(compiled, weight):
        raise ZeroDivisionError
    compiled.update_state(y, predicted, weight)
    right = np.argmax(predicted, axis=1) == y
    assert float(compiled.result()["accuracy"]) == pytest.approx(right.mean())
