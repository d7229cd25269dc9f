"""Builds that are refused or cut off, and what is to be seen of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import TeacherCache, teacher_cache
from keras_lpd.caching import building, recipe

layers = keras.layers

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, name="features"), layers.Dense(3)]
    )


@pytest.fixture
def build(teacher, tmp_path):
    """Builds a cache of `X`, unless another teacher or data are given."""

    def build(teacher=teacher, data=X, **settings):
        if not isinstance(data, tf.data.Dataset):
            data = tf.data.Dataset.from_tensor_slices(data)
        settings = {"dtype": "float32", "verbose": 0, **settings}
        return TeacherCache.build(teacher, data, tmp_path / "cache", **settings)

    return build


class Killed(BaseException):
    pass


@pytest.fixture
def killed_while_fitting(build, monkeypatch, tmp_path):
    """What a build leaves that was killed before it had any row."""

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recipe, "fit_projection", kill)
        patched.setattr(building.shutil, "rmtree", lambda folder: None)
        with pytest.raises(Killed):
            build(project=3)
    folder = tmp_path / "cache.building"
    assert (folder / "progress.json").exists()
    return folder


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"project": 2}, "It differs in `project`"),
        ({"project": 3, "data": X[::-1].copy()}, "first samples differ"),
    ],
)
def test_a_build_without_rows_is_left_to_its_own(
    build, killed_while_fitting, other, said
):
    before = {one.name: one.read_bytes() for one in killed_while_fitting.iterdir()}
    with pytest.raises(FileExistsError, match=f"unfinished cache. .*{said}"):
        build(**other)
    assert before == {
        one.name: one.read_bytes() for one in killed_while_fitting.iterdir()
    }
    assert build(project=3).shape("features") == (3,)


@pytest.mark.parametrize("verbose", [0, 1])
def test_silence_goes_for_a_cache_that_is_there_already(
    build, monkeypatch, capfd, verbose
):
    build()
    monkeypatch.setattr(teacher_cache, "CHECK_DELAY", 0.0)
    capfd.readouterr()
    build(verbose=verbose)
    assert ("40/40" in capfd.readouterr().out) == bool(verbose)


def test_images_of_another_size_are_told_of_before_the_projection_too(build):
    """Behind those that are looked at before anything is built."""
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3)(inputs))
    of_all_sizes = keras.Model(inputs, layers.Dense(3)(x))
    sizes = tf.data.Dataset.from_tensor_slices([8] * 36 + [9] * 4)
    images = sizes.map(lambda size: tf.random.stateless_normal([size, 8, 3], (0, 1)))
    with pytest.raises(ValueError, match="must have one shape.*`tf.image.resize`"):
        build(of_all_sizes, images, project=8)
