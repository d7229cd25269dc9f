"""The command `keras-lpd`, as a shell sees it."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import TeacherCache
from keras_lpd.cli import main
from keras_lpd.compress import evaluate_litert
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


def export(teacher, out, *more):
    arguments = ["--student", teacher[1], "--dataset", "digits", "--out", str(out)]
    return main(["export", *arguments, *more])


def test_export_writes_a_file_and_prints_its_check(teacher, tmp_path, capfd):
    path = tmp_path / "s.tflite"
    assert export(teacher, path, "--quantize", "int8", "--samples", "100") == 0
    shown = capfd.readouterr().out
    data = load_arrays("digits")
    check = evaluate_litert(path, (data.x_test, data.y_test), teacher[0], runs=1)
    assert f"{path}: int8 (takes int8, gives int8)" in shown
    for figure in (
        f"{check.accuracy:.4f}",
        f"{check.agreement:.4f}",
        f"{check.bytes:,}",
    ):
        assert figure in shown


def test_export_as_json_with_floats_outside(teacher, tmp_path, capfd):
    options = ["--quantize", "int8", "--float-io", "--json"]
    assert export(teacher, tmp_path / "s.tflite", *options) == 0
    check = json.loads(capfd.readouterr().out)
    assert (check["kind"], check["input_dtype"]) == ("int8", "float32")
    assert check["samples"] == 450


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--student", "nowhere.keras"], "nowhere.keras"),
        (["--quantize", "int8", "--samples", "9"], "at least 50 different samples"),
        (["--out", "nowhere/s.tflite"], "no folder nowhere"),
    ],
)
def test_export_errors_take_one_line(teacher, tmp_path, capfd, change, message):
    (tmp_path / "s.tflite").write_bytes(b"old")
    assert export(teacher, tmp_path / "s.tflite", *change) == 1
    lines = [
        line
        for line in capfd.readouterr().err.splitlines()
        if line.startswith("keras-lpd: error")
    ]
    assert len(lines) == 1
    assert message in lines[0]
    assert (tmp_path / "s.tflite").read_bytes() == b"old"


def test_export_loads_in_safe_mode(tmp_path, capfd):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Lambda(lambda x: x[:, :10]))
    model.save(tmp_path / "lambda.keras")
    assert export((model, str(tmp_path / "lambda.keras")), tmp_path / "s.tflite") == 1
    assert "keras-lpd: error" in capfd.readouterr().err
    assert not (tmp_path / "s.tflite").exists()


def test_an_interrupted_export_has_an_exit_code_of_its_own(
    teacher, tmp_path, monkeypatch
):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_lpd.compress.to_litert", interrupted)
    assert export(teacher, tmp_path / "s.tflite") == 130


@pytest.mark.parametrize("more", [[], ["--quantize", "int4"], ["--dataset", "cats"]])
def test_wrong_arguments_of_export(more, capsys):
    with pytest.raises(SystemExit) as error:
        main(["export", *more])
    assert error.value.code == 2
    assert "usage: keras-lpd export" in capsys.readouterr().err
