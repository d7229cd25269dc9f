"""What is told of a LiteRT file."""

import dataclasses
import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller
from keras_lpd.compress import evaluate_litert, to_litert
from keras_lpd.compress.litert_cost import measure, open_interpreter
from keras_lpd.compress.litert_file import LiteRTFile
from keras_lpd.models import cnn_teacher

L = keras.layers


def test_data(digits, count=450):
    return digits.x_test[:count], digits.y_test[:count]


test_data.__test__ = False


@pytest.fixture(scope="module")
def checks(files, trained, digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            kind: evaluate_litert(path, test_data(digits), trained)
            for kind, path in files.items()
            if kind in ("float32", "int8")
        }


def slowly(path, x):
    """The outputs of a file, by the formulas of the specification."""
    interpreter = open_interpreter(str(path))
    (taken,), (given,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    found = []
    for sample in x:
        if taken["dtype"] is np.int8:
            scale, zero = taken["quantization"]
            sample = np.clip(np.round(sample / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], sample[None])
        interpreter.invoke()
        output = interpreter.get_tensor(given["index"])[0].astype(np.float64)
        if given["dtype"] is np.int8:
            scale, zero = given["quantization"]
            output = (output - zero) * scale
        found.append(output)
    return np.array(found)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_figures_are_those_of_the_file(checks, files, trained, digits, kind):
    check = checks[kind]
    found = slowly(files[kind], digits.x_test)
    expected = trained.predict(digits.x_test, verbose=0)
    assert check.samples == 450
    assert check.accuracy == np.mean(found.argmax(1) == digits.y_test)
    assert check.model_accuracy == np.mean(expected.argmax(1) == digits.y_test)
    assert check.agreement == np.mean(found.argmax(1) == expected.argmax(1))
    errors = np.abs(found - expected)
    np.testing.assert_allclose(check.max_error, errors.max(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(check.mean_error, errors.mean(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_sizes_are_those_of_the_shell(checks, files, kind):
    packed = subprocess.run(
        ["gzip", "-9", "-n", "-c", str(files[kind])], check=True, capture_output=True
    ).stdout
    assert checks[kind].bytes == len(files[kind].read_bytes())
    assert checks[kind].gzip_bytes == pytest.approx(len(packed), rel=0.01)


def test_integers_lose_little(checks):
    assert checks["int8"].accuracy >= checks["float32"].accuracy - 0.01
    assert checks["int8"].bytes < 0.45 * checks["float32"].bytes
    assert checks["int8"].kind == checks["int8"].input_dtype == "int8"


def test_latency_and_memory(checks):
    for check in checks.values():
        assert check.latency_ms > 0 and check.latency_ms_2 > 0
        assert 1 <= check.latency_runs <= 100
        if sys.platform == "linux":
            assert check.memory_bytes > check.bytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_with_the_file(files, tmp_path):
    model = keras.Sequential([keras.Input((1000,)), L.Dense(8000), L.Dense(1)])
    large = to_litert(model, tmp_path / "large")
    more = measure(large, 1).memory - measure(files["float32"], 1).memory
    assert 0.9 * large.stat().st_size < more < 3 * large.stat().st_size


def test_a_check_prints_and_is_json(checks):
    check = checks["int8"]
    text = str(check)
    assert text.splitlines()[0].endswith("int8.tflite: int8 (takes int8, gives int8)")
    for part in (f"{check.accuracy:.4f}", f"{check.bytes:,}", "2 threads", "100 runs"):
        assert part in text
    assert json.loads(check.to_json()) == dataclasses.asdict(check)
    with pytest.raises(dataclasses.FrozenInstanceError):
        check.accuracy = 1.0


def test_what_is_unknown_is_left_out(files, digits):
    check = evaluate_litert(files["int8"], digits.x_test, max_samples=20, runs=3)
    assert (check.samples, check.latency_runs) == (20, 3)
    unknown = (check.accuracy, check.model_accuracy, check.agreement, check.max_error)
    assert unknown == (None, None, None, None)
    assert "accuracy" not in str(check) and "error" not in str(check)


def test_a_file_that_went_wrong_is_told_of(trained, digits, tmp_path):
    path = to_litert(trained, tmp_path / "s", "int8", digits.x_train / 50)
    with pytest.warns(UserWarning, match=r"for 0\.\d{4} of 450 samples only"):
        check = evaluate_litert(path, test_data(digits), trained, runs=1)
    assert check.agreement < 0.97


def test_floats_may_differ_from_another_model(files, digits):
    other = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(10)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check = evaluate_litert(files["float32"], test_data(digits), other, runs=1)
    assert check.agreement < 0.97


# Data


def test_data_and_labels_in_other_forms(files, trained, digits, checks):
    x, y = test_data(digits)
    one_hot = np.eye(10, dtype="float32")[y]
    batches = tf.data.Dataset.from_tensor_slices((x, one_hot)).batch(64)
    distiller = LPDistiller(cnn_teacher((8, 8, 1)), trained)
    check = evaluate_litert(files["int8"], batches, distiller, runs=1)
    for name in ("accuracy", "agreement", "max_error", "samples"):
        assert getattr(check, name) == getattr(checks["int8"], name)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_two_classes_with_one_output(tmp_path, activation, known):
    model = keras.Sequential([keras.Input((4,)), L.Dense(1, activation=activation)])
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = (model(x).numpy()[:, 0] > (0.5 if activation else 0)).astype(int)
    path = to_litert(model, tmp_path / "s")
    check = evaluate_litert(path, (x, y), model if known else None, runs=1)
    assert 0 < y.sum() < 60
    assert check.accuracy == 1.0
    assert check.agreement == (1.0 if known else None)


def test_outputs_that_are_no_classes(tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), L.Dense(2)])
    x = np.ones((5, 4, 3), "float32")
    check = evaluate_litert(to_litert(model, tmp_path / "s"), x, model, runs=1)
    assert check.accuracy is check.agreement is None
    assert check.max_error < 1e-6


def test_several_inputs(tmp_path):
    a, b = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    model = keras.Model([a, b], L.Dense(4)(L.Concatenate()([a, b])))
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 20, 3), "float32")
    path = to_litert(model, tmp_path / "s")
    for dataset in (([x, y],), ({"a": y, "b": x, "more": x},)):
        check = evaluate_litert(path, dataset, model, runs=1)
        assert check.max_error < 1e-6
    with pytest.raises(ValueError, match="a dict by their names, of a, b"):
        evaluate_litert(path, ([x, y],), runs=1)


def test_files_by_others(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")

    @tf.function(input_signature=[tf.TensorSpec((None, 3))])
    def serve(x):
        return x @ kernel

    function = serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    (tmp_path / "s").write_bytes(converter.convert())
    x = np.random.default_rng(1).normal(size=(7, 3)).astype("float32")
    found = LiteRTFile(tmp_path / "s").predict(x)
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-5)


# Refusals


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "There is no file"),
        (b"", "no LiteRT file"),
        (b"Hello, I am no model.", "no LiteRT file"),
        (slice(0, 3000), "can't be run"),
        (slice(0, 60), "can't be run"),
    ],
)
def test_what_is_no_file(files, digits, tmp_path, content, message):
    path = tmp_path / "s.tflite"
    if isinstance(content, slice):
        content = files["int8"].read_bytes()[content]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate_litert(path, test_data(digits))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (x[:, :4], y), r"takes \(1, 8, 8, 1\).*samples of \(4, 8, 1\)"),
        (lambda x, y: (x, y + 5), "labels go up to 14, but the model knows 10 classes"),
        (lambda x, y: (x[:0], y[:0]), "`dataset` is empty"),
        (lambda x, y: "digits", "`dataset` must be arrays"),
        (
            lambda x, y: tf.data.Dataset.from_tensors((x, y)).repeat(),
            "goes on for ever",
        ),
    ],
)
def test_data_that_does_not_fit(files, digits, change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate_litert(files["int8"], change(*test_data(digits)), runs=1)


def test_models_that_do_not_fit(files, digits, tmp_path):
    other = keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), L.Dense(3)])
    with pytest.raises(ValueError, match=r"not made of.*shape \(10,\).*\(3,\)"):
        evaluate_litert(files["int8"], test_data(digits), other, runs=1)
    inputs = keras.Input((4,))
    two = keras.Model(inputs, [L.Dense(2)(inputs), L.Dense(3)(inputs)])
    path = to_litert(two, tmp_path / "s")
    with pytest.raises(ValueError, match="has 2 outputs. Expected: one"):
        evaluate_litert(path, np.ones((5, 4)), runs=1)


@pytest.mark.parametrize("argument", ["runs", "max_samples"])
def test_numbers_out_of_range(files, digits, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be an integer"):
        evaluate_litert(files["int8"], test_data(digits), **{argument: 0})


# The interpreter


def test_the_older_interpreter_does_as_well(files, digits, monkeypatch, capfd):
    expected = LiteRTFile(files["int8"]).predict(digits.x_test[:20])
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = LiteRTFile(files["int8"])
    assert "tensorflow" in type(file._interpreter).__module__
    np.testing.assert_allclose(file.predict(digits.x_test[:20]), expected, atol=1.0)
    assert capfd.readouterr() == ("", "")
    monkeypatch.delattr(tf.lite, "Interpreter")
    with pytest.raises(ImportError, match="keras-lpd\\[compress\\]"):
        LiteRTFile(files["int8"])
