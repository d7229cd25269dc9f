"""Training on several devices: the student learns what it would on one."""

import functools
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache, losses
from keras_lpd.datasets import mix_unlabelled
from keras_lpd.neighbors import pairwise_squared_distances
from tests.devices import strategy
from tests.helpers import cross_entropy
from tests.training.given import EVEN, ONE_LEFT, UNEVEN, apart, network, samples
from tests.workers import Workers

L = keras.layers


def convolutional(width, seed, *more):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            L.Reshape((4, 2, 1)),
            L.Conv2D(width, 2, padding="same", activation="relu", name="features"),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="logits"),
        ]
    )


def sgd(rate=0.05, **kwargs):
    return lambda: keras.optimizers.SGD(rate, **kwargs)


SGD = sgd()


def fitted(
    here,
    count=UNEVEN,
    optimizer=SGD,
    settings=dict,
    make=network,
    weighted=False,
    student_layers=(),
    loss=cross_entropy,
    labels=True,
    batch_size=32,
):
    """The student's weights and the last logs after three epochs.

    By so many devices, 0 for one without a strategy; or under a strategy.
    """
    if isinstance(here, int):
        here = strategy(here) if here else tf.distribute.get_strategy()
    x, y, sample_weight = (rows[:count] for rows in samples())
    with here.scope():
        teacher, student = make(40, 0), make(24, 1, *student_layers)
        distiller = LPDistiller(teacher, student, **{"gamma": 0.05, **settings()})
        metrics = ["accuracy"]
        distiller.compile(
            optimizer(),
            loss() if labels else None,
            metrics=metrics if labels else None,
            weighted_metrics=metrics if weighted else None,
        )
    history = distiller.fit(
        x,
        y if labels else None,
        batch_size=batch_size,
        epochs=3,
        shuffle=False,
        verbose=0,
        sample_weight=sample_weight if weighted else None,
    )
    return (
        [np.array(weight) for weight in distiller.student.get_weights()],
        {name: float(values[-1]) for name, values in history.history.items()},
    )


def same_as_on_one_device(devices=2, **kwargs):
    expected, expected_logs = fitted(0, **kwargs)
    layers = kwargs.get("student_layers", ())
    start = kwargs.get("make", network)(24, 1, *layers).get_weights()
    found, logs = fitted(devices, **kwargs)
    assert apart(expected, start) > 1e-3  # something was learned
    assert apart(expected, found) < 1e-5
    assert logs.keys() == expected_logs.keys()
    for name, value in expected_logs.items():
        assert logs[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


OPTIMIZERS = {
    "sgd": sgd(),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9),
    "clipnorm": sgd(clipnorm=0.05),
    "global_clipnorm": sgd(global_clipnorm=0.05),
    "clipvalue": sgd(clipvalue=0.01),
    "loss_scale_factor": sgd(clipnorm=0.05, loss_scale_factor=64.0),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(sgd()()),
    "loss scale, clipnorm": lambda: keras.optimizers.LossScaleOptimizer(
        sgd(clipnorm=0.05)()
    ),
}


def slow_but(*soon, of):
    """All cases by name, of which only some go with the quick tests."""
    return [
        pytest.param(make, id=name, marks=[] if name in soon else pytest.mark.slow)
        for name, make in of.items()
    ]


@pytest.mark.parametrize(
    "optimizer", slow_but("adam", "loss scale, clipnorm", of=OPTIMIZERS)
)
def test_optimizers(optimizer):
    same_as_on_one_device(optimizer=optimizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "count, weighted", [(EVEN, True), (UNEVEN, True), (ONE_LEFT, False)]
)
def test_batches_that_leave_something(count, weighted):
    same_as_on_one_device(count=count, weighted=weighted)


IN_A_PROCESS = """
import sys
from tests.training.test_replicas import *
"""


def run(script):
    """What a script prints that has a process of its own, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS + script],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


@pytest.mark.slow
def test_four_devices():
    """In a process of its own: TensorFlow mixes up strategies in one."""
    script = """
for count in (EVEN, UNEVEN, ONE_LEFT):
    same_as_on_one_device(devices=4, count=count)
    print(count, "samples")
