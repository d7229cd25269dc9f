"""Random changes to images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import TeacherCache
from keras_lpd.datasets import augmentation
from tests.datasets.helpers import all_views


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize(
    ("name", "padding", "shape"),
    [
        ("cifar10", 4, (32, 32, 3)),
        ("cifar100", 4, (32, 32, 3)),
        ("fashion_mnist", 2, (28, 28, 1)),
        ("cifar10", 4, (5, 7, 2)),
    ],
)
def test_all_shifts_and_flips_occur_about_as_often(name, padding, shape, dtype):
    image = np.random.default_rng(0).integers(1, 256, shape).astype(dtype)
    views = [view.tobytes() for view in all_views(image, padding)]
    number = {view: index for index, view in enumerate(views)}
    assert len(number) == 2 * (2 * padding + 1) ** 2

    augment, each = augmentation(name), 100
    batch = np.repeat(image[None], each * len(number), axis=0)
    augmented = augment(batch, (3, 5)).numpy()

    assert augmented.dtype == dtype
    seen = np.bincount([number[one.tobytes()] for one in augmented])
    assert len(seen) == len(number)
    assert seen.min() > each / 2
    assert seen.max() < each * 1.6


def test_single_images_are_changed_as_the_seed_says():
    augment = augmentation("cifar10")
    image = np.random.default_rng(0).random((32, 32, 3), "float32")
    views = {view.tobytes() for view in all_views(image, 4)}
    seen = set()
    for index in range(40):
        seed = tf.constant([0, index], tf.int64)
        once, again = augment(image, seed), augment(tf.constant(image), seed)
        assert once.shape == (32, 32, 3)
        assert once.dtype == tf.float32
        np.testing.assert_array_equal(once, again)
        seen.add(once.numpy().tobytes())
    assert seen <= views
    assert len(seen) > 25


def test_mnist_and_svhn_have_no_augmentation():
    assert augmentation("mnist") is None
    assert augmentation("svhn_cropped") is None


def test_augmentation_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*\(28, 28\)"):
        augmentation("fashion_mnist")(np.zeros((28, 28)), (0, 0))


def test_augmentation_serves_a_teacher_cache(tmp_path):
    images = np.random.default_rng(0).random((6, 8, 8, 3), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(6)))
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    teacher = keras.Model(inputs, keras.layers.Dense(10)(features))

    augment = augmentation("cifar10")
    cache = TeacherCache.build(
        teacher, dataset, tmp_path / "cache", views=2, augment=augment, verbose=0
    )
    attached = list(cache.attach(dataset, augment=augment).as_numpy_iterator())

    assert len(attached) == 12
    for index, (x, label) in enumerate(attached):
        assert label == index % 6
        views = {view.tobytes() for view in all_views(images[index % 6], 4)}
        assert x["inputs"].tobytes() in views
