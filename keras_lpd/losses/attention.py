"""Attention transfer: where in the image the features are strong."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import Tensor, channel_axis, unit_vectors


def attention_transfer_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared difference of the normalised attention maps.

    The attention `Q` of a feature map `F` is the mean of the squares over its
    channels, flattened; with `h` places in the smaller of the two maps:

        loss = 1 / (m h) * sum_i |Q(t_i) / |Q(t_i)| - Q(s_i) / |Q(s_i)||^2

    Of two maps of different size the larger attention is averaged down.

    Args:
        teacher: Tensor of shape `(m, height, width, channels)` (channels second
            under `channels_first`), the teacher's feature maps. No gradient flows
            into them.
        student: Tensor of the same rank, the student's; any number of channels.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the features are no maps, or a height or width is unknown.

    Example:

    >>> teacher = np.random.rand(8, 7, 7, 64)
    >>> loss = attention_transfer_loss(teacher, np.random.rand(8, 14, 14, 16))

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention",
    arXiv 1612.03928, equation 2 with p = 2, for one pair of layers; with the squared
    difference and the mean of the authors' code.
    """
    maps = [_attention(ops.stop_gradient(teacher)), _attention(student)]
    size = [min(sizes) for sizes in zip(*(one.shape[1:] for one in maps))]
    flat = [
        unit_vectors(ops.reshape(_averaged(one, size), (-1, size[0] * size[1])))
        for one in maps
    ]
    return ops.mean(ops.square(flat[0] - flat[1]))


def _attention(features: Tensor) -> Tensor:
    if len(features.shape) != 4:
        raise ValueError(
            "Attention transfer compares feature maps, shape (batch, height, width, "
            f"channels). Received: {tuple(features.shape)}. Name convolutional layers "
            "as `teacher_layer_name` and `student_layer_name`."
        )
    squared = ops.square(ops.cast(features, "float32"))
    attention = ops.mean(squared, axis=channel_axis(4))
    if None in attention.shape[1:]:
        raise ValueError(
            "Attention transfer needs feature maps of known height and width. "
            f"Received: {tuple(features.shape)}. Give the model's input a fixed size."
        )
    return attention


def _averaged(attention: Tensor, size: list[int]) -> Tensor:
    """Averages maps of shape `(m, height, width)` down to that size."""
    rows, columns = (_bins(n, into) for n, into in zip(attention.shape[1:], size))
    return ops.einsum("ah,mhw,bw->mab", rows, attention, columns)


def _bins(count: int, into: int) -> np.ndarray:
    """A matrix that averages `count` numbers in `into` bins, which may overlap."""
    matrix = np.zeros((into, count), "float32")
    for i in range(into):
        start, end = i * count // into, -(-(i + 1) * count // into)
        matrix[i, start:end] = 1.0 / (end - start)
    return matrix


@keras.saving.register_keras_serializable(package="keras_lpd")
class AttentionTransfer(FeatureLoss):
    """`attention_transfer_loss` as a `keras.distillation.DistillationLoss`.

    Args:
        teacher_layer_name: A convolutional layer of the teacher. Defaults to the
            feature layer that `LPDistiller` uses, which has to give maps then.
        student_layer_name: One of the student, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"attention"`.

    Example:

    >>> loss = AttentionTransfer("conv_4", "conv_3")

    Source: Zagoruyko and Komodakis, arXiv 1612.03928. `default_weight`, 1000, is that
    of the RepDistiller benchmark on CIFAR-100, for a sum over several pairs of layers.
    """

    default_weight = 1000.0
    compares_samples = False
    compares_maps = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "attention",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        return attention_transfer_loss(teacher_outputs, student_outputs)