"""
    assert run(script) == ["96 samples", "113 samples", "97 samples"]


@pytest.mark.parametrize("batch_size", [33, 1])
def test_batches_that_do_not_divide(batch_size):
    same_as_on_one_device(batch_size=batch_size, count=40)


SETTINGS = {
    "the paper's": lambda: {"distillation_losses": None},
    "fixed sigma, l2": lambda: {"sigma": 2.0, "k": 3, "normalize": "l2"},
    "spread": lambda: {"normalize": "spread"},
    "weight 0": lambda: {"gamma": 0.0},
    "all that compare samples": lambda: {
        "distillation_losses": [
            losses.LocalityPreserving(name="again", sigma=3.0),
            losses.RelationalKnowledge(),
            losses.SimilarityPreserving(),
            losses.ProbabilisticTransfer(),
            losses.CorrelationCongruence(),
            losses.NeighborProbability(),
            Together(),
            ByKeras(),
        ],
        "distillation_loss_weights": [0.01, 0.1, 10.0, 100.0, 10.0, 2.0, 0.5, 1e-3],
        "gamma": None,
    },
    "sample by sample": lambda: {
        "distillation_losses": [
            losses.Hint("dense"),
            logits_distillation(),  # divides by the number of replicas itself
            Apart(),
            ApartByKeras(),
            keras.distillation.FeatureDistillation(
                teacher_layer_name="logits", student_layer_name="logits"
            ),
        ],
        "distillation_loss_weights": [1.0, 1.0, 0.5, 0.5, 0.5],
    },
}


def logits_distillation():
    return keras.distillation.LogitsDistillation(
        temperature=2.0, loss=keras.losses.KLDivergence()
    )


class Apart(keras.distillation.DistillationLoss):
    """Sample by sample, and the mean over them."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs))

    def validate_outputs(self, teacher_outputs, student_outputs):
        pass


class Together(Apart):
    """Of all samples with one another, and it says so."""

    compares_samples = True

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        tables = [
            keras.ops.matmul(outputs, keras.ops.transpose(outputs))
            for outputs in (teacher_outputs, student_outputs)
        ]
        return super().compute_loss(*tables)


class ApartByKeras(Apart):
    """Divides by the number of replicas, since Keras does, and says so."""

    divides_by_replicas = True

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return keras.losses.MeanSquaredError()(teacher_outputs, student_outputs)


class ByKeras(losses.FeatureLoss):
    """The same, of the distances of all features, by a loss that it holds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.losses.MeanSquaredError()

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return self.inner(
            *(
                pairwise_squared_distances(features)
                for features in (teacher_outputs, student_outputs)
            )
        )


@pytest.mark.parametrize(
    "settings",
    # These two have nearly all losses in them.
    slow_but("all that compare samples", "sample by sample", of=SETTINGS),
)
def test_losses(settings):
    same_as_on_one_device(settings=settings, optimizer=sgd(0.01))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [None, "avg"])
def test_feature_maps(pooling):
    same_as_on_one_device(
        make=convolutional,
        settings=lambda: {
            "distillation_losses": [
                losses.LocalityPreserving(pooling=pooling),
                losses.NeighborProbability(pooling=pooling),
                losses.AttentionTransfer(),
                losses.Hint(),
            ],
            "distillation_loss_weights": [0.01, 0.5, 1.0, 1.0],
            "gamma": None,
            "teacher_layer": "features",
            "student_layer": "features",
        },
    )


def test_without_labels():
    same_as_on_one_device(
        labels=False,
        settings=lambda: {"distillation_losses": losses.NeighborProbability()},
    )


@pytest.mark.slow
def test_a_loss_that_is_a_sum():
    same_as_on_one_device(
        loss=lambda: cross_entropy(reduction="sum"), optimizer=sgd(0.002)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [functools.partial(losses.Hint, "dense"), losses.NeighborProbability],
    ids=["hint", "neighbours"],
)
@pytest.mark.parametrize("neighborhood", ["global", "replica"])
def test_a_device_without_a_sample(kind, neighborhood):
    """Its part counts for nothing, in the weights and in the logs."""

    def make():
        return {
            "gamma": None,
            "distillation_losses": kind(),
            "neighborhood": neighborhood,
        }

    if neighborhood == "global":
        same_as_on_one_device(settings=make, count=ONE_LEFT)
        return
    weights, logs = fitted(2, settings=make, count=ONE_LEFT)
    assert all(np.isfinite(weight).all() for weight in weights)
    assert np.isfinite(list(logs.values())).all()
    assert logs["feature_spread"] > 0


@pytest.mark.slow
def test_losses_in_half_precision():
    """What a loss of one's own gives may be half precision too."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        (_, one), (_, two) = (
            fitted(devices, count=EVEN, settings=SETTINGS["sample by sample"])
            for devices in (0, 2)
        )
    finally:
        keras.config.set_dtype_policy(before)
    for name in ("apart_loss", "apart_by_keras_loss", "student_loss"):
        assert two[name] == pytest.approx(one[name], rel=0.05), name


@pytest.mark.slow
@pytest.mark.parametrize("count", [EVEN, UNEVEN])
def test_synchronized_batch_statistics(count):
    norm = functools.partial(L.BatchNormalization, synchronized=True)
    same_as_on_one_device(student_layers=[norm], count=count)


