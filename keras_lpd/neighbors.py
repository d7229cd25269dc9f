"""Distances, nearest neighbours and heat-kernel weights within a batch.

Pure functions on tensors, written with `keras.ops`: they run on TensorFlow and
JAX alike. Everything is computed in float32, whatever came in:
the expanded square |x|^2 - 2xy + |y|^2 cancels badly in half precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_lpd.arguments import as_integer, is_number

Tensor = Any
"""A tensor of whichever backend Keras runs on."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some samples of a batch, where several devices share the work on it.

    Each device holds the features of the whole batch, and looks after rows of its own.

    Args:
        indices: Integer tensor of shape `(n,)`: which rows.
        total: Adds up a tensor over the devices. No gradient flows through it.
    """

    indices: Tensor
    total: Callable[[Tensor], Tensor]

    def of(self, features: Tensor) -> Tensor:
        """These rows of the batch's features."""
        return ops.take(features, self.indices, axis=0)


def as_vectors(features: Tensor, pooling: str | None = None) -> Tensor:
    """Gives every sample one float32 vector.

    Args:
        features: Tensor of shape `(batch, ...)` and any numeric dtype.
        pooling: `None` flattens all axes behind the batch axis. `"avg"` or
            `"max"` pools over the axes between batch and channels (which is
            the last axis, or the second under `channels_first`); features
            of shape `(batch, width)` have none and stay as they are.

    Returns:
        Float32 tensor of shape `(batch, width)`.

    Raises:
        ValueError: If there is no batch axis, or `pooling` is unknown.

    Example:

    >>> tuple(as_vectors(np.ones((8, 7, 7, 64)), pooling="avg").shape)
    (8, 64)
    """
    check_pooling(pooling)
    features = ops.cast(features, "float32")
    shape = features.shape
    if len(shape) == 0:
        raise ValueError(
            "Features must have a batch axis, shape (batch, ...). Received a scalar."
        )
    if len(shape) > 2 and pooling is not None:
        axes = [i for i in range(1, len(shape)) if i != channel_axis(len(shape))]
        features = (ops.mean if pooling == "avg" else ops.max)(features, axis=axes)
    width = 1
    for size in features.shape[1:]:
        width = -1 if size is None or width == -1 else width * size
    if width == -1:
        return ops.reshape(features, (ops.shape(features)[0], -1))
    return ops.reshape(features, (-1, width))


