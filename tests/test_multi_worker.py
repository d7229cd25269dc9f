"""`fit`, `evaluate` and `predict` by two workers, against the same in one process."""

from __future__ import annotations

import contextlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import multi_worker
from keras_lpd.multi_worker import MultiWorkerFit, check_keras, has_several_workers
from tests.workers import Workers

layers = keras.layers


# What each worker does, and the test process by itself: name -> arrays.

SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


class Classifier(MultiWorkerFit, keras.Sequential):
    pass


class Functional(MultiWorkerFit, keras.Model):
    pass


def data(count=64):
    random = np.random.default_rng(0)
    y = random.integers(0, 3, count)
    centers = 1.5 * random.normal(size=(3, 8))
    x = centers[y] + random.normal(size=(count, 8))
    return x.astype("float32"), y


def make(strategy, kind=Classifier, metrics=("accuracy",), build=True):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = kind([layers.Dense(16, "relu"), layers.Dense(3)])
        if build:
            model.build((None, 8))
        model.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=list(metrics),
        )
    return model


def weights(model):
    return {f"weight {i}": np.array(w) for i, w in enumerate(model.get_weights())}


def logged(history):
    return {f"log {name}": values for name, values in history.history.items()}


def batches(parts, size=16):
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


@scenario
def arrays(strategy):
    x, y = data()
    model = make(strategy, build=False)
    fitted = model.fit(
        x, y, 16, 3, shuffle=False, verbose=0, validation_data=(x[:48], y[:48])
    )
    scores = model.evaluate(x[:60], y[:60], batch_size=16, verbose=0)
    outputs = model.predict(x[:60], batch_size=16, verbose=0)
    return {
        **weights(model),
        **logged(fitted),
        "scores": scores,
        "outputs": outputs,
        "steps": np.array(model.optimizer.iterations.numpy()),
    }


@scenario
def empty_last_batch(strategy):
    x, y = data(33)
    model = make(strategy)
    scores = model.evaluate(x, y, batch_size=16, verbose=0)
    outputs = model.predict(x, batch_size=16, verbose=0)
    fitted = model.fit(x, y, 16, 2, shuffle=False, verbose=0)
    return {**weights(model), **logged(fitted), "scores": scores, "outputs": outputs}


@scenario
def evaluated_first(strategy):
    x, y = data()
    return {"scores": make(strategy, build=False).evaluate(x, y, 16, verbose=0)}


@scenario
def seen_by_callbacks(strategy):
    x, y = data()
    seen = []
    model = make(strategy)
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["loss"])
    )
    model.fit(x, y, 16, shuffle=False, verbose=0, callbacks=[see])
    return {"losses": np.array(seen)}


@scenario
def sample_weights(strategy):
    x, y = data()
    model = make(strategy)
    fitted = model.fit(
        batches((x, y, np.linspace(0, 1, 64, dtype="float32"))), epochs=2, verbose=0
    )
    return {**weights(model), **logged(fitted)}


@scenario
def class_weights(strategy):
    x, y = data()
    model = make(strategy)
    model.fit(x, y, 16, class_weight={0: 0.1, 1: 1, 2: 2}, shuffle=False, verbose=0)
    return weights(model)


@scenario
def dicts(strategy):
    x, y = data()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = {name: keras.Input((4,), name=name) for name in ("left", "right")}
        wide = layers.Dense(16, "relu")(layers.Concatenate()(list(inputs.values())))
        outputs = {"a": layers.Dense(3)(wide), "b": layers.Dense(1)(wide)}
        model = Functional(inputs, outputs)
        entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", {"a": entropy, "b": "mse"}, metrics={"a": ["accuracy"]})
    x = {"left": x[:, :4], "right": x[:, 4:]}
    given = batches((x, {"a": y, "b": y[:, None].astype("float32")}))
    fitted = model.fit(given, epochs=2, verbose=0, validation_data=given)
    found = model.predict(batches((x,)), verbose=0)
    return {**weights(model), **logged(fitted), "found a": found["a"]}


@scenario
def steps_per_epoch(strategy):
    x, y = data()
    model = make(strategy)
    model.fit(batches((x, y)).repeat(), epochs=3, steps_per_epoch=3, verbose=0)
    return {**weights(model), "steps": np.array(model.optimizer.iterations.numpy())}


