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


@pytest.mark.slow
def test_complexity(tmp_path):
    path = tmp_path / "complexity.md"
    run("complexity.py", "--batch", 2, "--fitnets", 1, "--out", path)
    assert "| LP | 0 / " in path.read_text()


@pytest.mark.slow
def test_compare_methods_goes_on_where_it_stopped(tmp_path):
    smoke = ("compare_methods.py", "--smoke", "--out", tmp_path)
    first = run(*smoke)
    table = (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 10_000
    for method in ("CE", "KD", "Hint", "LP + NP", "control: random pairs"):
        assert f"\n| {method} |" in table

    trained = sorted(tmp_path.glob("*/*.json"))
    assert len(trained) > 20
    kept = {file: file.read_text() for file in trained}
    trained[0].unlink()
    assert "1/1" not in first
    assert "1/1" in run(*smoke)
    for file in trained[1:]:
        assert file.read_text() == kept[file]
    assert trained[0].exists()
