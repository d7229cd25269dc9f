"""Files, callbacks, and going on after an interruption."""

import json
import pathlib
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from keras_lpd import LocalityPreserving, LPDistiller
from tests.distiller.conftest import cross_entropy, make_student, make_teacher, same

ROOT = pathlib.Path(__file__).parents[2]


def run_script(code, *arguments, **kwargs):
    """Runs Python code in a fresh process, with the repository on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def output_of(code, *arguments):
    process = run_script(code, *arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


@pytest.fixture
def trained(data):
    distiller = LPDistiller(
        make_teacher(),
        make_student(),
        distillation_losses=[
            LocalityPreserving(k=3, normalize="spread"),
            keras.distillation.LogitsDistillation(temperature=2.0),
        ],
        distillation_loss_weights=[0.3, 0.7],
    )
    keras.utils.set_random_seed(0)
    distiller.fit(*data, epochs=2, verbose=0)
    return distiller


def test_the_student_saves_by_itself(tmp_path, data, trained):
    trained.student.save(tmp_path / "student.keras")
    np.save(tmp_path / "x.npy", data[0])
    code = """
        import sys, keras, numpy as np
        student = keras.models.load_model(sys.argv[1] + "/student.keras")
        x = np.load(sys.argv[1] + "/x.npy")
        np.save(sys.argv[1] + "/y.npy", student.predict(x, verbose=0))
    """
    output_of(code, tmp_path)
    assert np.array_equal(
        np.load(tmp_path / "y.npy"), trained.student.predict(data[0], verbose=0)
    )


def test_a_saved_distiller_loads_in_a_fresh_process(tmp_path, data, trained):
    """Without `custom_objects`; it predicts the same, and trains on with a teacher."""
    trained.save(tmp_path / "distiller.keras")
    trained.teacher.save(tmp_path / "teacher.keras")
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
    code = """
        import json, sys, keras, numpy as np
        import keras_lpd
        folder = sys.argv[1]
        data = np.load(folder + "/data.npz")
        distiller = keras.models.load_model(folder + "/distiller.keras")
        before = distiller.predict(data["x"], verbose=0)
        try:
            distiller.fit(data["x"], data["y"], verbose=0)
        except ValueError as error:
            refusal = str(error)
        distiller.set_teacher(keras.models.load_model(folder + "/teacher.keras"))
        logs = distiller.fit(data["x"], data["y"], shuffle=False, verbose=0).history
        np.savez(folder + "/results.npz", before, *distiller.get_weights())
        print(json.dumps([refusal, sorted(logs)]))
    """
    refusal, logs = json.loads(output_of(code, tmp_path).splitlines()[-1])
    assert "set_teacher" in refusal
    results = np.load(tmp_path / "results.npz")
    before, *after = (results[name] for name in results.files)
    assert np.array_equal(before, trained.predict(data[0], verbose=0))

    # The optimizer goes on where it stood, and so do dropout's random numbers.
    here = trained.fit(*data, shuffle=False, verbose=0).history
    assert logs == sorted(here)
    assert same(after, trained.get_weights())


def test_the_configuration_comes_back(tmp_path, trained):
    trained.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher is None
    assert loaded.distillation_loss_weights == [0.3, 0.7]
    locality, logits = loaded.distillation_losses
    assert (locality.k, locality.normalize, logits.temperature) == (3, "spread", 2.0)
    assert same(loaded.student.get_weights(), trained.student.get_weights())
    ours, theirs = loaded.get_config(), trained.get_config()
    for config in (ours, theirs):
        config.pop("student")
    assert ours == theirs


@keras.saving.register_keras_serializable(package="tests")
def features_of(model, inputs, training):
    hidden = model.layers[0](inputs)
    return hidden, model.layers[1](hidden)


def test_feature_functions_come_back(tmp_path, data, teacher):
    layers = keras.layers
    student = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, activation="relu"), layers.Dense(3)]
    )
    distiller = LPDistiller(teacher, student, student_features=features_of)
    distiller.fit(*data, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.set_teacher(teacher)
    assert loaded.fit(*data, verbose=0).history["lp_loss"][0] > 0


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_checkpoints_hold_the_student_and_its_optimizer_alone(tmp_path, suffix):
    """Within 10 % of the student's own; the teacher would be ten times that."""
    from keras_lpd.models import cnn_student, cnn_teacher

    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 28, 28, 1)), random.integers(0, 10, 8)
    sizes = {}
    for name in ("student", "distiller"):
        keras.utils.set_random_seed(0)
        student = cnn_student()
        model = student
        if name == "distiller":
            model = LPDistiller(cnn_teacher(), student)
        model.compile("adam", cross_entropy())
        model.fit(x, y, verbose=0)
        path = tmp_path / f"{name}.{suffix}"
        model.save_weights(path) if suffix == "weights.h5" else model.save(path)
        sizes[name] = path.stat().st_size
    assert sizes["distiller"] <= 1.1 * sizes["student"]


