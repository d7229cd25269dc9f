"""`keras-lpd distill`: what it leaves in its folder, and how it goes on."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.callbacks import ChiefBackup
from keras_lpd.cli import main

EPOCHS = 40  # more than are done while another process looks


def command(teacher, student, data, out, *more):
    files = ["--teacher", teacher[1], "--student", student[1], "--dataset", data]
    return ["distill", *files, "--out", str(out), "--batch-size", "32", *more]


@pytest.fixture
def distill(teacher, student, data):
    def run(out, *more, epochs=2):
        more = ("--epochs", str(epochs), *more)
        return main(command(teacher, student, data, out, *more))

    return run


@pytest.fixture(scope="module")
def done(teacher, student, data, tmp_path_factory):
    """A distillation that came to its end undisturbed; not to be changed."""
    out = tmp_path_factory.mktemp("done") / "out"
    more = ("--epochs", str(EPOCHS), "--seed", "3")
    assert main(command(teacher, student, data, out, *more)) == 0
    return out


def weights(out):
    return keras.saving.load_model(out / "student.keras", compile=False).get_weights()


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def cut(monkeypatch):
    """Interrupts the training after some epochs, as Ctrl-C does."""

    def after(epochs):
        class Cutting(ChiefBackup):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == epochs:
                    raise KeyboardInterrupt

        monkeypatch.setattr("keras_lpd.callbacks.ChiefBackup", Cutting)

    return after


def test_the_folder_has_what_it_should(done, teacher, student, data):
    model = keras.saving.load_model(done / "student.keras")
    assert type(model) is keras.Sequential
    before = student[0].get_weights()
    assert not any(np.array_equal(a, b) for a, b in zip(weights(done), before))

    comparison = json.loads((done / "comparison.json").read_text())
    names = [row["name"] for row in comparison["rows"]]
    assert names == ["teacher", "student before", "distilled"]
    with np.load(data) as arrays:
        x, y = arrays["x_test"][..., None] / np.float32(255), arrays["y_test"]
    right = np.mean(model.predict(x, verbose=0).argmax(axis=1) == y)
    assert comparison["rows"][2]["accuracy"] == pytest.approx(right)
    assert comparison["samples"] == len(y)
    assert "distilled" in (done / "comparison.txt").read_text()

    if importlib.util.find_spec("tensorboard"):
        assert list((done / "logs").rglob("events.out.tfevents.*"))
    left = {path.name for path in done.iterdir()} - {"logs", ".lock"}
    files = {"settings.json", "student.keras", "comparison.json", "comparison.txt"}
    assert left == files


def test_a_finished_one_says_so_and_prints_the_table(
    done, teacher, student, data, capfd, caplog, monkeypatch
):
    monkeypatch.setattr(LPDistiller, "fit", None)
    before = contents(done)
    more = ("--epochs", str(EPOCHS), "--seed", "3")
    assert main(command(teacher, student, data, done, *more)) == 0
    assert "finished already" in caplog.text
    table = (done / "comparison.txt").read_text()
    assert capfd.readouterr().out.strip() == table.strip()
    assert contents(done) == before


def test_it_is_what_lpdistiller_does(done, teacher, student, data, tmp_path):
    """The losses and settings of the command reach the distiller."""
    out = tmp_path / "out"
    seen = {}
    plain = LPDistiller.fit

    def fit(self, *args, **kwargs):
        seen.update(self._settings)
        seen["losses"] = [type(loss).__name__ for loss in self.distillation_losses]
        seen["rate"] = float(self.optimizer.learning_rate)
        return plain(self, *args, **kwargs)

    more = ["--epochs", "1", "--gamma", "0.05", "--k", "3", "--learning-rate", "0.01"]
    more += ["--teacher-layer", "body", "--distillation-losses", "none"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LPDistiller, "fit", fit)
        assert main(command(teacher, student, data, out, *more)) == 0
    assert (seen["gamma"], seen["k"], seen["teacher_layer"]) == (0.05, 3, "body")
    assert seen["losses"] == []
    assert seen["rate"] == pytest.approx(0.01)
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert rows[0]["feature_layer"] == "body"


def test_killed_and_started_again_it_ends_at_the_same_weights(
    done, teacher, student, data, tmp_path
):
    out = tmp_path / "out"
    more = ("--epochs", str(EPOCHS), "--seed", "3")
    arguments = command(teacher, student, data, out, *more)
    backup = ChiefBackup(out / "backup")
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_lpd.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        while not backup.path.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        shown = process.stdout.read()
    assert process.returncode == -signal.SIGKILL, shown
    assert 1 <= backup.initial_epoch < EPOCHS
    assert not (out / "student.keras").exists()

    assert main(arguments) == 0
    assert_same(weights(out), weights(done))


def test_interrupted_it_says_how_to_go_on(distill, tmp_path, cut, capfd, monkeypatch):
    cut(2)
    assert distill(tmp_path / "cut", epochs=3) == 130
    assert "the same command goes on from the last whole" in capfd.readouterr().err
    monkeypatch.undo()
    assert distill(tmp_path / "cut", epochs=3) == 0
    assert distill(tmp_path / "whole", epochs=3) == 0
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_cut_off_behind_the_last_epoch_it_trains_no_more(
    distill, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("keras_lpd.report.compare", None)
        assert distill(tmp_path / "cut") == 1
    trained = weights(tmp_path / "cut")
    assert distill(tmp_path / "cut") == 0
    assert_same(weights(tmp_path / "cut"), trained)


@pytest.mark.slow
def test_with_a_cache_it_goes_on_as_well(distill, tmp_path, cut, monkeypatch):
    cache = ("--cache", str(tmp_path / "cache"))
    cut(1)
    assert distill(tmp_path / "cut", *cache) == 130
    monkeypatch.undo()
    assert len(TeacherCache.open(tmp_path / "cache")) == 96

    assert distill(tmp_path / "cut", *cache) == 0
    assert distill(tmp_path / "whole", *cache) == 0
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert distill(tmp_path / "without") == 0
    # The cache is in half precision, and otherwise the same.
    for a, b in zip(weights(tmp_path / "whole"), weights(tmp_path / "without")):
        np.testing.assert_allclose(a, b, atol=1e-2)


def cache(teacher, data, out, *more):
    files = ["--teacher", teacher[1], "--dataset", data, "--out", str(out)]
    return main(["cache", *files, *more])


@pytest.mark.parametrize(
    "more",
    [
        ("--dtype", "float32"),
        ("--outputs",),
        ("--layer", "body", "--layer", "features", "--dtype", "float32"),
    ],
)
def test_it_takes_what_keras_lpd_cache_made(distill, teacher, data, tmp_path, more):
    assert cache(teacher, data, tmp_path / "cache", *more) == 0
    before = contents(tmp_path / "cache")
    assert distill(tmp_path / "with", "--cache", str(tmp_path / "cache")) == 0
    assert contents(tmp_path / "cache") == before
    assert distill(tmp_path / "without") == 0
    for a, b in zip(weights(tmp_path / "with"), weights(tmp_path / "without")):
        np.testing.assert_allclose(a, b, atol=1e-4 if "float32" in more else 1e-2)


def test_it_takes_a_projected_cache(distill, teacher, data, tmp_path, only_error):
    made = tmp_path / "cache"
    assert cache(teacher, data, made, "--project", "4") == 0
    assert distill(tmp_path / "out", "--cache", str(made), epochs=1) == 0
    # Another cache makes another student.
    other = ("--cache", str(tmp_path / "other"))
    assert distill(tmp_path / "out", *other, epochs=1) == 1
    assert "it differs in cache (float16 pca-4" in only_error()


def test_caches_that_do_not_fit_are_refused(
    distill, teacher, student, data, tmp_path, only_error
):
    assert cache(student, data, tmp_path / "another") == 0
    assert distill(tmp_path / "out", "--cache", str(tmp_path / "another")) == 1
    assert "is of another teacher" in only_error()
    assert cache(teacher, data, tmp_path / "body", "--layer", "body") == 0
    body = ("--cache", str(tmp_path / "body"))
    assert distill(tmp_path / "out", *body) == 1
    assert "has 'body', not 'features'" in only_error()
    assert distill(tmp_path / "out", *body, "--teacher-layer", "body") == 0
    assert cache(teacher, "digits", tmp_path / "digits") == 0
    assert distill(tmp_path / "other", "--cache", str(tmp_path / "digits")) == 1
    assert "is of another data set" in only_error()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--epochs", "41"), f"epochs ({EPOCHS}, not 41)"),
        (("--gamma", "0.1"), "gamma (0.005, not 0.1)"),
        (("--seed", "4"), "seed (3, not 4)"),
        (("--distillation-losses", "none"), "distillation-losses"),
        (("--cache", "somewhere"), "cache"),
        (("--dataset", "digits"), "dataset."),
        (("--image-size", "8x8", "--student-layer", "narrow"), "student-layer"),
    ],
)
def test_another_command_is_refused(
    done, teacher, student, data, only_error, change, named
):
    before = contents(done)
    more = ("--epochs", str(EPOCHS), "--seed", "3", *change)
    assert main(command(teacher, student, data, done, *more)) == 1
    line = only_error()
    assert f"{done} is of another command: it differs in {named}" in line
    assert "Choose another --out" in line
    assert contents(done) == before


def test_another_teacher_or_student_is_refused(
    done, teacher, student, data, only_error
):
    more = ("--epochs", str(EPOCHS), "--seed", "3")
    assert main(command(student, student, data, done, *more)) == 1
    assert "it differs in teacher." in only_error()
    assert main(command(teacher, teacher, data, done, *more)) == 1
    assert "it differs in student." in only_error()


def test_files_may_move(done, teacher, student, data, tmp_path):
    moved = [shutil.copy(path, tmp_path) for path in (teacher[1], student[1], data)]
    more = ("--epochs", str(EPOCHS), "--seed", "3")
    again = command((None, moved[0]), (None, moved[1]), moved[2], done, *more)
    assert main(again) == 0


def test_a_folder_of_something_else_is_refused(distill, tmp_path, only_error):
    (tmp_path / "notes.txt").write_text("mine")
    assert distill(tmp_path) == 1
    assert "is there already, and of something else" in only_error()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--teacher", "nowhere.keras"], "nowhere.keras"),
        (["--dataset", "nowhere.npz"], "nowhere.npz"),
        (["--image-size", "9x9"], "takes inputs of shape (8, 8, 1)"),
        (["--teacher-layer", "nothing"], "'nothing'"),
    ],
)
def test_errors_take_one_line(distill, tmp_path, only_error, change, message):
    assert distill(tmp_path / "out", *change) == 1
    assert message in only_error()
    assert distill(tmp_path / "out", epochs=1) == 0  # as it should have been


def test_without_tensorboard_there_are_no_logs(distill, tmp_path, caplog, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorboard" else found(name, *rest),
    )
    assert distill(tmp_path / "out", epochs=1) == 0
    assert "pip install 'keras-lpd[tensorboard]'" in caplog.text
    assert not (tmp_path / "out" / "logs").exists()
