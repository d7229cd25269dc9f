"""What `--dataset` takes, and what it refuses."""

import argparse

import keras
import numpy as np
import pytest

from keras_lpd.cli.data import load_data
from keras_lpd.datasets import load_arrays


def load(dataset, shape=(8, 8, 1), image_size=None):
    inputs = keras.Input(shape)
    return load_data(options(dataset, image_size), keras.Model(inputs, inputs))


def options(dataset, image_size=None):
    return argparse.Namespace(
        dataset=str(dataset), data_dir=None, image_size=image_size
    )


def save_images(folder, count, value, shape=(8, 8, 1)):
    folder.mkdir(parents=True)
    for index in range(count):
        image = np.full(shape, value, "uint8")
        write_png(folder / f"{index}.png", image)


def write_png(path, image):
    import tensorflow as tf

    path.write_bytes(tf.io.encode_png(image).numpy())


# Names


def test_digits_are_those_of_load_arrays():
    data, expected = load("digits"), load_arrays("digits")
    for one, other in zip(data[:4], expected[:4]):
        np.testing.assert_array_equal(one, other)


def test_image_size_reaches_what_has_a_name():
    data = load("digits", image_size=(16, 12))
    assert data.x_train.shape == (1347, 16, 12, 1)
    assert data.x_test.shape == (450, 16, 12, 1)
    assert data.x_train.max() <= 1


def test_unknown_names_are_refused():
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="Received: 'mnst'. Did you mean 'mnist'?"):
        load("mnst")


def test_paths_that_are_not_there_are_no_names():
    with pytest.raises(FileNotFoundError, match="There is no folder nowhere"):
        load("./nowhere")
    with pytest.raises(FileNotFoundError, match="There is no file nowhere.npz"):
        load("nowhere.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match="x.csv is neither a folder nor an .npz"):
        load(tmp_path / "x.csv")


# Folders


def test_a_folder_of_classes_is_split_the_same_way_every_time(tmp_path):
    for value, name in enumerate(["cat", "ape", "bee"]):
        save_images(tmp_path / name, 10, 50 * value)
    data, again = load(tmp_path), load(tmp_path)
    assert data.class_names == ["ape", "bee", "cat"]
    assert data.x_train.shape == (24, 8, 8, 1)
    assert data.x_train.dtype == np.float32
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2, 2])
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        values = np.array([50, 100, 0])[y] / 255  # ape, bee, cat
        expected = np.broadcast_to(values[:, None, None, None], x.shape)
        np.testing.assert_allclose(x, expected, atol=1e-6)
    for one, other in zip(data[:4], again[:4]):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("test", ["test", "validation"])
