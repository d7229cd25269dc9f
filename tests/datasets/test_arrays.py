"""Data sets in memory."""

import os

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_lpd.datasets import held_out, load_arrays, tfds
from tests.datasets.helpers import PREPARED

# Digits


def test_digits_come_as_images_and_labels():
    data = load_arrays("digits")
    assert data.x_train.shape == (1347, 8, 8, 1)
    assert data.x_test.shape == (450, 8, 8, 1)
    assert data.y_train.shape == (1347,)
    assert data.y_test.shape == (450,)
    assert data.class_names == list("0123456789")
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        assert np.issubdtype(y.dtype, np.integer)
        assert set(y) == set(range(10))


def test_digits_are_split_without_overlap_or_loss():
    everything = load_digits()
    data = load_arrays("digits")

    train = {x.tobytes(): y for x, y in zip(data.x_train, data.y_train, strict=True)}
    test = {x.tobytes(): y for x, y in zip(data.x_test, data.y_test, strict=True)}

    assert not train.keys() & test.keys()
    images = (everything.images / 16).astype("float32")
    assert {**train, **test} == {
        x.tobytes(): y for x, y in zip(images, everything.target, strict=True)
    }


def test_digits_are_split_evenly_over_the_classes():
    data = load_arrays("digits")
    train, test = np.bincount(data.y_train), np.bincount(data.y_test)
    np.testing.assert_allclose(test, (train + test) / 4, atol=1)


def test_digits_are_split_the_same_way_every_time():
    np.random.seed(1)
    one = load_arrays("digits")
    np.random.seed(2)
    other = load_arrays("digits")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_digits_in_another_size():
    data, plain = load_arrays("digits", image_size=(4, 16)), load_arrays("digits")
    assert data.x_train.shape == (1347, 4, 16, 1)
    assert data.x_test.shape == (450, 4, 16, 1)
    assert (data.x_train.min(), data.x_train.dtype) == (0, np.float32)
    expected = plain.x_test.reshape(450, 4, 2, 8, 1).mean(axis=2)
    np.testing.assert_allclose(data.x_test[:, :, ::2], expected, atol=0.3)
    np.testing.assert_array_equal(data.y_test, plain.y_test)


def test_a_fifth_of_each_class_is_held_out_the_same_way():
    labels = np.repeat([3, 0, 7], [50, 10, 25])
    chosen = held_out(labels)
    np.testing.assert_array_equal(np.bincount(labels[chosen])[[0, 3, 7]], [2, 10, 5])
    np.testing.assert_array_equal(chosen, held_out(labels))


# Any set of tensorflow-datasets, by small ones that are made here


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Registers small sets with tensorflow-datasets; gives the folder for them."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        splits = ("train", "test")
        shape = (4, 4, 3)
        unlabelled = ()

        def _info(self):
            label = tfds.features.ClassLabel(names=["ape", "bee"])
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {"image": tfds.features.Image(shape=self.shape), "label": label}
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            return {name: self._generate_examples(name) for name in self.splits}

        def _generate_examples(self, split):
            for index in range(20):
                image = np.full((4, 4 + (self.shape[1] is None) * index, 3), 10 * index)
                label = -1 if split in self.unlabelled else index % 2
                yield index, {"image": image.astype("uint8"), "label": label}

    class SmallImages(Small):
        pass

    class SmallTrainOnly(Small):
        splits = ("train",)

    class SmallUnlabelledTest(Small):
        splits = ("train", "test", "validation")
        unlabelled = ("test",)

    class SmallOfAllSizes(Small):
        shape = (None, None, 3)

    class SmallNumbers(Small):
        def _info(self):
            features = {"x": tfds.features.Scalar(np.float32)}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def download_and_prepare(self, **kwargs):
            raise AssertionError("it was about to be downloaded")

    return str(tmp_path_factory.mktemp("tfds"))


def test_any_images_with_classes_are_loaded(made):
    data = load_arrays("small_images", made)
    assert data.class_names == ["ape", "bee"]
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert (x.shape, x.dtype) == ((20, 4, 4, 3), np.float32)
        index = np.rint(x[:, 0, 0, 0] * 25.5)
        np.testing.assert_array_equal(np.sort(index), np.arange(20))
        np.testing.assert_array_equal(y, index % 2)


def test_without_a_test_split_a_fifth_is_tested_on(made):
    data = load_arrays("small_train_only", made)
    assert (data.x_train.shape, data.x_test.shape) == ((16, 4, 4, 3), (4, 4, 4, 3))
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2])


def test_a_test_split_without_labels_is_passed_over(made):
    data = load_arrays("small_unlabelled_test", made)
    assert len(data.x_test) == 20
    assert data.y_test.min() == 0


def test_images_of_all_sizes_need_one(made):
    with pytest.raises(ValueError, match=r"'small_of_all_sizes' differ in size.*size="):
        load_arrays("small_of_all_sizes", made)
    data = load_arrays("small_of_all_sizes", made, image_size=(6, 5))
    assert data.x_train.shape == (20, 6, 5, 3)
    index = data.x_train[:, 0, 0, 0] * 25.5
    np.testing.assert_allclose(np.sort(index), np.arange(20), atol=1e-4)


def test_what_has_no_images_is_refused_before_any_download(made):
    with pytest.raises(ValueError, match="'small_numbers' .* Expected: images of"):
        load_arrays("small_numbers", made)


# Fashion-MNIST itself


@pytest.mark.parametrize(
    "source", ["prepared", pytest.param("debian", marks=pytest.mark.slow)]
)
def test_fashion_mnist_itself(source, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    if source == "prepared":
        if not any(PREPARED.glob("*/dataset_info.json")):
            pytest.skip("Fashion-MNIST is not prepared on this machine")
        os.symlink(PREPARED, tmp_path / "fashion_mnist")
    elif not tfds.DEBIAN.exists():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")

    data = load_arrays("fashion_mnist", data_dir=str(tmp_path))

    assert data.x_train.shape == (60_000, 28, 28, 1)
    assert data.x_test.shape == (10_000, 28, 28, 1)
    for x, y, count in (
        (data.x_train, data.y_train, 6000),
        (data.x_test, data.y_test, 1000),
    ):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        np.testing.assert_array_equal(np.bincount(y), [count] * 10)
    assert data.class_names[0] == "T-shirt/top"
    assert len(data.class_names) == 10
