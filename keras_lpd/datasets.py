"""Data to try things on: scikit-learn's digits, and image sets through tfds."""

from __future__ import annotations

import difflib
import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_lpd.arguments import as_integer, is_integer, is_number
from keras_lpd.unlabelled import mix_unlabelled as mix_unlabelled

if TYPE_CHECKING:
    import tensorflow as tf

NAMES = ("digits", "fashion_mnist")
"""What `load_arrays` loads without internet, or nearly so."""


class _ImageSet(NamedTuple):
    title: str
    train_size: int
    padding: int | None  # Of its augmentation, if it has one.


_IMAGE_SETS = {
    "fashion_mnist": _ImageSet("Fashion-MNIST", 60_000, 2),
    "mnist": _ImageSet("MNIST", 60_000, None),
    "cifar10": _ImageSet("CIFAR-10", 50_000, 4),
    "cifar100": _ImageSet("CIFAR-100", 50_000, 4),
    "svhn_cropped": _ImageSet("SVHN", 73_257, None),
}

IMAGE_SETS = tuple(_IMAGE_SETS)
"""What `load` can load."""

_DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")

# When the original gzip files were made, in seconds since 1970.
_FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": 1504176606,
    "train-labels-idx1-ubyte": 1504176606,
    "t10k-images-idx3-ubyte": 1504176627,
    "t10k-labels-idx1-ubyte": 1504176627,
}


class Arrays(NamedTuple):
    """A data set in memory: float32 images in [0, 1], integer labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list[str]


class Pipelines(NamedTuple):
    """A data set to train and evaluate on: batches of `(images, labels)`.

    Images are float32 in [0, 1], labels are integers.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset
    class_names: list[str]
    image_shape: tuple[int, int, int]
    train_size: int


def load(
    name: str,
    *,
    batch_size: int = 128,
    validation: int | float = 5000,
    labelled: int | None = None,
    augment: bool = True,
    seed: int = 0,
    data_dir: str | None = None,
) -> Pipelines:
    """Loads an image set as pipelines, to train, validate and test on.

    The training images come in another order in each epoch, each of them once,
    and augmented as is usual for the set (see `augmentation`). Validation and
    test images come in their own order and as they are. All are kept in memory,
    as bytes.

    Order and augmentation depend on `seed` and on the count of epochs alone: two
    `train` made with the same arguments give the same batches in each epoch, to
    the bit. An epoch is one pass through `train`, also if it is not finished.

    ```
    data = load("fashion_mnist", validation=0.1)
    model.fit(data.train, validation_data=data.validation, epochs=10)
    model.evaluate(data.test)
    ```

    Args:
        name: `"fashion_mnist"`, `"mnist"`, `"cifar10"`, `"cifar100"` or
            `"svhn_cropped"`. tensorflow-datasets downloads them when they are
            first asked for; Fashion-MNIST is made from the files of Debian's
            package `dataset-fashion-mnist`, where that is installed.
        batch_size: Samples in a batch. The last one of an epoch may have
            fewer. Defaults to 128.
        validation: How many samples are held back from the end of the training
            split, or which fraction of it. With 0, `validation` is `None`.
            Defaults to 5000.
        labelled: How many of the remaining training samples are used, the
            first ones; the others are left out. Defaults to `None`: all.
        augment: Whether training images are augmented. Defaults to `True`.
        seed: Seed of order and augmentation. The global seeds of Keras and
            TensorFlow have no part in them. Defaults to 0.
        data_dir: Where tensorflow-datasets keeps its data. Defaults to its
            own default, `~/tensorflow_datasets`.

    Returns:
        A named tuple: `train`, `validation` and `test`, each a
        `tf.data.Dataset`; `class_names`; `image_shape`, as `(height, width,
        channels)`; and `train_size`, the samples of an epoch.

    Raises:
        ValueError: If the name is unknown, or an argument out of its range.
        ImportError: If tensorflow-datasets is not installed.
        RuntimeError: If the data can't be had; says what to do.
    """
    image_set = _image_set(name)
    batch_size = as_integer("batch_size", batch_size, least=1)
    seed = as_integer("seed", seed, least=0)
    if not isinstance(augment, bool):
        raise ValueError(
            f"`augment` must be True or False. Received: {augment!r}. For another "
            "augmentation, give False and map `train`."
        )
    _split(image_set.train_size, validation, labelled)  # before any download

    builder = _prepared(name, data_dir)
    images, labels = _whole(builder, "train")
    train, rest = _split(len(images), validation, labelled)
    return Pipelines(
        train=_shuffled(
            images[:train],
            labels[:train],
            batch_size,
            augmentation(name) if augment else None,
            seed,
        ),
        validation=_in_order(images[rest:], labels[rest:], batch_size)
        if rest < len(images)
        else None,
        test=_in_order(*_whole(builder, "test"), batch_size),
        class_names=builder.info.features["label"].names,
        image_shape=images.shape[1:],
        train_size=train,
    )