def test_checkpoints_load_into_a_new_distiller(tmp_path, data, trained):
    trained.save_weights(tmp_path / "latest.weights.h5")
    config = trained.get_config()
    fresh = LPDistiller.from_config(config)
    fresh.set_teacher(trained.teacher)
    fresh.compile("adam", cross_entropy())
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / "latest.weights.h5")
    assert same(fresh.get_weights(), trained.get_weights())
    for ours, theirs in zip(fresh.optimizer.variables, trained.optimizer.variables):
        assert np.array_equal(ours, theirs)


def test_export_is_the_students(tmp_path, data, trained):
    import tensorflow as tf

    trained.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    expected = trained.student.predict(data[0], verbose=0)
    np.testing.assert_allclose(served.serve(data[0]), expected, rtol=1e-5, atol=1e-6)


# Callbacks


def test_early_stopping_restores_the_best_weights(data, teacher, student):
    kept = []
    distiller = LPDistiller(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.3), cross_entropy())
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=3, restore_best_weights=True
    )
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(
            (logs["val_loss"], student.get_weights())
        )
    )
    distiller.fit(
        *data, epochs=60, validation_data=data, callbacks=[keep, stop], verbose=0
    )
    best = min(range(len(kept)), key=lambda epoch: kept[epoch][0])
    assert best == len(kept) - 4
    assert same(student.get_weights(), kept[best][1])


@pytest.mark.parametrize("weights_only", [False, True])
def test_model_checkpoint(tmp_path, data, teacher, student, weights_only):
    path = tmp_path / ("best.weights.h5" if weights_only else "best.keras")
    distiller = LPDistiller(teacher, student)
    save = keras.callbacks.ModelCheckpoint(
        path, monitor="val_loss", save_best_only=True, save_weights_only=weights_only
    )
    # A list is usual, a single callback allowed.
    distiller.fit(*data, validation_data=data, callbacks=save, verbose=0)
    expected = distiller.get_weights()
    if weights_only:
        loaded = LPDistiller(teacher, make_student(seed=9))
        loaded.load_weights(path)
    else:
        loaded = keras.models.load_model(path)
    assert same(loaded.get_weights(), expected)


def test_reduce_lr_on_plateau_csv_logger_and_tensorboard(tmp_path, data, teacher):
    distiller = LPDistiller(teacher, make_student())
    distiller.compile(keras.optimizers.Adam(0.1), cross_entropy(), metrics=["accuracy"])
    callbacks = keras.callbacks
    distiller.fit(
        *data,
        epochs=3,
        validation_data=data,
        verbose=0,
        callbacks=[
            callbacks.ReduceLROnPlateau("lp_loss", mode="max", patience=0, factor=0.5,
                                        min_delta=1e9),
            callbacks.CSVLogger(tmp_path / "log.csv"),
            callbacks.TensorBoard(tmp_path / "board"),
        ],
    )  # fmt: skip
    assert float(distiller.optimizer.learning_rate) < 0.1
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert {"lp_loss", "student_loss", "feature_spread", "val_loss"} < set(
        header.split(",")
    )
    assert len(rows) == 3
    events = b"".join(
        file.read_bytes() for file in (tmp_path / "board").rglob("events.*")
    )
    assert b"epoch_lp_loss" in events and b"epoch_feature_spread" in events


INTERRUPTED = """
    import os, signal, sys
    import keras, numpy as np
    from keras_lpd import LPDistiller
    from tests.distiller.conftest import cross_entropy, make_student, make_teacher

    folder, kill_at = sys.argv[1], int(sys.argv[2])
    random = np.random.default_rng(0)
    x, y = random.normal(size=(96, 8)).astype("float32"), random.integers(0, 3, 96)
    distiller = LPDistiller(make_teacher(), make_student())
    keras.utils.set_random_seed(0)
    distiller.compile("adam", cross_entropy())

    class Kill(keras.callbacks.Callback):
        epoch = 0
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            print("epoch", epoch, flush=True)
        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == kill_at and batch == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    backup = keras.callbacks.BackupAndRestore(folder + "/backup")
    distiller.fit(x, y, epochs=4, shuffle=False, verbose=0, callbacks=[backup, Kill()])
    np.savez(folder + "/weights.npz", *distiller.get_weights())
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    """SIGKILL in the third of four epochs, dropout and all; then the same again."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    output_of(INTERRUPTED, whole, -1)

    killed = run_script(INTERRUPTED, broken, 2)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (broken / "weights.npz").exists()
    assert output_of(INTERRUPTED, broken, -1).split() == ["epoch", "2", "epoch", "3"]

    expected, result = (np.load(folder / "weights.npz") for folder in (whole, broken))
    assert same(
        [expected[n] for n in expected.files], [result[n] for n in result.files]
    )


def test_importing_the_package_loads_nothing_heavy():
    code = """
        import sys, keras_lpd
        heavy = {"tensorflow_datasets", "sklearn", "matplotlib", "rich", "tf_keras",
                 "tensorflow_model_optimization", "tensorboard"}
        print(sorted(heavy & set(sys.modules)))
    """
    before = "import sys, keras; print(sorted(set(sys.modules)))"
    loaded = eval(output_of(code).splitlines()[-1])
    by_keras = eval(output_of(before).splitlines()[-1])
    assert set(loaded) <= set(by_keras)