@scenario
def several_values_in_a_log(strategy):
    x, y = data()
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = Classifier([keras.Input((8,)), layers.Dense(3, "softmax")])
        each = keras.metrics.F1Score(average=None, name="each")
        model.compile("sgd", "categorical_crossentropy", metrics=[each])
    steps = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(np.shape(logs["each"]))
    )
    y = keras.utils.to_categorical(y, 3)
    fitted = model.fit(x, y, 16, shuffle=False, verbose=0, callbacks=[see])
    return {**logged(fitted), "shapes": np.array(steps)}


@scenario
def data_of_each_worker(strategy):
    x, y = data()

    def part(context):
        size = context.get_per_replica_batch_size(16)
        given = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
        given = given.map(
            lambda x, y: (
                x[context.input_pipeline_id * size :][:size],
                y[context.input_pipeline_id * size :][:size],
            )
        )
        return given.repeat()

    model = make(strategy, build=False)
    given = strategy.distribute_datasets_from_function(part)
    fitted = model.fit(given, epochs=2, steps_per_epoch=4, verbose=0)
    return {**weights(model), **logged(fitted)}


@scenario
def on_batches(strategy):
    """Of its own rows each: the strategy knows nothing of how to divide them."""
    x, y = data(16)
    context = strategy.cluster_resolver
    if context is not None:
        x, y = (rows[8 * context.task_id :][:8] for rows in (x, y))
    model = make(strategy)
    logs = model.train_on_batch(x, y, return_dict=True)
    return {**weights(model), "loss": logs["loss"]}


class HalfMended(MultiWorkerFit, keras.Sequential):
    """With the first of the two replacements only."""

    _make_function = keras.Sequential._make_function


def complaint(model, *given):
    try:
        model.fit(*given, verbose=0)
    except Exception as error:
        return str(error)
    return ""


# Running them


def run(strategy, folder, index, scenarios=None):
    for function in scenarios or SCENARIOS[1:]:
        np.savez(folder / f"{function.__name__}{index}.npz", **function(strategy))


def run_first(strategy, folder, index):
    run(strategy, folder, index, SCENARIOS[:1])