def test_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        one, _ = fitted(0, count=EVEN)
        two, _ = fitted(2, count=EVEN)
        apart_from_each_other, _ = fitted(
            2, count=EVEN, settings=lambda: {"neighborhood": "replica"}
        )
    finally:
        keras.config.set_dtype_policy(before)
    assert apart(one, two) < 0.02 < apart(one, apart_from_each_other)


@pytest.mark.slow
def test_unlabelled_samples_beside_labelled_ones():
    x, y, _ = samples()
    labelled = tf.data.Dataset.from_tensor_slices((x[:40], y[:40]))
    unlabelled = tf.data.Dataset.from_tensor_slices(x[40:104])
    mixed = list(
        mix_unlabelled(labelled, unlabelled, batch_size=16).as_numpy_iterator()
    )
    assert len(mixed) > 2
    # In one order for both: under a strategy Keras has a look at the data before.
    rows = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *mixed)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(32)
    found = []
    for devices in (0, 2):
        here = strategy(devices) if devices else tf.distribute.get_strategy()
        with here.scope():
            distiller = LPDistiller(network(40, 0), network(24, 1), gamma=0.05)
            distiller.compile(sgd()(), cross_entropy(), metrics=["accuracy"])
        history = distiller.fit(batches, epochs=2, verbose=0)
        weights = [np.array(weight) for weight in distiller.student.get_weights()]
        found.append((weights, history.history["accuracy"]))
    assert apart(found[0][0], found[1][0]) < 1e-5
    assert found[0][1] == pytest.approx(found[1][1])


def test_a_teacher_cache(tmp_path):
    x, y, _ = samples()
    data = tf.data.Dataset.from_tensor_slices((x, y))
    cache = TeacherCache.build(network(40, 0), data, tmp_path / "cache")
    found = []
    for devices in (0, 2):
        here = strategy(devices) if devices else tf.distribute.get_strategy()
        with here.scope():
            distiller = LPDistiller(cache, network(24, 1), gamma=0.05)
            distiller.compile(sgd()(), cross_entropy())
        distiller.fit(cache.attach(data).batch(32), epochs=3, verbose=0)
        found.append(distiller.student.get_weights())
    assert apart(*found) < 1e-5


@pytest.mark.slow
def test_features_that_come_beside_a_running_teacher(tmp_path):
    x, y, _ = samples()
    data = tf.data.Dataset.from_tensor_slices((x, y))
    with strategy(2).scope():
        teacher = network(40, 0)
        distiller = LPDistiller(teacher, network(24, 1), gamma=0.05)
        distiller.compile(sgd()(), cross_entropy())
    cache = TeacherCache.build(teacher, data, tmp_path / "cache", dtype="float32")
    distiller.fit(cache.attach(data).batch(32), epochs=3, verbose=0)
    assert apart(fitted(0)[0], distiller.student.get_weights()) < 1e-5


def test_a_teacher_made_outside():
    x, y, _ = samples()
    teacher = network(40, 0)
    with strategy(2).scope():
        distiller = LPDistiller(teacher, network(24, 1), gamma=0.05)
        distiller.compile(sgd()(), cross_entropy())
    distiller.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
    assert apart(fitted(0)[0], distiller.student.get_weights()) < 1e-5


@pytest.mark.slow
def test_without_compile_and_with_validation():
    x, y, _ = samples()
    found = []
    for devices in (0, 2):
        here = strategy(devices) if devices else tf.distribute.get_strategy()
        with here.scope():
            distiller = LPDistiller(network(40, 0), network(24, 1))
        history = distiller.fit(
            x, y, validation_data=(x, y), epochs=2, shuffle=False, verbose=0
        )
        scores = distiller.evaluate(x, y, verbose=0)
        found.append((history.history, scores, distiller.predict(x, verbose=0)))
    (expected, expected_scores, expected_outputs), (logs, scores, outputs) = found
    assert logs.keys() == expected.keys()
    for name, values in expected.items():
        assert logs[name] == pytest.approx(values, rel=1e-4, abs=1e-5), name
    assert scores == pytest.approx(expected_scores, rel=1e-4)
    np.testing.assert_allclose(outputs, expected_outputs, atol=1e-4)


# Several workers

BY_WORKERS = {
    "uneven": {"optimizer": OPTIMIZERS["adam"]},
    "one left": {"count": ONE_LEFT, "weighted": True},
    "does not divide": {"batch_size": 33},
    "ema": {"optimizer": OPTIMIZERS["ema"]},
    "clipped": {"optimizer": OPTIMIZERS["global_clipnorm"]},
    "loss scale": {"optimizer": OPTIMIZERS["loss scale, clipnorm"]},
    "losses": {
        "settings": SETTINGS["all that compare samples"],
        "optimizer": sgd(0.01),
    },
    "synchronized": {
        "student_layers": [functools.partial(L.BatchNormalization, synchronized=True)]
    },
}