def augmentation(name: str) -> Callable[[Any, Any], tf.Tensor] | None:
    """The usual augmentation of an image set.

    For CIFAR-10 and CIFAR-100, images are padded with 4 pixels of zeros on all
    sides, cropped to their former size at random, and flipped left to right
    half of the time; for Fashion-MNIST the same, with 2 pixels. MNIST and SVHN
    are commonly trained on as they are.

    Args:
        name: One of `IMAGE_SETS`.

    Returns:
        A function `(image, seed) -> image`, which depends on nothing but its
        arguments, as `TeacherCache.build` asks of its `augment`; `None` for a
        set that has none. The image may have any dtype, which it keeps. Given a
        batch, each of its images is changed on its own. The seed is a tensor of
        two integers.

    Raises:
        ValueError: If the name is unknown.

    Example:

    >>> augment = augmentation("cifar10")
    >>> image = augment(np.ones((32, 32, 3), "uint8"), seed=(0, 1))
    >>> image.shape, image.dtype
    (TensorShape([32, 32, 3]), tf.uint8)

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv
    1512.03385, section 4.2, for CIFAR-10.
    """
    padding = _image_set(name).padding
    if padding is None:
        return None
    return functools.partial(_crop_and_flip, padding=padding)


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
        ImportError: If the package that has the data is not installed.
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
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise _missing("scikit-learn") from error

    digits = load_digits()
    images = (digits.images / 16.0).astype("float32")[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return Arrays(x_train, y_train, x_test, y_test, [str(c) for c in range(10)])


def _load_tfds(
    name: str, data_dir: str | None, image_size: tuple[int, int] | None
) -> Arrays:
    builder = _builder(name, data_dir)
    if name not in _IMAGE_SETS:
        _check_images(name, builder, image_size)  # before any download
    _prepare(name, builder)
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


def _prepared(name: str, data_dir: str | None) -> Any:
    """The builder of tensorflow-datasets, with its data on disk."""
    builder = _builder(name, data_dir)
    _prepare(name, builder)
    return builder


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise _missing("tensorflow-datasets") from error

    if name in _IMAGE_SETS:
        return tfds.builder(name, data_dir=data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        message = (
            "Known data sets are digits and those of tensorflow-datasets, such as "
            f"{', '.join(IMAGE_SETS)}. Received: {name!r}."
        )
        if near := difflib.get_close_matches(str(name).lower(), known, 1, 0.5):
            message += f" Did you mean {near[0]!r}?"
        raise ValueError(message) from None


def _prepare(name: str, builder: Any) -> None:
    """Sees to it that the data is on disk."""
    import tensorflow_datasets as tfds

    title = _IMAGE_SETS[name].title if name in _IMAGE_SETS else f"{name!r}"
    in_debian = name == "fashion_mnist"
    with tempfile.TemporaryDirectory() as folder:
        manual_dir = None
        try:
            if in_debian and not builder.data_path.exists() and _DEBIAN.exists():
                manual_dir = folder
                for stem, time in _FASHION_MNIST_FILES.items():
                    file = pathlib.Path(folder, f"{stem}.gz")
                    packed = (_DEBIAN / file.name).read_bytes()
                    file.write_bytes(restore_gzip_header(packed, stem, time))
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        except Exception as error:
            package = (
                "install Debian's package: `apt-get update && apt-get install "
                "dataset-fashion-mnist`; or "
            )
            raise RuntimeError(
                f"{title} is not on this machine and can't be "
                f"downloaded ({type(error).__name__}: {error}). Without internet, "
                f"{package if in_debian else ''}name the folder that has it with "
                f"`data_dir=`; or copy a prepared `{name}` folder of "
                f"tensorflow-datasets to {builder.data_path.parent.parent}."
            ) from error


def _whole(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, as bytes, and their labels, in a fixed order."""
    import tensorflow_datasets as tfds

    return tfds.as_numpy(
        builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
    )


def _images(
    builder: Any, split: str, image_size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, between 0 and 1, and their labels, in a fixed order."""
    import tensorflow as tf

    if image_size is None:
        images, labels = _whole(builder, split)
        return _scaled(images), labels
    data = builder.as_dataset(split=split, as_supervised=True)
    data = data.map(lambda image, label: (tf.image.resize(image, image_size), label))
    batches = list(data.batch(256).as_numpy_iterator())
    images = np.concatenate([images for images, _ in batches])
    return _scaled(images), np.concatenate([labels for _, labels in batches])


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255.0


# The parts of `load`


def _in_order(
    images: np.ndarray, labels: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    import tensorflow as tf

    x, y = _in_memory(images, labels)

    def batch(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = slice(start, start + batch_size)
        return tf.cast(x[rows], tf.float32) / 255.0, y[rows]

    starts = tf.data.Dataset.range(0, len(images), batch_size)
    return starts.map(batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _shuffled(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    augment: Callable[[Any, Any], tf.Tensor] | None,
    seed: int,
) -> tf.data.Dataset:
    """Batches in another order in each epoch, augmented.

    Whole batches are gathered and augmented: calls of functions for single images
    would cost several times what is done in them. The operations are stateless,
    those of `tf.data` with a seed would follow the global one as well. What lasts
    from one epoch to the next is an iterator which counts them.
    """
    import tensorflow as tf

    x, y = _in_memory(images, labels)
    count = len(images)
    epochs = iter(tf.data.Dataset.counter())

    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        drawn = tf.stack([tf.constant(seed, tf.int64), next(epochs)])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), drawn)
        batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        return batches.enumerate().map(
            lambda index, rows: (rows, tf.random.fold_in(drawn, index))
        )

    def batch(rows: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = tf.gather(x, rows)
        if augment is not None:
            chosen = augment(chosen, seed)
        return tf.cast(chosen, tf.float32) / 255.0, tf.gather(y, rows)

    batches = tf.data.Dataset.range(1).flat_map(epoch).map(batch, tf.data.AUTOTUNE)
    steps = tf.data.experimental.assert_cardinality(-(-count // batch_size))
    return batches.apply(steps).prefetch(tf.data.AUTOTUNE)


def _in_memory(*arrays: np.ndarray) -> list[tf.Tensor]:
    import tensorflow as tf

    with tf.device("CPU"):  # where pipelines run, even if there is a GPU
        return [tf.constant(array) for array in arrays]


def _crop_and_flip(image: Any, seed: Any, *, padding: int) -> tf.Tensor:
    import tensorflow as tf

    image = tf.convert_to_tensor(image)
    if image.shape.rank not in (3, 4):
        raise ValueError(
            "Images must have shape (height, width, channels), or one more dimension "
            f"for a batch of them. Received: {image.shape}"
        )
    images = image[None] if image.shape.rank == 3 else image
    count, height, width, _ = tf.unstack(tf.shape(images))

    # One number says which of all possible views an image becomes.
    places = 2 * padding + 1
    view = tf.random.stateless_uniform(
        [count], seed, maxval=2 * places * places, dtype=tf.int32
    )
    place, flipped = view // 2, view % 2 == 1
    top, left = place // places, place % places

    across = tf.range(width)
    rows = top[:, None] + tf.range(height)
    columns = left[:, None] + tf.where(flipped[:, None], across[::-1], across)
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    cropped = tf.gather(cropped, columns, axis=2, batch_dims=1)
    cropped = tf.ensure_shape(cropped, images.shape)
    return cropped[0] if image.shape.rank == 3 else cropped


def _split(size: int, validation: int | float, labelled: int | None) -> tuple[int, int]:
    """Where, in the training split, training samples end and validation begins."""
    if is_integer(validation, least=0):
        held_back = int(validation)
    elif is_number(validation) and 0 < validation < 1:
        held_back = round(validation * size)
    else:
        raise ValueError(
            "`validation` must be a number of samples, 0 or more, or a fraction "
            f"between 0 and 1. Received: {validation!r}"
        )
    left = size - held_back
    if left <= 0 or (validation and not held_back):
        raise ValueError(
            f"`validation` must hold back a part of the {size:,} training samples. "
            f"Received: {validation!r}, which is {held_back:,} of them."
        )
    if labelled is None:
        return left, left
    if (labelled := as_integer("labelled", labelled, least=1)) > left:
        raise ValueError(
            f"`labelled` must be at most the {left:,} training samples that "
            f"`validation={validation!r}` leaves. Received: {labelled!r}"
        )
    return labelled, left


def _image_set(name: str) -> _ImageSet:
    if name in IMAGE_SETS:
        return _IMAGE_SETS[name]
    message = f"Known image sets are {', '.join(IMAGE_SETS)}. Received: {name!r}."
    if name in NAMES:
        message += f" `load_arrays` has {name!r}."
    elif near := difflib.get_close_matches(str(name).lower(), IMAGE_SETS, 1, 0.5):
        message += f" Did you mean {near[0]!r}?"
    raise ValueError(message)


# The files


def restore_gzip_header(packed: bytes, name: str, time: int) -> bytes:
    """Puts a file name and a time back into the header of a gzip file.

    Debian's package dropped both from the original files; with them back the
    checksums are those that tensorflow-datasets expects.
    """
    flags = packed[3] | 0x08  # FNAME
    if flags == packed[3]:
        return packed
    return b"".join(
        (
            packed[:3],
            bytes([flags]),
            time.to_bytes(4, "little"),
            packed[8:10],
            name.encode() + b"\0",
            packed[10:],
        )
    )


def _missing(package: str) -> ImportError:
    return ImportError(
        f"This needs {package}. Install it with `pip install 'keras-lpd[data]'`."
    )
