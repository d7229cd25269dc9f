"""The command as a shell sees it: help, exit codes, errors."""

import os
import shlex
import subprocess
import sys

import pytest

from keras_lpd import TeacherCache, __version__
from keras_lpd.cli import main
from keras_lpd.cli.command import _in_one_line

COMMANDS = ["distill", "compare", "cache", "export", "demo"]


def cache(teacher, out, *more):
    arguments = ["--teacher", teacher[1], "--dataset", "digits", "--out", str(out)]
    return main(["cache", *arguments, *more])


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    shown = capsys.readouterr().out
    assert f"Example: keras-lpd {command}" in shown
    assert "--debug" in shown


def test_help_and_version(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name} " in shown for name in COMMANDS)
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["cache"],
        ["cache", "--dtype", "int8"],
        ["export"],
        ["export", "--quantize", "int4"],
        ["distill", "--epochs", "0"],
        ["distill", "--seed", "-1"],
        ["distill", "--learning-rate", "nan"],
        ["distill", "--learning-rate", "inf"],
        ["distill", "--learning-rate", "-1"],
        ["distill", "--learning-rate", "0"],
        ["distill", "--image-size", "8by8"],
        ["distill", "--image-size", "0x8"],
        ["compare", "--model", "teacher.keras"],
        ["compare", "--json", "--markdown"],
        ["demo", "--epochs", "few"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: keras-lpd" in capsys.readouterr().err


def test_a_wrong_argument_is_named(capsys):
    for name in ("--epochs", "--learning-rate"):
        for text in ("0", "no"):
            with pytest.raises(SystemExit):
                main(["distill", name, text])
            assert name in capsys.readouterr().err


def test_a_failure_fails_the_shell(tmp_path):
    command = [sys.executable, "-m", "keras_lpd.cli", "cache", "--teacher", "no.keras"]
    command += ["--dataset", "digits", "--out", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("keras-lpd: error: ")
    assert "no.keras" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.skipif(os.name != "posix", reason="closes standard error by a shell")
@pytest.mark.parametrize("closed", ["", " 2>&-"])
def test_it_starts_with_standard_error_and_without(closed):
    start = "import sys, keras_lpd_command; sys.exit(keras_lpd_command.main())"
    command = shlex.join([sys.executable, "-c", start, "--version"]) + closed
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=quiet
    )
    assert (done.returncode, done.stdout.strip()) == (0, __version__)
    assert not done.stderr


def test_debug_shows_the_traceback(teacher, tmp_path, capfd):
    assert cache(teacher, tmp_path / "cache", "--project", "500", "--debug") == 1
    shown = capfd.readouterr().err
    assert "Traceback" in shown
    assert "ValueError" in shown


def test_an_interruption_says_how_to_go_on(teacher, tmp_path, monkeypatch, capfd):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(TeacherCache, "build", interrupted)
    assert cache(teacher, tmp_path / "cache") == 130
    shown = capfd.readouterr().err
    assert "keras-lpd: interrupted; the same command goes on" in shown
    assert str(tmp_path / "cache") in shown
    assert "Traceback" not in shown


def test_errors_are_told_in_one_line_that_ends():
    assert _in_one_line(ValueError("one\n  two")) == "one two"
    assert _in_one_line(KeyError()) == "KeyError"
    told = _in_one_line(ValueError("word " * 1000))
    assert len(told) < 1100
    assert told.endswith("(`--debug` shows all of it)")
