"""The benchmarks run, in small; what they measure is not judged here."""

import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lpd import LocalityPreserving, LPDistiller, TeacherCache
from keras_lpd.models import cnn_student, cnn_teacher

ROOT = pathlib.Path(__file__).parents[1]


def module(name):
    """A fixture: one of the benchmarks, imported."""

    @pytest.fixture
    def imported(monkeypatch):
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module(name)

    return imported


compare, few, simclr = map(module, ("compare_methods", "few_labels", "simclr"))


def run(script, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


SMALLEST = {
    "step_time.py": (
        "--pair cnn --rounds 1 --steps 1 --batch 8 --json",
        "| lpd / stock | ",
    ),
    "neighbors.py": ("--rounds 1 --sizes 64 --json", "| 64 | "),
    "metrics.py": ("--rounds 1 --sizes 300 --json", "| 300 | trustworthiness | "),
    "teacher_cache.py": (
        "--samples 64 --epochs 2 --rounds 1 --teachers small --data memory --json",
        "| cached total / online total | ",
    ),
    "complexity.py": ("--batch 2 --fitnets 1 --out", "| LP | 0 / "),
    "scale.py": ("--batch 4 --steps 1 --rounds 1 --out", "| 4 | "),
}
"""The arguments of a short run, before a file's name; and a line that it prints."""


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALLEST)
def test_figures_are_printed_and_kept(script, tmp_path):
    arguments, line = SMALLEST[script]
    file = tmp_path / "figures"
    output = run(script, *arguments.split(), file)
    assert f"\n{line}" in output
    assert file.stat().st_size > 100


@pytest.mark.slow
def test_projection(tmp_path):
    output = run("projection.py", "--dataset", "digits", "--out", tmp_path)
    found = json.loads((tmp_path / "digits" / "projection.json").read_text())
    kept = {(row["width"], row.get("dtype")): row["kept"] for row in found}
    assert kept[128, "float32"] == kept[2048, "float32"] == 1.0
    assert len(found) == output.count("MB |")


def check_it_goes_on(smoke, trained):
    """Without one of the files of its trainings, it trains that one alone."""
    lost, *others = trained
    kept = [file.read_text() for file in others]
    lost.unlink(missing_ok=True)
    assert "  1/1 " in run(*smoke)
    assert lost.exists()
    assert [file.read_text() for file in others] == kept


@pytest.mark.slow
def test_compare_methods_goes_on_where_it_stopped(tmp_path):
    smoke = ("compare_methods.py", "--smoke", "--out", tmp_path)
    assert "  1/1 " not in run(*smoke)
    folder = tmp_path / "digits"
    table = (folder / "results.md").read_text()
    assert (folder / "results.png").stat().st_size > 10_000
    for method in ("CE", "KD", "Hint", "LP 0.05 + NP 0.6", "control: random pairs"):
        assert f"\n| {method} |" in table

    trained = sorted(folder.glob("small-*/*.json"))
    assert len(trained) > 20
    check_it_goes_on(smoke, trained)


@pytest.mark.slow
def test_few_labels_goes_on_where_it_stopped(tmp_path):
    smoke = ("few_labels.py", "--smoke", "--out", tmp_path)
    assert "  1/1 " not in run(*smoke)
    folder = tmp_path / "digits"
    table = (folder / "results.md").read_text()
    assert (folder / "results.png").stat().st_size > 10_000
    titles = [line for line in table.splitlines() if line.startswith("###")]
    assert len(titles) == 5
    for method in ("CE", "KD", "Hint", "LP + NP", "control: random pairs"):
        assert f"\n| {method} |" in table

    trained = sorted(folder.glob("[ABC]-*/*.json"))
    trained[0].unlink()
    run(*smoke, "--report")
    assert not trained[0].exists()
    check_it_goes_on(smoke, trained)


# What the comparison of methods rests on


