"""`keras-lpd demo`."""

import keras
import numpy as np

from keras_lpd.cli import main


def test_it_prints_the_table_and_what_comes_next(tmp_path, capfd):
    out = tmp_path / "demo"
    assert main(["demo", "--epochs", "1", "--out", str(out)]) == 0
    shown = capfd.readouterr().out
    for name in ("teacher", "student alone", "distilled"):
        assert f"\n{name} " in shown
    following = shown.splitlines()[-1]
    assert following.startswith("Next: keras-lpd distill --teacher ")
    assert str(out / "student.keras") in following

    teacher = keras.saving.load_model(out / "teacher.keras", compile=False)
    student = keras.saving.load_model(out / "student.keras", compile=False)
    assert teacher.count_params() > student.count_params()
    assert not np.any(student.get_layer("logits").bias)  # not trained


def test_a_folder_that_is_taken_is_refused_first(tmp_path, only_error, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "Choose another --out" in only_error()