def test_train_and_test_may_be_folders(tmp_path, test):
    for part, count in (("train", 3), (test, 2)):
        for value, name in enumerate(["a", "b"]):
            save_images(tmp_path / part / name, count, 100 * value)
    data = load(tmp_path)
    assert (len(data.x_train), len(data.x_test)) == (6, 4)
    np.testing.assert_array_equal(np.sort(data.y_test), [0, 0, 1, 1])
    assert data.class_names == ["a", "b"]


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_images_of_a_folder_are_not_sorted_by_class(tmp_path, parts):
    for part in parts:
        for value, name in enumerate(["a", "b"]):
            save_images(tmp_path / part / name, 60, 100 * value)
    data = load(tmp_path)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        first = y[: len(y) // 2]
        assert 0.25 < first.mean() < 0.75
        np.testing.assert_allclose(x[:, 0, 0, 0], 100 * y / 255, rtol=1e-6)


def test_images_become_what_the_model_takes(tmp_path):
    save_images(tmp_path / "a", 3, 10, (9, 7, 3))
    save_images(tmp_path / "b", 3, 20, (5, 5, 1))
    assert load(tmp_path, (8, 6, 3)).x_train.shape[1:] == (8, 6, 3)
    assert load(tmp_path).x_train.shape[1:] == (8, 8, 1)
    assert load(tmp_path, (None, None, 3), (4, 5)).x_test.shape[1:] == (4, 5, 3)
    with pytest.raises(ValueError, match="--image-size"):
        load(tmp_path, (None, None, 3))


@pytest.mark.parametrize("image_size", [None, (8, 8)])
def test_models_of_something_else_take_no_folder(tmp_path, image_size):
    save_images(tmp_path / "a", 3, 0)
    with pytest.raises(
        ValueError, match=r"takes inputs of shape \(784,\)\. .*npz"
    ) as e:
        load(tmp_path, (784,), image_size)
    assert "--image-size" not in str(e.value)
    inputs = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    model = keras.Model(inputs, keras.layers.add(inputs))
    with pytest.raises(ValueError, match="takes 2 inputs") as e:
        load_data(options(tmp_path, image_size), model)
    assert "--image-size" not in str(e.value)


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no folders in it, one for each class"):
        load(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="they have no images. Expected: one folder"):
        load(tmp_path)


def test_train_without_test_is_refused(tmp_path):
    save_images(tmp_path / "train" / "a", 2, 0)
    with pytest.raises(ValueError, match="none .* called test or validation"):
        load(tmp_path)


def test_other_classes_to_test_on_are_refused(tmp_path):
    save_images(tmp_path / "train" / "a", 2, 0)
    save_images(tmp_path / "test" / "b", 2, 0)
    with pytest.raises(ValueError, match="different classes: a, b are in one"):
        load(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    save_images(tmp_path / "a", 3, 0)
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="a/1.png is no image"):
        load(tmp_path)


# Arrays


@pytest.fixture
def npz(arrays, tmp_path):
    def save(**changes):
        kept = {**arrays, **changes}
        kept = {name: array for name, array in kept.items() if array is not None}
        np.savez(tmp_path / "data.npz", **kept)
        return tmp_path / "data.npz"

    return save


def order(count):
    """The order that the help and `load_data` tell of."""
    return np.random.default_rng(0).permutation(count)


def test_samples_come_in_one_order_with_their_labels(npz, arrays):
    data = load(npz())
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        rows = order(len(y))
        np.testing.assert_array_equal(getattr(data, f"y_{part}"), y[rows])
        found = np.rint(getattr(data, f"x_{part}")[..., 0] * 255)
        np.testing.assert_array_equal(found, x[rows])


def test_bytes_are_scaled_and_get_an_axis_for_channels(npz, arrays):
    data = load(npz())
    expected = arrays["x_train"][order(96)][..., None] / 255
    np.testing.assert_allclose(data.x_train, expected, rtol=1e-6)
    assert data.x_train.dtype == np.float32
    np.testing.assert_array_equal(data.y_test, arrays["y_test"][order(24)])


def test_floats_stay_as_they_are(npz):
    x = 7 * np.random.default_rng(0).normal(size=(96, 8, 8, 1))
    data = load(npz(x_train=x, y_train=np.zeros((96, 1), "uint8")))
    np.testing.assert_allclose(data.x_train, x[order(96)], rtol=1e-6)
    assert data.y_train.shape == (96,)


def test_rows_and_sequences_are_left_alone(npz):
    rows = {"x_train": np.zeros((96, 5)), "x_test": np.zeros((24, 5))}
    assert load(npz(**rows), (5,)).x_train.shape == (96, 5)
    assert load(npz(), (8, 8)).x_train.shape == (96, 8, 8)


def test_image_size_reaches_arrays(npz):
    assert load(npz(), image_size=(16, 16)).x_test.shape == (24, 16, 16, 1)
    with pytest.raises(ValueError, match="For --image-size it has to be"):
        load(npz(), (8, 8), (16, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test. Expected: x_train, .* has: x_train"),
        ({"x_train": None, "y_test": None}, "lacks x_train, y_test"),
        ({"x_train": np.array([{}] * 96)}, "x_train can't be read without .*pickle"),
        ({"y_train": np.array(["a"] * 96)}, "y_train must be the class of each"),
        ({"y_train": np.zeros((96, 10))}, r"y_train must be .*\(96, 10\)"),
        ({"y_train": np.full(96, -1)}, "y_train must be .* from -1"),
        ({"y_train": np.zeros(95, int)}, "96 samples and y_train has 95"),
        ({"x_train": np.full((96, 8, 8), 256)}, "integers from 256 to 256"),
        ({"x_train": np.full((96, 8, 8), np.nan)}, "x_train has NaN"),
        ({"x_train": np.zeros(96)}, r"x_train must be .* \(96,\)"),
        ({"x_test": np.zeros((24, 9, 9))}, "different shapes"),
    ],
)
def test_arrays_that_will_not_do_are_refused(npz, changes, message):
    with pytest.raises(ValueError, match=message):
        load(npz(**changes))


def test_pickles_in_place_of_arrays_are_not_opened(tmp_path):
    path = tmp_path / "data.npz"
    np.array([{"a": 1}]).dump(path)
    with pytest.raises(ValueError, match="is no .npz file"):
        load(path)
