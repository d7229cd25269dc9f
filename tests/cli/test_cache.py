"""`keras-lpd cache`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import TeacherCache
from keras_lpd.cli import main
from keras_lpd.datasets import load_arrays


def cache(teacher, out, *more):
    arguments = ["--teacher", teacher[1], "--dataset", "digits", "--out", str(out)]
    return main(["cache", *arguments, *more])


def test_cache_fits_the_data_of_load_arrays(teacher, tmp_path):
    assert cache(teacher, tmp_path / "cache", "--dtype", "float32") == 0
    data = load_arrays("digits")
    made = TeacherCache.open(tmp_path / "cache")
    made.attach(tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train)))
    layer = teacher[0].get_layer("features").output
    expected = keras.Model(teacher[0].inputs, layer)(data.x_train)
    np.testing.assert_allclose(made["features"], expected, rtol=1e-5, atol=1e-6)


def test_options_reach_the_cache(teacher, tmp_path):
    options = ["--layer", "body", "--layer", "features", "--outputs"]
    options += ["--project", "8", "--projection", "gaussian", "--batch-size", "100"]
    assert cache(teacher, tmp_path / "cache", *options) == 0
    made = TeacherCache.open(tmp_path / "cache")
    assert made.layers == ["body", "features"]
    assert made.outputs
    assert made["body"].shape == (1347, 8)
    assert made["body"].dtype == np.float16
    assert "gaussian-8" in made.mark.projection


def test_the_same_again_is_no_error(teacher, tmp_path):
    assert cache(teacher, tmp_path / "cache") == 0
    before = (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns
    assert cache(teacher, tmp_path / "cache") == 0
    assert (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--teacher", "nowhere.keras"], "nowhere.keras"),
        (["--layer", "nothing"], "no layer 'nothing'"),
        (["--project", "500"], "below the width"),
    ],
)
def test_errors_take_one_line(teacher, tmp_path, only_error, change, message):
    assert cache(teacher, tmp_path / "cache", *change) == 1
    assert message in only_error()
    assert not (tmp_path / "cache").exists()
