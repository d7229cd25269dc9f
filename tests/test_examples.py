"""The examples run, in small; the quickstart does so in `make demo`."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(example, folder, *arguments):
    """What it prints, in a process and a folder of its own."""
    command = [sys.executable, ROOT / "examples" / example, *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_few_labels(tmp_path):
    output = run(
        "few_labels.py", tmp_path, "--dataset", "digits", "--labels", 100,
        "--steps", 60,
    )  # fmt: skip
    teacher, *students = (line.split(": ") for line in output.splitlines()[-3:])
    assert teacher[0] == "Teacher, with 1,347 labels"
    assert float(teacher[1].rstrip("%")) > 50
    assert [student for student, _ in students] == [
        "Student, with 100 labels",
        "Student, with 100 labels and the teacher",
    ]


def test_neighborhoods(tmp_path):
    run("neighborhoods.py", tmp_path, "--dataset", "digits", "--epochs", 1)
    for name in ("alone", "distilled"):
        logs = tmp_path / "logs" / name
        for role in ("teacher", "student"):
            assert list((logs / role).glob("events.out.tfevents.*"))
            assert (logs / role / "projector_config.pbtxt").exists()


def test_compress_for_mobile(tmp_path):
    output = run(
        "compress_for_mobile.py", tmp_path, "--dataset", "digits", "--images", 256,
        "--epochs", 1, "--further", 1, "--seeds", 1,
    )  # fmt: skip
    assert "\n| teacher | " in output
    assert "\n| pruned 75 %, then int8 (LP) | " in output
    assert (tmp_path / "compression.png").stat().st_size > 10_000


def test_multi_worker(tmp_path):
    output = run("multi_worker.py", tmp_path, "--epochs", 1)
    assert "test accuracy with 1 worker(s): " in output
    assert (tmp_path / "multi_worker" / "student.keras").exists()
