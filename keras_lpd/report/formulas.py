"""What distillation methods cost, as closed formulas.

All are for one sample of a batch of `m`; `t` and `s` are the shapes of a sample's
features, teacher's and student's. Each follows its loss line by line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from keras_lpd.losses import (
    AttentionTransfer,
    CorrelationCongruence,
    Hint,
    LocalityPreserving,
    NeighborProbability,
    ProbabilisticTransfer,
    RelationalKnowledge,
    SimilarityPreserving,
)
from keras_lpd.neighbors import channel_axis

Shape = tuple[int, ...]


class Cost(NamedTuple):
    """What one method costs.

    Args:
        parameters: Those that are trained beside the student's.
        teacher: Multiplications for one sample that depend on the teacher's features
            alone.
        student: All others, for one sample.
    """

    parameters: int
    teacher: int
    student: int


def _hint(loss: Hint, m: int, t: Shape, s: Shape) -> Cost | None:
    maps = len(t) == len(s) == 3
    compared = math.prod(t)
    if loss.regressor == "dense" or (loss.regressor == "auto" and not maps):
        weights = math.prod(s) * compared
        return Cost(weights + compared, 0, weights + compared)
    if not maps:
        return None
    (*to, units), (*size, channels) = _map(t), _map(s)
    if any(small > large for small, large in zip(to, size)):
        return None
    kernel = [3, 3] if to == size else [n - small + 1 for small, n in zip(to, size)]
    weights = math.prod(kernel) * channels * units
    return Cost(weights + units, 0, weights * math.prod(to) + compared)


def _attention(loss: AttentionTransfer, m: int, t: Shape, s: Shape) -> Cost | None:
    if not len(t) == len(s) == 3:
        return None
    rows, columns = (min(sizes) for sizes in zip(_map(t)[:2], _map(s)[:2]))

    def side(shape: Shape) -> int:
        height, width, _ = _map(shape)
        # Einsum averages first along the axis that leaves less behind.
        first_rows = rows * width * (height + columns)
        first_columns = height * columns * (width + rows)
        _, averaging = min(
            (m * rows * width - rows * height, first_rows),
            (m * height * columns - columns * width, first_columns),
        )
        return math.prod(shape) + averaging + _unit_vectors(rows * columns)

    return Cost(0, side(t), side(s) + rows * columns)


def _similarity(loss: SimilarityPreserving, m: int, t: Shape, s: Shape) -> Cost:
    def side(width: int) -> int:
        return m * width + _unit_vectors(m)

    return Cost(0, side(math.prod(t)), side(math.prod(s)) + m)


def _relational(loss: RelationalKnowledge, m: int, t: Shape, s: Shape) -> Cost:
    teacher = student = 0
    widths = math.prod(t), math.prod(s)
    if loss.distance_weight:
        teacher, student = (_distances(m, width) for width in widths)
        student += 2 * m  # Huber
    if loss.angle_weight:
        sides = [m * d + _distances(m, d) + 2 * m * m for d in widths]
        teacher, student = teacher + sides[0], student + sides[1] + 2 * m * m
    return Cost(0, teacher, student)


def _probability(loss: ProbabilisticTransfer, m: int, t: Shape, s: Shape) -> Cost:
    def side(width: int) -> int:
        return _unit_vectors(width) + m * width

    return Cost(0, side(math.prod(t)), side(math.prod(s)) + m)


def _correlation(loss: CorrelationCongruence, m: int, t: Shape, s: Shape) -> Cost:
    def side(width: int) -> int:
        return _unit_vectors(width) + m * width + (2 * loss.order + 1) * m

    return Cost(0, side(math.prod(t)), side(math.prod(s)) + m)


def _locality(loss: LocalityPreserving, m: int, t: Shape, s: Shape) -> Cost:
    k = min(loss.k, m - 1)
    width = _width(s, loss.pooling)
    student = k * width + k
    if loss.normalize == "l2":
        student += _unit_vectors(width)
    elif loss.normalize == "spread":
        student += width
    return Cost(0, _neighbors(m, _width(t, loss.pooling), k), student)


def _neighbor_probability(
    loss: NeighborProbability, m: int, t: Shape, s: Shape
) -> Cost:
    k = min(loss.k, m - 1)
    width = _width(s, loss.pooling)
    student = _unit_vectors(width) + m * width + k
    return Cost(0, _neighbors(m, _width(t, loss.pooling), k), student)


def _unit_vectors(width: int) -> int:
    return 2 * width


def _distances(m: int, width: int) -> int:
    """`pairwise_squared_distances`: the products, -2x, and both sides' squares."""
    return (m + 3) * width


def _neighbors(m: int, width: int, k: int) -> int:
    """`nearest_neighbors`: all distances, and those of the nearest once more."""
    return _distances(m, width) + k * width


def _width(shape: Shape, pooling: str | None) -> int:
    """How wide `as_vectors` makes the features."""
    if pooling is None or len(shape) == 1:
        return math.prod(shape)
    return shape[channel_axis(len(shape) + 1) - 1]


def _map(shape: Shape) -> tuple[int, int, int]:
    """Height, width and channels of a feature map."""
    sizes = list(shape)
    channels = sizes.pop(channel_axis(4) - 1)
    return sizes[0], sizes[1], channels


COSTS: dict[type, Callable[..., Cost | None]] = {
    Hint: _hint,
    AttentionTransfer: _attention,
    SimilarityPreserving: _similarity,
    RelationalKnowledge: _relational,
    ProbabilisticTransfer: _probability,
    CorrelationCongruence: _correlation,
    LocalityPreserving: _locality,
    NeighborProbability: _neighbor_probability,
}
"""The formula of each class of losses; `None` where it can't be used."""
