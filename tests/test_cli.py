"""The command `keras-lpd`, as a shell sees it."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import TeacherCache
from keras_lpd.cli import main
from keras_lpd.datasets import load_arrays


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher for digits, and its file."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(24, activation="relu", name="body"),
            keras.layers.Dense(16, activation="relu", name="features"),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    path = tmp_path_factory.mktemp("models") / "teacher.keras"
    model.save(path)
    return model, str(path)


def cache(teacher, out, *more):
    arguments = ["--teacher", teacher[1], "--dataset", "digits", "--out", str(out)]
    return main(["cache", *arguments, *more])


def test_cache_fits_the_data_of_load_arrays(teacher, tmp_path):
    assert cache(teacher, tmp_path / "cache", "--dtype", "float32") == 0
    data = load_arrays("digits")
    made = TeacherCache.open(tmp_path / "cache")
    made.attach(tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train)))
    layer = teacher[0].get_layer("features").output
    expected = keras.Model(teacher[0].inputs, layer)(data.x_train)
    np.testing.assert_allclose(made["features"], expected, rtol=1e-5, atol=1e-6)


def test_options_reach_the_cache(teacher, tmp_path):
    options = ["--layer", "body", "--layer", "features", "--outputs"]
    options += ["--project", "8", "--projection", "gaussian", "--batch-size", "100"]
    assert cache(teacher, tmp_path / "cache", *options) == 0
    made = TeacherCache.open(tmp_path / "cache")
    assert made.layers == ["body", "features"]
    assert made.outputs
    assert made["body"].shape == (1347, 8)
    assert made["body"].dtype == np.float16
    assert "gaussian-8" in made.mark.projection


def test_the_same_again_is_no_error(teacher, tmp_path):
    assert cache(teacher, tmp_path / "cache") == 0
    before = (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns
    assert cache(teacher, tmp_path / "cache") == 0
    assert (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--teacher", "nowhere.keras"], "nowhere.keras"),
        (["--layer", "nothing"], "no layer 'nothing'"),
        (["--project", "500"], "below the width"),
    ],
)
def test_errors_take_one_line(teacher, tmp_path, capfd, change, message):
    assert cache(teacher, tmp_path / "cache", *change) == 1
    lines = [
        line
        for line in capfd.readouterr().err.splitlines()
        if line.startswith("keras-lpd: error")
    ]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "cache").exists()


def test_debug_shows_the_traceback(teacher, tmp_path, capfd):
    assert cache(teacher, tmp_path / "cache", "--project", "500", "--debug") == 1
    shown = capfd.readouterr().err
    assert "Traceback" in shown
    assert "ValueError" in shown


def test_an_interruption_has_an_exit_code_of_its_own(teacher, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(TeacherCache, "build", interrupted)
    assert cache(teacher, tmp_path / "cache") == 130


@pytest.mark.parametrize(
    "arguments",
    [[], ["cache"], ["cache", "--dtype", "int8"], ["cache", "--dataset", "cats"]],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: keras-lpd" in capsys.readouterr().err


def test_installed_command_has_help():
    command = [sys.executable, "-m", "keras_lpd.cli", "cache", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in ("--teacher", "--dataset", "--out", "--project", "--debug"):
        assert option in shown


def test_a_failure_fails_the_shell(tmp_path):
    command = [
        sys.executable,
        "-m",
        "keras_lpd.cli",
        "cache",
        "--teacher",
        "none.keras",
    ]
    command += ["--dataset", "digits", "--out", str(tmp_path / "cache")]
    assert subprocess.run(command, capture_output=True).returncode == 1