def pairwise_squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Squared Euclidean distances between all rows of `x` and all rows of `y`.

    Computed as |x|^2 - 2xy + |y|^2, so that nothing larger than the result
    is ever held. Both sides are first moved by the mean of `y`, which changes
    no distance and keeps the three terms small; what rounding leaves under
    zero is set to zero.

    Args:
        x: Tensor of shape `(m, d)`.
        y: Tensor of shape `(n, d)`. Defaults to `x`.

    Returns:
        Float32 tensor of shape `(m, n)`, without negative entries.

    Example:

    >>> np.asarray(pairwise_squared_distances([[0.0, 0.0], [3.0, 4.0]]))
    array([[ 0., 25.],
           [25.,  0.]], dtype=float32)
    """
    x = ops.cast(x, "float32")
    batch = x if y is None else ops.cast(y, "float32")
    center = ops.mean(batch, axis=0, keepdims=True)
    x = x - center
    y = x if y is None else batch - center
    squared = ops.matmul(-2.0 * x, ops.transpose(y))
    squared = squared + ops.sum(ops.square(x), axis=1, keepdims=True)
    squared = squared + ops.sum(ops.square(y), axis=1)
    return ops.maximum(squared, 0.0)


def nearest_neighbors(
    features: Tensor, k: int, rows: Rows | None = None
) -> tuple[Tensor, Tensor]:
    """The `k` nearest other rows of each row, nearest first.

    An exact duplicate of a row is one of them, at distance 0.

    Args:
        features: Tensor of shape `(m, d)`.
        k: How many neighbours. Where the batch has fewer, all there are. A
            tensor of shape `(m, k, d)` is held for a moment.
        rows: Those `n` rows whose neighbours are wanted. Defaults to all.

    Returns:
        A tuple `(squared_distances, indices)` of shape `(m, k)` each (`(n, k)` for
        some `rows`), float32 and int32. `k` shrinks to `m - 1` in smaller batches;
        a batch of one has no neighbours, shape `(1, 0)`.

    Raises:
        ValueError: If `k` is not a positive integer.

    Example:

    >>> squared_distances, indices = nearest_neighbors([[0.0], [1.0], [5.0]], k=1)
    >>> np.asarray(indices).tolist()
    [[1], [0], [1]]
    """
    k = as_integer("k", k, least=1)
    features = ops.convert_to_tensor(features)
    count = ops.shape(features)[0]
    own = features if rows is None else rows.of(features)
    squared = pairwise_squared_distances(own, None if rows is None else features)
    squared = ops.where(on_diagonal(count, rows), float("inf"), squared)
    others = count - 1
    k = min(k, others) if isinstance(others, int) else ops.minimum(k, others)
    _, indices = ops.top_k(-squared, k)

    # The expanded square found them; from the differences their distances are
    # exact, which matters where they are small: a duplicate is at 0.
    features, own = ops.cast(features, "float32"), ops.cast(own, "float32")
    differences = ops.expand_dims(own, 1) - ops.take(features, indices, axis=0)
    squared = ops.sum(ops.square(differences), axis=2)
    order = ops.argsort(squared, axis=1)
    squared = ops.take_along_axis(squared, order, axis=1)
    indices = ops.take_along_axis(indices, order, axis=1)
    return squared, ops.cast(indices, "int32")


def heat_kernel(
    squared_distances: Tensor, sigma: float | str = "auto", rows: Rows | None = None
) -> Tensor:
    """Heat-kernel weights `exp(-d^2 / sigma^2)`: 1 at distance 0, falling to 0.

    Args:
        squared_distances: Tensor of any shape.
        sigma: A positive float, or `"auto"`: sigma^2 is the mean of
            `squared_distances`, so that the weights depend on no scale.
            (Ours; a fixed sigma fails in silence where distances are large:
            all weights underflow to 0.) Defaults to `"auto"`.
        rows: Whose distances they are, if those of other rows are elsewhere: the
            mean is over all of them.

    Returns:
        Float32 tensor of the same shape, entries between 0 and 1. Where all
        distances are 0, all weights are 1.

    Raises:
        ValueError: If `sigma` is neither `"auto"` nor a positive number.

    Example:

    >>> np.asarray(heat_kernel([0.0, 4.0], sigma=2.0))
    array([1.        , 0.36787945], dtype=float32)
    """
    check_sigma(sigma)
    squared = ops.cast(squared_distances, "float32")
    if sigma == "auto":
        count, total = ops.cast(ops.size(squared), "float32"), ops.sum(squared)
        if rows is not None:
            count, total = rows.total(count), rows.total(total)
        variance = total / ops.maximum(count, 1.0)
        return ops.exp(-squared / ops.where(variance > 0, variance, 1.0))
    # Divided twice: the square of sigma may leave the range of float32.
    return ops.exp(-squared / float(sigma) / float(sigma))


def unit_vectors(vectors: Tensor) -> Tensor:
    """The rows scaled to length 1; a row of zeros stays one, without a gradient.

    Args:
        vectors: Tensor of shape `(m, d)`.

    Returns:
        Float32 tensor of the same shape.
    """
    vectors = ops.cast(vectors, "float32")
    squared = ops.sum(ops.square(vectors), axis=1, keepdims=True)
    has_length = squared > 0
    inverse = ops.rsqrt(ops.where(has_length, squared, 1.0))
    return ops.where(has_length, vectors * inverse, 0.0)


def on_diagonal(count: Tensor | int, rows: Rows | None = None) -> Tensor:
    """A boolean matrix, true where a sample of a batch meets itself.

    Args:
        count: How many samples there are.
        rows: Those that the matrix has rows for. Defaults to all.
    """
    samples = ops.arange(count)
    own = samples if rows is None else ops.cast(rows.indices, samples.dtype)
    return ops.expand_dims(own, 1) == ops.expand_dims(samples, 0)


def channel_axis(rank: int) -> int:
    """The axis of the channels, in feature maps of that rank."""
    first = keras.config.image_data_format() == "channels_first"
    return 1 if first and rank > 2 else rank - 1


def check_pooling(pooling: str | None) -> None:
    """Refuses an unknown way of pooling feature maps."""
    if pooling not in (None, "avg", "max"):
        raise ValueError(
            f"`pooling` must be None, 'avg' or 'max'. Received: pooling={pooling!r}"
        )


def check_sigma(sigma: float | str) -> None:
    """Refuses what is neither `"auto"` nor a positive, finite number."""
    if isinstance(sigma, str):
        allowed = sigma == "auto"
    else:
        allowed = is_number(sigma) and sigma > 0
    if not allowed:
        raise ValueError(
            f"`sigma` must be 'auto' or a positive number. Received: sigma={sigma!r}"
        )


def feature_variance(features: Tensor) -> Tensor:
    """Mean squared distance of the samples to their common mean, a scalar.

    Args:
        features: Tensor of shape `(batch, width)`.

    Returns:
        Float32 scalar; 0 for a batch of one.
    """
    features = ops.cast(features, "float32")
    centered = features - ops.mean(features, axis=0, keepdims=True)
    return ops.mean(ops.sum(ops.square(centered), axis=1))
