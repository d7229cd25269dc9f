"""A teacher that has never seen a label: SimCLR, arXiv 2002.05709, in small.

Of each image of a batch two views are made, and the encoder learns to find the one
among all others by the other.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

TEMPERATURE = 0.2


def two_views(images, labels, seed) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch of first views, with the second ones behind it; the labels stay unseen.

    A view is a part of the image (30 to 100 % of its area) in the image's size,
    mirrored or not, darker or brighter.
    """
    views = [_view(images, (seed[0] + 2 + turn, seed[1])) for turn in range(2)]
    return tf.concat(views, axis=0), tf.zeros([2 * tf.shape(images)[0]], tf.int32)


def _view(images, seed) -> tf.Tensor:
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    drawn = tf.random.stateless_uniform([count, 5], seed)
    side = tf.sqrt(0.3 + 0.7 * drawn[:, 0])
    top, left = drawn[:, 1] * (1 - side), drawn[:, 2] * (1 - side)
    mirrored = drawn[:, 3] < 0.5
    first, last = (
        tf.where(mirrored, left + side, left),
        tf.where(mirrored, left, left + side),
    )
    boxes = tf.stack([top, first, top + side, last], axis=1)
    parts = tf.image.crop_and_resize(
        tf.cast(images, tf.float32), boxes, tf.range(count), (height, width)
    )
    light = 0.6 + 0.8 * drawn[:, 4]
    lit = tf.clip_by_value(parts * light[:, None, None, None], 0, 255)
    return tf.cast(lit, images.dtype)


def similarities(projections: Any) -> Any:
    """Cosine similarities of all views with all others; -inf of each with itself."""
    projections = keras.ops.normalize(keras.ops.cast(projections, "float32"), axis=1)
    found = keras.ops.matmul(projections, keras.ops.transpose(projections))
    itself = keras.ops.eye(keras.ops.shape(found)[0], dtype="bool")
    return keras.ops.where(itself, -1e9, found)


def partners(count: Any) -> Any:
    """Where in a batch of so many views the other one of the same image is."""
    return (keras.ops.arange(count) + count // 2) % count


def contrastive_loss(y_true: Any, projections: Any) -> Any:
    """Cross-entropy of telling each view's partner from all other views."""
    del y_true
    return keras.losses.sparse_categorical_crossentropy(
        partners(keras.ops.shape(projections)[0]),
        similarities(projections) / TEMPERATURE,
        from_logits=True,
    )


def partners_found(y_true: Any, projections: Any) -> Any:
    """How many views are nearest to their partner."""
    del y_true
    nearest = keras.ops.argmax(similarities(projections), axis=1)
    return keras.ops.cast(
        nearest == partners(keras.ops.shape(projections)[0]), "float32"
    )
