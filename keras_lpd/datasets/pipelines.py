"""Image sets as pipelines, to train, validate and test on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_lpd.arguments import as_integer, is_integer, is_number
from keras_lpd.datasets.augmenting import augmentation
from keras_lpd.datasets.tfds import builder_of, image_set, prepare, whole

if TYPE_CHECKING:
    import tensorflow as tf


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
    known = image_set(name)
    batch_size = as_integer("batch_size", batch_size, least=1)
    seed = as_integer("seed", seed, least=0)
    if not isinstance(augment, bool):
        raise ValueError(
            f"`augment` must be True or False. Received: {augment!r}. For another "
            "augmentation, give False and map `train`."
        )
    _split(known.train_size, validation, labelled)  # before any download

    builder = builder_of(name, data_dir)
    prepare(name, builder)
    images, labels = whole(builder, "train")
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
        test=_in_order(*whole(builder, "test"), batch_size),
        class_names=builder.info.features["label"].names,
        image_shape=images.shape[1:],
        train_size=train,
    )


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
