"""Maxout: the maximum over groups of channels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lpd.arguments import as_integer
from keras_lpd.neighbors import Tensor, channel_axis


@keras.saving.register_keras_serializable(package="keras_lpd")
class Maxout(keras.layers.Layer):
    """The maximum over groups of `pieces` channels.

    The channels are `pieces` blocks of `units` each, and unit `u` is the maximum of
    the `u`-th channels of all blocks. (Neighbouring channels as groups would do the
    same, and take several times as long on a CPU.)

    It stands where an activation would: a linear convolution or `Dense` of
    `pieces * units` channels goes before it, and `units` channels come out.
    It has no weights.

    Channels are the last axis, or the second of feature maps under
    `channels_first`.

    Args:
        pieces: How many channels one unit takes the maximum of. Defaults to 2.
        **kwargs: Passed on to `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If `pieces` is no integer of at least 2; once the layer is
            built, if the number of channels is unknown or no multiple of it.

    Example:

    >>> np.asarray(Maxout(pieces=2)(np.array([[1.0, 5.0, -3.0, 6.0]])))
    array([[1., 6.]], dtype=float32)

    Source: Goodfellow et al., "Maxout Networks", arXiv 1302.4389.
    """

    def __init__(self, pieces: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.pieces = as_integer("pieces", pieces, least=2)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._units(input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        axis = channel_axis(len(inputs.shape))
        return functools.reduce(ops.maximum, ops.split(inputs, self.pieces, axis=axis))

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        shape = list(input_shape)
        shape[channel_axis(len(shape))] = self._units(input_shape)
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pieces": self.pieces}

    def _units(self, input_shape: Sequence[int | None]) -> int:
        """How many channels come out, if they do."""
        shape = tuple(input_shape)
        if len(shape) < 2:
            raise ValueError(
                f"Maxout '{self.name}' needs a batch axis and channels. "
                f"Received: input_shape={shape}"
            )
        channels = shape[channel_axis(len(shape))]
        if channels is None or channels % self.pieces:
            raise ValueError(
                f"Maxout '{self.name}' needs a known number of channels that is a "
                f"multiple of its {self.pieces} pieces; give the layer before it "
                f"pieces * units. Received: {channels} channels, "
                f"input_shape={shape}"
            )
        return channels // self.pieces
