"""`keras-lpd export`."""

import json

import pytest

from keras_lpd.cli import main
from keras_lpd.compress import evaluate_litert
from keras_lpd.compress.litert import KINDS
from keras_lpd.datasets import load_arrays


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


def test_a_file_may_be_of_all_kinds_that_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert f"--quantize {{{','.join(KINDS)}}}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--student", "nowhere.keras"], "nowhere.keras"),
        (["--quantize", "int8", "--samples", "9"], "at least 50 different samples"),
        (["--out", "nowhere/s.tflite"], "no folder nowhere"),
    ],
)
def test_export_errors_take_one_line(teacher, tmp_path, only_error, change, message):
    (tmp_path / "s.tflite").write_bytes(b"old")
    assert export(teacher, tmp_path / "s.tflite", *change) == 1
    assert message in only_error()
    assert (tmp_path / "s.tflite").read_bytes() == b"old"


def test_an_interrupted_export_has_an_exit_code_of_its_own(
    teacher, tmp_path, monkeypatch
):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_lpd.compress.to_litert", interrupted)
    assert export(teacher, tmp_path / "s.tflite") == 130