def run_and_complain(strategy, folder, index):
    run(strategy, folder, index)
    x, y = data()
    complaints = {
        kind.__name__: complaint(make(strategy, kind), x, y)
        for kind in (keras.Sequential, HalfMended)
    }
    with_none = batches((x, y)).map(lambda x, y: (x, y, None))
    complaints["none"] = complaint(make(strategy), with_none)
    (folder / f"complaints{index}.json").write_text(json.dumps(complaints))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """What two workers wrote, and, as if there were a third, this process."""
    folder = tmp_path_factory.mktemp("workers")
    with Workers(run_first, folder) as workers:
        workers.finish()
    run_first(tf.distribute.get_strategy(), folder, "-")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same of all the others."""
    folder = tmp_path_factory.mktemp("workers")
    with Workers(run_and_complain, folder) as workers:
        workers.finish()
    run(tf.distribute.get_strategy(), folder, "-")
    return folder


@pytest.fixture(
    params=[
        SCENARIOS[0],
        *(pytest.param(one, marks=pytest.mark.slow) for one in SCENARIOS[1:]),
    ],
    ids=lambda function: function.__name__,
)
def found(request):
    name = request.param.__name__
    first = request.param is SCENARIOS[0]
    folder = request.getfixturevalue("first" if first else "folder")
    return [dict(np.load(folder / f"{name}{index}.npz")) for index in (0, 1, "-")]


# The tests


def test_the_workers_agree_to_the_bit(found):
    one, other, _ = found
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_they_give_what_one_process_gives(request, found):
    worker, _, alone = found
    uneven = "empty_last_batch" in request.node.name
    assert worker.keys() == alone.keys()
    for name in alone:
        assert worker[name].shape == alone[name].shape
        assert np.isfinite(worker[name]).all()
        # Of replicas with unlike many samples Keras takes the mean of their means: not
        # the gradient of the whole batch, but no reason to fail either.
        if not (uneven and name.startswith(("weight", "log"))):
            np.testing.assert_allclose(
                worker[name], alone[name], rtol=0, atol=1e-6, err_msg=name
            )


def complaints(folder, name):
    return [
        json.loads((folder / f"complaints{index}.json").read_text())[name]
        for index in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "error", "method"),
    [
        ("Sequential", "Attempt to convert a value", "_maybe_symbolic_build"),
        ("HalfMended", "Invalid reduction dimension", "_make_function"),
    ],
)
def test_keras_still_fails_by_itself(folder, model, error, method):
    for complaint in complaints(folder, model):
        assert error in complaint, (
            f"Keras {keras.__version__} has mended, or changed, what "
            f"`MultiWorkerFit.{method}` stands for: it may go, for this version on. "
            f"Received: {complaint or 'no error'}"
        )


@pytest.mark.slow
def test_none_in_batches_is_refused(folder):
    for complaint in complaints(folder, "none"):
        assert "Leave it out: (x, y) in place of (x, y, None)" in complaint


# Which Keras


@pytest.fixture
def several_workers(monkeypatch):
    monkeypatch.setattr(multi_worker, "has_several_workers", lambda strategy: True)
    multi_worker._warn_once.cache_clear()
    yield
    multi_worker._warn_once.cache_clear()


def train(model):
    x, y = data(8)
    with contextlib.suppress(AttributeError):  # There are no workers, after all.
        model.fit(x, y, verbose=0)


def score(model):
    x, y = data(8)
    with contextlib.suppress(AttributeError):
        model.evaluate(x, y, verbose=0)


def no_strategy():
    return tf.distribute.get_strategy()


@pytest.mark.parametrize("use", [train, score])
@pytest.mark.parametrize("version", ["3.16.0", "4.0.0.dev2026"])
def test_a_newer_keras_is_warned_of_once(several_workers, monkeypatch, use, version):
    model = make(no_strategy())
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.warns(UserWarning) as warned:
        use(model)
        use(model)
    (said,) = [str(one.message) for one in warned if "keras-lpd" in str(one.message)]
    assert f"tested with Keras 3.12 to 3.15; this is Keras {version}" in said
    assert "Attempt to convert a value" in said
    assert "Invalid reduction dimension 0" in said
    assert warned[0].filename == __file__


@pytest.mark.parametrize("version", ["3.12.0", "3.15.9", keras.__version__])
def test_a_tested_keras_is_not(several_workers, monkeypatch, recwarn, version):
    monkeypatch.setattr(keras, "__version__", version)
    check_keras()
    assert not recwarn.list


@pytest.mark.parametrize("use", [train, score])
@pytest.mark.parametrize("method", multi_worker.REPLACED)
def test_a_keras_without_the_methods_is_refused(
    several_workers, monkeypatch, use, method
):
    model = make(no_strategy())
    owner = next(kind for kind in keras.Model.__mro__ if method in vars(kind))
    monkeypatch.delattr(owner, method)
    gone = not hasattr(keras.Model, method)  # unless another base has it too
    assert gone, "Delete it from all bases."
    with pytest.raises(RuntimeError, match=f"has no `{method}`. Expected: Keras 3.12"):
        use(model)


# Elsewhere nothing changes


@pytest.mark.parametrize(
    "strategy",
    [
        tf.distribute.get_strategy,
        lambda: tf.distribute.OneDeviceStrategy("/cpu:0"),
        lambda: tf.distribute.MirroredStrategy(["/cpu:0"]),
        tf.distribute.MultiWorkerMirroredStrategy,  # of one worker
    ],
    ids=["none", "one device", "mirrored", "one worker"],
)
def test_nothing_changes_without_several_workers(strategy, monkeypatch):
    strategy = strategy()

    def never():
        raise AssertionError

    monkeypatch.setattr(multi_worker, "check_keras", never)
    assert not has_several_workers(strategy)
    x, y = data()
    results = []
    for kind in (Classifier, keras.Sequential):
        model = make(strategy, kind)
        fitted = model.fit(x, y, 16, 2, verbose=0, validation_data=(x, y))
        scores = model.evaluate(x, y, verbose=0)
        results.append([*model.get_weights(), scores, *fitted.history.values()])
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


def test_functional_models_leave_other_classes_alone():
    class Other(MultiWorkerFit, keras.Model):
        pass

    before = [kind.__mro__ for kind in (Other, MultiWorkerFit)]
    inputs = keras.Input((8,))
    Functional(inputs, layers.Dense(2)(inputs))
    assert [kind.__mro__ for kind in (Other, MultiWorkerFit)] == before