def lay_out(folder, name, views, widths, labels=None):
    """256 images in some views, with features that tell which image they are of."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (views * 256, 8, 8, 1)).astype("uint8")
    kept = folder / f"views-{name}"
    kept.mkdir(parents=True)
    np.save(kept / "images.npy", images)
    np.save(kept / "labels.npy", np.arange(256) % 10 if labels is None else labels)
    for layer, width in widths.items():
        means = images.reshape(len(images), -1).mean(axis=1, keepdims=True)
        np.save(kept / f"{layer}.npy", np.repeat(means, width, 1).astype("float32"))
    TeacherCache.build(
        cnn_teacher((8, 8, 1)),
        tf.data.Dataset.from_tensor_slices(images[:4] / np.float32(255)),
        folder / f"cache-{name}",
        verbose=0,
    )


@pytest.fixture
def lesson(compare, tmp_path):
    lay_out(tmp_path, "256", 3, {"features": 128, "attention": 4, "outputs": 10})
    return compare.Lesson(tmp_path, compare.Cell("small", 256, epochs=3, views=3))


@pytest.mark.parametrize("comparison", ["compare", "few"])
def test_every_method_is_tuned_over_as_many_weights(comparison, request):
    script = request.getfixturevalue(comparison)
    counts = {name: len(method.weights) for name, method in script.METHODS.items()}
    assert counts.pop("CE") == 0
    for name in getattr(script, "DEFAULTS", ()):
        assert counts.pop(name) == 1
    assert set(counts.values()) == {3}


def test_the_defaults_compared_are_those_of_the_package(compare):
    models = cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1))
    for name, losses in zip(compare.DEFAULTS, (None, "auto")):
        distiller = LPDistiller(*models, distillation_losses=losses)
        weights = [distiller.gamma, *distiller.distillation_loss_weights]
        pairs = compare.METHODS[name].losses(None)
        assert [weight for _, weight in pairs] == pytest.approx(weights)
        beside = [loss.get_config() for loss in distiller.distillation_losses]
        assert [loss.get_config() for loss, _ in pairs[1:]] == beside
        assert pairs[0][0].get_config() == LocalityPreserving().get_config()


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


def test_intervals_by_hand(compare):
    # Mean 2, deviation 1, of three; the quantile of t with 2 degrees is 4.3027.
    interval = compare.sweep.half_interval(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(interval, 4.30265 / np.sqrt(3), rtol=1e-5)


def test_weights_are_chosen_on_the_validation_split(compare):
    tuning = [
        {"method": "LP", "weight": weight, "validation": score, "test": 1 - score}
        for weight, score in ((0.1, 0.8), (0.1, 0.9), (0.3, 0.84), (0.3, 0.84))
    ]
    weights, scores = compare.chosen(tuning)
    assert weights == {"LP": 0.1}
    np.testing.assert_allclose(scores["LP"], 0.85)


# What the comparison with few labels rests on


@pytest.fixture
def pupils(few, tmp_path):
    lay_out(tmp_path, "A", 2, {"features": 128, "outputs": 10})
    return few.Lesson(tmp_path, "A")


def test_half_of_a_batch_is_labelled_and_weighs_for_all_of_it(few, pupils):
    images = np.array(pupils.images) / np.float32(255)
    rows = {image.tobytes(): row for row, image in enumerate(images)}
    alone = list(pupils.batches(5, 100, 8, with_teacher=False).as_numpy_iterator())
    taught = list(pupils.batches(5, 100, 8, with_teacher=True).as_numpy_iterator())
    assert len(alone) == len(taught) == 8
    drawn = []
    for (known, labels), (x, all_labels, weights) in zip(alone, taught, strict=True):
        np.testing.assert_array_equal(x["inputs"][:64], known)
        np.testing.assert_array_equal(all_labels, np.tile(labels, 2))
        np.testing.assert_array_equal(weights, [2.0] * 64 + [0.0] * 64)
        (features,) = (value for key, value in x.items() if key != "inputs")
        means = 255 * x["inputs"].reshape(128, -1).mean(axis=1)
        np.testing.assert_allclose(features["features"][:, 0], means, rtol=1e-5)
        drawn.append([rows[image.tobytes()] for image in x["inputs"]])
        np.testing.assert_array_equal(labels, np.array(drawn[-1][:64]) % 256 % 10)
    known, others = np.array(drawn)[:, :64], np.array(drawn)[:, 64:]
    # 512 of each: five turns of the 100, and two of all, each in both views.
    assert set(known.ravel() % 256) == set(range(100))
    assert len(set(known.ravel()[:200])) == 200
    assert set(others.ravel()) == set(range(512))


def test_labels_of_unlabelled_images_have_no_say(few, pupils, tmp_path):
    labels = np.arange(256) % 10
    labels[100:] = 3
    folder = tmp_path / "others"
    lay_out(folder, "A", 2, {"features": 128, "outputs": 10}, labels)
    others = few.Lesson(folder, "A")
    for one, other in zip(
        pupils.batches(0, 100, 4, with_teacher=True).as_numpy_iterator(),
        others.batches(0, 100, 4, with_teacher=True).as_numpy_iterator(),
        strict=True,
    ):
        np.testing.assert_array_equal(one[1], other[1])

    _, labels, weights = one
    logits = np.random.default_rng(0).normal(size=(128, 10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(
        loss(labels, logits, weights), loss(labels[:64], logits[:64]), rtol=1e-5
    )


def test_all_labels_fill_the_batch_of_cross_entropy(pupils):
    (images, labels), *_ = pupils.batches(0, None, 4, False).as_numpy_iterator()
    assert len(images) == len(labels) == 128


def test_student_of_other_classes_sees_none_that_its_teacher_knows(few):
    labels = np.array([0, 7, 4, 5, 9, 5])
    images = np.arange(6)
    splits = {name: (images, labels) for name in ("train", "validation", "test")}
    for split in few.splits_of(splits, "B").values():
        np.testing.assert_array_equal(split[0], [1, 3, 4, 5])
        np.testing.assert_array_equal(split[1], [2, 0, 4, 0])
    np.testing.assert_array_equal(few.only((images, labels), few.SEEN)[0], [0, 2])
    for teacher in "AC":
        assert few.splits_of(splits, teacher) is splits


def test_headless_teachers_lend_no_logits_and_share_cross_entropy(few):
    plan, weights = few.WHOLE, dict.fromkeys(few.METHODS, 1.0) | {"CE": None}
    of = {
        teacher: few.test_runs(plan, few.Cell(teacher, 500), weights)
        for teacher in "ABC"
    }
    for teacher, runs in of.items():
        assert any(run.method == "KD" for run in runs) == (teacher == "A")
        assert len(runs) == 3 * len(few.methods_of(plan, teacher))
    alone = {
        teacher: [run.file for run in runs if run.method == "CE"]
        for teacher, runs in of.items()
    }
    assert alone["A"] == alone["C"] == [f"A-500/CE-{s}.json" for s in plan.seeds]
    assert not set(alone["A"]) & set(alone["B"])
    others = [run.file for runs in of.values() for run in runs if run.method != "CE"]
    assert len(set(others)) == len(others)


def test_other_settings_are_refused(few, tmp_path):
    few.sweep.check_settings(few.settings_of(few.WHOLE), tmp_path)
    few.sweep.check_settings(few.settings_of(few.WHOLE), tmp_path)
    shorter = dataclasses.replace(few.WHOLE, steps=1000)
    with pytest.raises(SystemExit, match="other settings"):
        few.sweep.check_settings(few.settings_of(shorter), tmp_path)


def test_table_and_plot_are_of_what_there_is(few, tmp_path):
    plan, first = few.SMOKE, few.SMOKE.stages[0]

    def finish(runs, gain=0.0):
        for run in runs:
            scores = {"validation": 0.5, "test": 0.5 + gain * (run.method != "CE")}
            scores |= {"method": run.method, "weight": run.weight, "seed": run.seed}
            few.sweep.write(tmp_path / run.file, scores | {"auxiliary": 7})

    tuning = few.tuning_runs(plan, "A")
    finish(tuning[1:])
    assert "###" not in few.show(plan, tmp_path)  # weights are not chosen yet
    finish(tuning)
    weights = {run.method: run.weight for run in tuning}
    finish(
        few.test_runs(plan, first, weights)[:-1], gain=0.1
    )  # the last seed's control
    table = few.show(plan, tmp_path)
    assert table.count("###") == 1 and f"{first.labels} labels; 1 to 2 seeds" in table
    assert "| KD | 0.5 | 60.00 ± 0.00 | +10.00 ± 0.00 | 50.00 | yes | 7 |" in table
    assert "| control: random pairs | 0.05 | 60.00 ± nan |" in table
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_a_view_is_to_be_told_from_all_others_but_its_partner(simclr, rng):
    views = rng.normal(size=(6, 4)).astype("float32")
    unit = views / np.linalg.norm(views, axis=1, keepdims=True)
    expected, found = [], []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        alike = {j: np.exp(unit[i] @ unit[j] / simclr.TEMPERATURE) for j in others}
        partner = (i + 3) % 6
        expected.append(-np.log(alike[partner] / sum(alike.values())))
        found.append(max(others, key=alike.get) == partner)
    loss = simclr.contrastive_loss(None, views)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(simclr.partners_found(None, views), found)


def test_two_views_of_each_image(simclr):
    images = np.zeros((3, 8, 8, 1), "uint8")
    images[:, 2:6, 2:6, 0] = np.array([50, 100, 150])[:, None, None]
    views, labels = simclr.two_views(images, None, (1, 2))
    again, _ = simclr.two_views(images, None, (1, 2))
    assert views.shape == (6, 8, 8, 1) and views.dtype == "uint8"
    assert labels.shape == (6,)
    np.testing.assert_array_equal(views, again)
    brightest = np.max(views, axis=(1, 2, 3)) / np.tile([50, 100, 150], 2)
    assert np.all((brightest > 0.55) & (brightest < 1.45))
    assert not np.array_equal(views[:3], views[3:])