def by_each_worker(strategy, folder, index):
    """What each of two workers does and writes down."""
    for name, kwargs in BY_WORKERS.items():
        weights, logs = fitted(strategy, **kwargs)
        np.savez(folder / f"{name}-{index}.npz", *weights)
        (folder / f"{name}-{index}.json").write_text(json.dumps(logs))
    with strategy.scope():
        cached = LPDistiller(TeacherCache.open(folder / "cache"), network(24, 1))
        cached.compile(sgd()(), cross_entropy())
    data = tf.data.Dataset.from_tensor_slices(samples()[:2])
    cached.fit(cached.teacher.attach(data).batch(32), epochs=3, verbose=0)
    np.savez(folder / f"cached-{index}.npz", *cached.student.get_weights())
    with strategy.scope():
        plain = LPDistiller(network(40, 0), network(24, 1, L.BatchNormalization))
        plain.compile(sgd()(), cross_entropy())
    with pytest.warns(UserWarning, match=r"BatchNormalization\(synchronized=True\)"):
        plain.fit(*(rows[:EVEN] for rows in samples()[:2]), verbose=0)


@pytest.fixture(scope="module")
def by_workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    data = tf.data.Dataset.from_tensor_slices(samples()[:2])
    TeacherCache.build(network(40, 0), data, folder / "cache", dtype="float32")
    with Workers(by_each_worker, folder) as workers:
        workers.finish()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_WORKERS)
def test_two_workers(by_workers, name):
    expected, expected_logs = fitted(0, **BY_WORKERS[name])
    one, other = (
        list(np.load(by_workers / f"{name}-{index}.npz").values()) for index in (0, 1)
    )
    assert apart(one, other) == 0
    assert apart(one, expected) < 1e-5
    logs = json.loads((by_workers / f"{name}-1.json").read_text())
    for key, value in expected_logs.items():
        assert logs[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


@pytest.mark.slow
def test_two_workers_with_a_cache(by_workers):
    one, other = (
        list(np.load(by_workers / f"cached-{index}.npz").values()) for index in (0, 1)
    )
    expected, _ = fitted(0, settings=lambda: {"gamma": 0.005})
    assert apart(one, other) == 0
    assert apart(one, expected) < 1e-5


# A neighbourhood of one's own


@pytest.mark.slow
def test_neighbourhoods_of_each_replica_are_others():
    settings = {"settings": lambda: {"neighborhood": "replica"}, "count": EVEN}
    one, _ = fitted(0, **settings)
    two, _ = fitted(2, **settings)
    assert apart(one, fitted(0, count=EVEN)[0]) == 0
    assert apart(one, two) > 1e-3


def test_neighbourhoods_of_each_replica_are_those_of_half_a_batch():
    """Each replica's loss is that of its half by itself; the mean of both is taken."""
    x, y, _ = samples()
    teacher, student = network(40, 0), network(24, 1)
    loss = losses.LocalityPreserving()
    features = [
        keras.Model(m.inputs, m.get_layer("features").output)
        for m in (teacher, student)
    ]
    halves = [
        loss.compute_loss(*(f(half) for f in features)) for half in (x[:16], x[16:32])
    ]
    with strategy(2).scope():
        distiller = LPDistiller(network(40, 0), network(24, 1), neighborhood="replica")
        distiller.compile(sgd(0.0)(), cross_entropy())
    logs = distiller.fit(x[:32], y[:32], batch_size=32, shuffle=False, verbose=0)
    assert logs.history["lp_loss"][0] == pytest.approx(float(np.mean(halves)), rel=1e-5)


def test_the_neighbourhood_is_saved():
    distiller = LPDistiller(network(40, 0), network(24, 1), neighborhood="replica")
    again = LPDistiller.from_config(distiller.get_config())
    assert again.get_config()["neighborhood"] == "replica"


@pytest.mark.slow
def test_a_second_strategy_is_explained():
    script = """
for count in (EVEN, UNEVEN):
    strategy.cache_clear()
    try:
        print(count, "samples:", fitted(2, count=count)[1])
    except ValueError as error:
        print(count, "samples:", error)
"""
    first, second = run(script)
    assert first.startswith("96 samples: {")
    # If it is here that this fails, TensorFlow has mended it.
    assert second.startswith("113 samples: TensorFlow mixes up")
    assert "Restart it, and make the strategy once" in second
