"""Random changes to images, as is usual for a set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_lpd.datasets.tfds import image_set

if TYPE_CHECKING:
    import tensorflow as tf


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
    padding = image_set(name).padding
    if padding is None:
        return None
    return functools.partial(_crop_and_flip, padding=padding)


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
