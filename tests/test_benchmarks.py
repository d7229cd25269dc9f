"""The benchmarks run, in small; what they measure is not judged here."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(script, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_step_time(tmp_path):
    path = tmp_path / "step_time.json"
    output = run(
        "step_time.py", "--pair", "cnn", "--rounds", 1, "--steps", 1, "--batch", 8,
        "--json", path,
    )  # fmt: skip
    assert "stock" in output
    assert json.loads(path.read_text())


@pytest.mark.slow
def test_neighbors(tmp_path):
    path = tmp_path / "neighbors.json"
    output = run("neighbors.py", "--rounds", 1, "--sizes", 64, "--json", path)
    assert "64" in output
    assert json.loads(path.read_text())


@pytest.mark.slow
def test_teacher_cache(tmp_path):
    path = tmp_path / "teacher_cache.json"
    output = run(
        "teacher_cache.py", "--samples", 64, "--epochs", 2, "--rounds", 1,
        "--teachers", "small", "--data", "memory", "--json", path,
    )  # fmt: skip
    assert "cached total / online total" in output
    assert json.loads(path.read_text())
