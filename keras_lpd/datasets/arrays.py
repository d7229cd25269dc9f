"""Data sets in memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_lpd.datasets.tfds import IMAGE_SETS, builder_of, prepare, whole


class Arrays(NamedTuple):
    """A data set in memory: float32 images in [0, 1], integer labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list[str]


def load_arrays(
    name: str,
    data_dir: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> Arrays:
    """Loads a data set into memory.

    Args:
        name: `"digits"`, the 1,797 images of 8x8 that come with scikit-learn,
            a quarter of them for testing; or the name of images with a class each
            in tensorflow-datasets, such as `"fashion_mnist"`, which has 70,000
            images of 28x28. On a machine without internet that one is made from
            the files of Debian's package `dataset-fashion-mnist`, where it is
            installed. A set without a split for testing is tested on its
            `validation`; if it has none either, on a fifth of each class.
        data_dir: Where tensorflow-datasets keeps its data. Defaults to its
            own default, `~/tensorflow_datasets`.
        image_size: Height and width that images are resized to. Needed for sets
            whose images differ in size. Defaults to `None`: they stay as they are.

    Returns:
        The images, of shape `(samples, height, width, channels)`, and labels,
        split the same way every time.

    Raises:
        ValueError: If the name is unknown, the set is something else than images
            with a class each, or their sizes differ.
        ImportError: If tensorflow-datasets is needed, and not installed.
        RuntimeError: If the data can't be had; says what to do.

    Example:

    >>> data = load_arrays("digits")
    >>> data.x_train.shape
    (1347, 8, 8, 1)
    """
    if name != "digits":
        return _load_tfds(name, data_dir, image_size)
    data = _load_digits()
    if image_size is None:
        return data
    return data._replace(
        x_train=resized(data.x_train, image_size),
        x_test=resized(data.x_test, image_size),
    )


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images of another height and width, as float32."""
    import tensorflow as tf

    batches = [images[start : start + 256] for start in range(0, len(images), 256)]
    return np.concatenate([tf.image.resize(x, size).numpy() for x in batches])


def held_out(labels: np.ndarray) -> np.ndarray:
    """Which samples to test on: a fifth of each class, the same every time."""
    order = np.random.default_rng(0).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    chosen = np.zeros(len(labels), bool)
    chosen[by_class[::5]] = True
    return chosen


def _load_digits() -> Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype("float32")[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return Arrays(x_train, y_train, x_test, y_test, [str(c) for c in range(10)])


def _load_tfds(
    name: str, data_dir: str | None, image_size: tuple[int, int] | None
) -> Arrays:
    builder = builder_of(name, data_dir)
    if name not in IMAGE_SETS:
        _check_images(name, builder, image_size)  # before any download
    prepare(name, builder)
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{name!r} has no split `train`, only {', '.join(splits)}.")
    x_train, y_train = _images(builder, "train", image_size)
    names = builder.info.features[builder.info.supervised_keys[1]].names
    for split in ("test", "validation"):
        if split in splits:
            x_test, y_test = _images(builder, split, image_size)
            if y_test.min() >= 0:  # There are tests without labels.
                return Arrays(x_train, y_train, x_test, y_test, names)
    test = held_out(y_train)
    return Arrays(x_train[~test], y_train[~test], x_train[test], y_train[test], names)


def _check_images(name: str, builder: Any, image_size: tuple[int, int] | None) -> None:
    """Asks for images of bytes with a class each, and for one size of all."""
    import tensorflow_datasets as tfds

    features, keys = builder.info.features, builder.info.supervised_keys
    image = label = None
    if isinstance(keys, tuple) and all(isinstance(key, str) for key in keys):
        image, label = features[keys[0]], features[keys[1]]
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or np.dtype(image.np_dtype) != np.uint8
    ):
        raise ValueError(
            f"{name!r} of tensorflow-datasets can't be trained on here. Expected: "
            "images of bytes, each with a class. Received: "
            f"{' '.join(str(features).split())}"
        )
    if image_size is None and None in image.shape:
        raise ValueError(
            f"The images of {name!r} differ in size: {image.shape}. Say which size "
            "they shall have, with `image_size=(height, width)` (`--image-size` of the "
            "command)."
        )


def _images(
    builder: Any, split: str, image_size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, between 0 and 1, and their labels, in a fixed order."""
    import tensorflow as tf

    if image_size is None:
        images, labels = whole(builder, split)
        return _scaled(images), labels
    data = builder.as_dataset(split=split, as_supervised=True)
    data = data.map(lambda image, label: (tf.image.resize(image, image_size), label))
    batches = list(data.batch(256).as_numpy_iterator())
    images = np.concatenate([images for images, _ in batches])
    return _scaled(images), np.concatenate([labels for _, labels in batches])


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255.0
