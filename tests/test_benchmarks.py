"""The benchmarks run, in small; what they measure is not judged here."""

import importlib
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
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
    folder = tmp_path / "digits"
    table = (folder / "results.md").read_text()
    assert (folder / "results.png").stat().st_size > 10_000
    for method in ("CE", "KD", "Hint", "LP + NP", "control: random pairs"):
        assert f"\n| {method} |" in table

    trained = sorted(folder.glob("small-*/*.json"))
    assert len(trained) > 20
    kept = {file: file.read_text() for file in trained}
    trained[0].unlink()
    assert "  1/1 " not in first
    assert "  1/1 " in run(*smoke)
    for file in trained[1:]:
        assert file.read_text() == kept[file]
    assert trained[0].exists()


# What the comparison of methods rests on


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("compare_methods")


@pytest.fixture
def lesson(compare, tmp_path):
    """16 samples in 3 views, with features that tell which image they are of."""
    from keras_lpd import TeacherCache
    from keras_lpd.models import cnn_teacher

    cell = compare.Cell("small", 256, epochs=3, views=3)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3 * 256, 8, 8, 1)).astype("uint8")
    views = tmp_path / "views-256"
    views.mkdir()
    np.save(views / "images.npy", images)
    np.save(views / "labels.npy", np.arange(256) % 10)
    for name, width in (("features", 128), ("attention", 4), ("outputs", 10)):
        means = images.reshape(len(images), -1).mean(axis=1, keepdims=True)
        np.save(views / f"{name}.npy", np.repeat(means, width, 1).astype("float32"))
    TeacherCache.build(
        cnn_teacher((8, 8, 1)),
        compare.tf.data.Dataset.from_tensor_slices(images[:4] / np.float32(255)),
        tmp_path / "cache-256",
        verbose=0,
    )
    return compare.Lesson(tmp_path, cell)


def test_every_method_is_tuned_over_as_many_weights(compare):
    counts = {name: len(method.weights) for name, method in compare.METHODS.items()}
    assert counts.pop("CE") == 0
    assert set(counts.values()) == {3}


def test_all_methods_see_the_same_batches_and_views_as_their_teacher(lesson):
    alone = list(lesson.batches(5, 3, with_teacher=False).as_numpy_iterator())
    taught = list(lesson.batches(5, 3, with_teacher=True).as_numpy_iterator())
    others = list(lesson.batches(6, 3, with_teacher=False).as_numpy_iterator())
    assert len(alone) == len(taught) == 6
    for (images, labels), (x, same_labels) in zip(alone, taught, strict=True):
        np.testing.assert_array_equal(images, x["inputs"])
        np.testing.assert_array_equal(labels, same_labels)
        (features,) = (value for key, value in x.items() if key != "inputs")
        means = 255 * images.reshape(len(images), -1).mean(axis=1)
        np.testing.assert_allclose(features["features"][:, 0], means, rtol=1e-5)
    assert np.any(alone[0][0] != others[0][0])
    epochs = [np.concatenate([x for x, _ in alone[i : i + 2]]) for i in (0, 2, 4)]
    seen = [{image.tobytes() for image in epoch} for epoch in epochs]
    assert [len(images) for images in seen] == [256, 256, 256]
    assert not seen[0] & seen[1]  # another view of each


def test_students_start_alike_under_a_seed(compare, lesson):
    def start(method, seed):
        weight = None if method == "CE" else 1.0
        run = compare.Run(lesson.cell, method, weight, seed)
        return compare.make(run, lesson, 10)[1].get_weights()

    alone = start("CE", 3)
    for method in ("LP", "Hint", "control: random pairs"):
        for one, other in zip(alone, start(method, 3), strict=True):
            np.testing.assert_array_equal(one, other)
    assert np.any(alone[0] != start("CE", 4)[0])
    assert keras.config.dtype_policy().name == "float32"


def test_scores_of_neighbours_and_intervals_by_hand(compare):
    teacher = np.array([[0.0], [1.0], [3.0], [7.0]])
    compare.NEIGHBORS, before = 1, compare.NEIGHBORS
    try:
        # The nearest are 1, 0, 1, 2; in the student 1, 0, 3, 2.
        student = np.array([[0.0], [1.0], [5.0], [7.0]])
        assert compare.neighbors_kept(teacher, student) == 0.75
    finally:
        compare.NEIGHBORS = before
    # Mean 2, deviation 1, of three; the quantile of t with 2 degrees is 4.3027.
    interval = compare.half_interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(interval, 4.30265 / np.sqrt(3), rtol=1e-5)


def test_weights_are_chosen_on_the_validation_split(compare):
    tuning = [
        {"method": "LP", "weight": weight, "validation": score, "test": 1 - score}
        for weight, score in ((0.1, 0.8), (0.1, 0.9), (0.3, 0.84), (0.3, 0.84))
    ]
    weights, scores = compare.chosen(tuning)
    assert weights == {"LP": 0.1}
    np.testing.assert_allclose(scores["LP"], 0.85)
