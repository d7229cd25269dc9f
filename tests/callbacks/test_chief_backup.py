"""Trainings that are cut off and go on: in one process, and by two workers."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import time
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller, beside
from keras_lpd.callbacks import ChiefBackup, chief_backup
from keras_lpd.multi_worker import MultiWorkerFit
from keras_lpd.seeds import seed_states
from tests.helpers import make_teacher
from tests.workers import Workers

layers = keras.layers

EPOCHS = 5


class Classifier(MultiWorkerFit, keras.Sequential):
    pass


class Counting(layers.Layer):
    """Counts batches in a weight that all workers have to read together."""

    def __init__(self):
        super().__init__()
        self.seen = keras.Variable(
            0.0, trainable=False, synchronization="on_read", aggregation="mean"
        )
        self.built = True

    def call(self, inputs, training=None):
        if training:
            self.seen.assign_add(1.0)
        return inputs


class Stop(keras.callbacks.Callback):
    """Cuts the training off in the midst of an epoch."""

    def __init__(self, epoch, how, batch=1):
        super().__init__()
        self.at, self.how = (epoch, batch), how

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            self.how()


class Cut(Exception):
    pass


def cut():
    raise Cut


def samples(count=64):
    random = np.random.default_rng(0)
    y = random.integers(0, 3, count)
    x = 1.5 * random.normal(size=(3, 8))[y] + random.normal(size=(count, 8))
    return x.astype("float32"), y


def entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make(seed=0, width=16, optimizer=None, strategy=None, dropout=True):
    """A model with all that a training has to remember."""
    keras.utils.set_random_seed(seed)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = Classifier(
            [
                keras.Input((8,)),
                layers.Dense(width, "relu"),
                layers.BatchNormalization(synchronized=strategy is not None),
                *([layers.Dropout(0.3)] if dropout else []),
                Counting(),
                layers.Dense(3),
            ]
        )
        # Under a strategy, Keras can't overwrite while it trains.
        every = None if strategy else 3
        optimizer = optimizer or keras.optimizers.Adam(
            0.01, use_ema=True, ema_overwrite_frequency=every
        )
        model.compile(optimizer, entropy(), metrics=["accuracy"])
    return model


def make_loss_scaled(seed=0):
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01, momentum=0.9), dynamic_growth_steps=3
    )
    return make(seed, optimizer=scaled)


def make_distiller(seed=0, strategy=None):
    """A student with dropout, as its teacher has."""
    keras.utils.set_random_seed(seed)
    with (strategy or tf.distribute.get_strategy()).scope():
        student = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(6, "relu", name="features"),
                layers.Dropout(0.2),
                layers.Dense(3),
            ]
        )
        distiller = LPDistiller(make_teacher(), student)
        adam = keras.optimizers.Adam(0.01)
        distiller.compile(adam, entropy(), metrics=["accuracy"])
    return distiller


def fit(model, *callbacks, epochs=EPOCHS, **kwargs):
    x, y = samples()
    return model.fit(x, y, 16, epochs, 0, list(callbacks), shuffle=False, **kwargs)


def fit_and_stop(model, *callbacks, epoch=2):
    with pytest.raises(Cut):
        fit(model, *callbacks, Stop(epoch, cut))


def state(model):
    """All that tells how far a training has come."""
    found = [*model.weights, *model.optimizer.variables]
    found += seed_states(model)
    return [np.array(variable.numpy()) for variable in found]


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


KINDS = [make, make_loss_scaled, make_distiller]


# One process


@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_to_the_very_same_weights(kind, tmp_path):
    whole = kind()
    logs = fit(whole, validation_data=samples(32)).history
    fit_and_stop(kind(), ChiefBackup(tmp_path / "b"))
    resumed = kind(seed=7)
    backup = ChiefBackup(tmp_path / "b")
    assert backup.initial_epoch == 2
    more = fit(resumed, backup, validation_data=samples(32))
    assert_same(state(resumed), state(whole))
    assert more.epoch == [2, 3, 4]
    for name in ("loss", "accuracy", "val_loss"):
        assert more.history[name] == logs[name][2:]


def test_backing_up_changes_nothing(tmp_path):
    models = make(), make()
    fit(models[0], ChiefBackup(tmp_path / "b"))
    fit(models[1])
    assert_same(state(models[0]), state(models[1]))


@pytest.mark.slow
def test_cut_off_again_and_again(tmp_path):
    for epoch in (1, 1, 4):  # once before it came any farther
        fit_and_stop(make(seed=epoch), ChiefBackup(tmp_path), epoch=epoch)
    resumed, whole = make(seed=9), make(seed=1)
    assert fit(resumed, ChiefBackup(tmp_path)).epoch == [4]
    fit(whole)
    assert_same(state(resumed), state(whole))


def test_cut_off_in_the_first_epoch_begins_anew(tmp_path):
    fit_and_stop(make(), ChiefBackup(tmp_path), epoch=0)
    assert ChiefBackup(tmp_path).initial_epoch == 0
    assert fit(make(), ChiefBackup(tmp_path)).epoch == list(range(EPOCHS))


def fit_shuffled(model, backup, *callbacks):
    """With the order of samples that the docstring shows."""
    x, y = samples()

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(x)), [0, epoch])
        data = tf.data.Dataset.from_tensor_slices(order)
        return data.map(lambda i: (tf.gather(x, i), tf.gather(y, i))).batch(16)

    data = tf.data.Dataset.range(backup.initial_epoch, EPOCHS).flat_map(one_epoch)
    return model.fit(
        data,
        epochs=EPOCHS,
        steps_per_epoch=4,
        verbose=0,
        callbacks=[backup, *callbacks],
        validation_data=samples(32),
    )


@pytest.mark.slow
def test_an_order_by_epoch_goes_on_where_it_was(tmp_path):
    whole, resumed, fixed = make(), make(seed=7), make()
    fit_shuffled(whole, ChiefBackup(tmp_path / "whole"))
    with pytest.raises(Cut):
        fit_shuffled(make(), ChiefBackup(tmp_path / "b"), Stop(2, cut))
    fit_shuffled(resumed, ChiefBackup(tmp_path / "b"))
    assert_same(state(resumed), state(whole))
    fit(fixed)
    assert not np.array_equal(fixed.get_weights()[0], whole.get_weights()[0])


# The file


def test_it_is_deleted_in_the_end_and_nothing_else(tmp_path):
    fit(make(), ChiefBackup(tmp_path / "alone"))
    assert not (tmp_path / "alone").exists()
    (tmp_path / "notes.txt").write_text("mine")
    fit(make(), ChiefBackup(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_if_it_stays_a_training_that_is_done_is_not_done_again(tmp_path):
    whole, again = make(), make(seed=7)
    fit(whole, ChiefBackup(tmp_path, delete_checkpoint=False))
    backup = ChiefBackup(tmp_path, delete_checkpoint=False)
    assert backup.path.exists() and backup.initial_epoch == EPOCHS
    assert fit(again, backup).epoch == []
    assert_same(state(again), state(whole))
    assert fit(again, backup, epochs=EPOCHS + 1).epoch == [EPOCHS]


def test_the_next_training_of_the_model_begins_at_the_first_epoch(tmp_path):
    fit_and_stop(make(), ChiefBackup(tmp_path))
    model = make()
    assert fit(model, ChiefBackup(tmp_path)).epoch == [2, 3, 4]
    assert fit(model, epochs=2).epoch == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        (keras.Model, "save_weights"),
        (chief_backup.shutil, "copyfile"),
        (beside.os, "fsync"),
        (pathlib.Path, "replace"),
    ],
    ids=lambda place: place[1],
)
def test_cut_off_while_writing_the_old_backup_stays_whole(place, tmp_path, monkeypatch):
    owner, name = place
    kept = getattr(owner, name)
    model = make()

    def fail(*args, **kwargs):
        if name == "copyfile":  # A part of it gets there.
            args[1].write_bytes(args[0].read_bytes()[:1000])
        raise Cut

    class FailNext(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                monkeypatch.setattr(owner, name, fail)

    with pytest.raises(Cut):
        fit(model, ChiefBackup(tmp_path), FailNext())
    monkeypatch.setattr(owner, name, kept)
    whole, resumed = make(), make(seed=7)
    fit(whole)
    assert fit(resumed, ChiefBackup(tmp_path)).epoch == [2, 3, 4]
    assert_same(state(resumed), state(whole))
    assert not list(tmp_path.glob("*"))  # nor half a file


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: make(width=17), r"Of its weights, number 0 is \(8, 16\) float32"),
        (lambda: make(optimizer=keras.optimizers.SGD()), "optimizer.*Adam.*SGD"),
        (
            lambda: make(optimizer=keras.optimizers.Adam()),
            r"optimizer's variables, number 3 is \(16,\) float32",
        ),
        (lambda: make(dropout=False), "random states, number 0 .* it is missing"),
        (make_distiller, "of model 'lp_distiller' it is"),
    ],
)
def test_a_backup_of_another_model_is_refused(other, said, tmp_path):
    fit_and_stop(make(), ChiefBackup(tmp_path))
    model = other()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"(?s)is of another model.*{said}") as refused:
        fit(model, ChiefBackup(tmp_path))
    assert "delete the backup to train from the start" in str(refused.value)
    assert_same(model.get_weights(), before)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


def of_keras(path):
    make().save_weights(path)


def without_a_weight(path):
    with h5py.File(path, "r+") as file:
        del file["layers"]["dense"]["vars"]["0"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncated, empty, of_keras, without_a_weight])
def test_a_damaged_backup_is_refused(damage, tmp_path):
    fit_and_stop(make(), ChiefBackup(tmp_path))
    backup = ChiefBackup(tmp_path)
    damage(backup.path)
    with pytest.raises(ValueError, match="can't be read") as refused:
        fit(make(), backup)
    assert str(backup.path) in str(refused.value)
    assert "delete it to train from the start" in str(refused.value)


@pytest.mark.parametrize("folder", ["", "gs://bucket/backup"])
def test_a_folder_that_is_none_is_refused(folder):
    with pytest.raises(ValueError, match="`backup_dir` must be a folder"):
        ChiefBackup(folder)


def test_an_unbuilt_model_is_refused(tmp_path):
    model = keras.Sequential([layers.Dense(3)])
    model.compile("sgd", entropy())
    with pytest.raises(ValueError, match="not built yet"):
        fit(model, ChiefBackup(tmp_path))


def test_a_keras_without_the_initial_epoch_is_refused(tmp_path):
    model = make()
    del model._initial_epoch
    backup = ChiefBackup(tmp_path)
    backup.set_model(model)
    with pytest.raises(RuntimeError, match="lacks it. Install Keras 3.15"):
        backup.on_train_begin()


def test_under_a_strategy_of_one_process(tmp_path):
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    whole, resumed = (make(seed, strategy=strategy) for seed in (0, 7))
    fit(whole)
    fit_and_stop(make(strategy=strategy), ChiefBackup(tmp_path))
    fit(resumed, ChiefBackup(tmp_path))
    assert_same(state(resumed), state(whole))


# Who is the chief


@pytest.mark.parametrize(
    ("jobs", "task", "chief"),
    [
        (["worker"], ("worker", 0), True),
        (["worker"], ("worker", 1), False),
        (["chief", "worker"], ("chief", 0), True),
        (["chief", "worker"], ("worker", 0), False),
    ],
)
def test_who_is_the_chief(jobs, task, chief, monkeypatch):
    several = {job: ["127.0.0.1:1", "127.0.0.1:2"] for job in jobs}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(several), task_type=task[0], task_id=task[1]
    )
    strategy = SimpleNamespace(cluster_resolver=resolver)
    assert chief_backup.is_chief(strategy)  # It is no strategy of several workers.
    monkeypatch.setattr(chief_backup, "has_several_workers", lambda strategy: True)
    assert chief_backup.is_chief(strategy) is chief


# Two workers


def train(strategy, folder, index):
    """Trains with a backup; the worker that the environment names dies on its way."""
    model = make(seed=0, strategy=strategy)
    callbacks = [ChiefBackup(folder / "backup")]
    dying, epoch = map(int, os.environ["DIES"].split(","))
    if index == dying:
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        callbacks.append(Stop(epoch, kill))
    fitted = fit_shuffled(model, *callbacks)
    np.savez(folder / f"resumed{index}.npz", *state(model))
    left = [path.name for path in folder.glob("backup/*")]
    whole = make(strategy=strategy)
    fit_shuffled(whole, ChiefBackup(folder / "whole"))
    np.savez(folder / f"whole{index}.npz", *state(whole))
    said = {
        "epochs": fitted.epoch,
        "left": left,
        "unshared": unshared(strategy, folder, index),
        "late": late(strategy, folder, index),
        "distiller": distilled(strategy, folder),
    }
    (folder / f"said{index}.json").write_text(json.dumps(said))


def unshared(strategy, folder, index):
    """What is said if each worker has a folder of its own."""
    backup = ChiefBackup(folder / f"own{index}", delete_checkpoint=False)
    fit(make(strategy=strategy), backup, epochs=1)
    try:
        fit(make(strategy=strategy), backup, epochs=2)
    except ValueError as error:
        return str(error)
    return ""


def late(strategy, folder, index):
    """Whether a worker that comes late finds the backup that the chief deletes."""

    class Late(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            time.sleep(3 * index)

        def on_train_end(self, logs=None):
            time.sleep(3 * index)
            self.found = (folder / "late").exists()

    done = make(strategy=strategy)
    fit(done, ChiefBackup(folder / "late", delete_checkpoint=False), epochs=2)
    again = make(seed=7, strategy=strategy)
    come = Late()
    more = fit(again, come, ChiefBackup(folder / "late"), epochs=2)
    same = all(np.array_equal(*pair) for pair in zip(state(done), state(again)))
    return {"epochs": more.epoch, "same": same, "found": come.found}


def distilled(strategy, folder):
    """Whether a distiller goes on to the very same weights, on each worker."""
    whole, stopped, resumed = (make_distiller(seed, strategy) for seed in (0, 0, 7))
    fit(whole, epochs=3)
    with contextlib.suppress(Cut):
        fit(stopped, ChiefBackup(folder / "distilled"), Stop(2, cut), epochs=3)
    more = fit(resumed, ChiefBackup(folder / "distilled"), epochs=3)
    same = all(np.array_equal(*pair) for pair in zip(state(whole), state(resumed)))
    return {"epochs": more.epoch, "same": same}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two workers trained: a worker was lost, then the chief, then none."""
    folder = tmp_path_factory.mktemp("workers")
    for dying, epoch in ((1, 2), (0, 3)):
        with Workers(train, folder, DIES=f"{dying},{epoch}") as workers:
            assert workers.wait_for(dying) == -signal.SIGKILL, workers.log(dying)
            # The other would fail by itself once it misses this one, in half a minute.
        assert ChiefBackup(folder / "backup").initial_epoch == epoch
    with Workers(train, folder, DIES="-1,0") as workers:
        workers.finish()
    return folder


@pytest.fixture(params=[0, 1])
def said(request, folder):
    return json.loads((folder / f"said{request.param}.json").read_text())


def arrays(folder, name, index):
    return list(np.load(folder / f"{name}{index}.npz").values())


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_lost_workers_change_nothing(folder, index):
    assert_same(arrays(folder, "resumed", index), arrays(folder, "whole", index))


@pytest.mark.slow
def test_the_workers_agree_to_the_bit(folder):
    assert_same(arrays(folder, "resumed", 0), arrays(folder, "resumed", 1))


@pytest.mark.slow
def test_workers_go_on_together(said):
    assert said["epochs"] == [3, 4]


@pytest.mark.slow
def test_the_chief_deletes_it_for_all(said):
    assert said["left"] == []


@pytest.mark.slow
def test_unshared_folders_are_refused(said):
    assert "different backups: 1, 0 epochs are done" in said["unshared"]


@pytest.mark.slow
def test_who_comes_late_finds_it(said):
    assert said["late"] == {"epochs": [], "same": True, "found": True}


@pytest.mark.slow
def test_distillers_go_on_as_well(said):
    assert said["distiller"] == {"epochs": [2], "same": True}
