"""Relational knowledge: distances between samples, and angles of triples."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lpd.arguments import as_nonnegative
from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import (
    Tensor,
    as_vectors,
    on_diagonal,
    pairwise_squared_distances,
)


def relational_distance_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Huber loss between the distances of all pairs, in units of their mean.

    With `d_ij` the distance of two samples, `mu` its mean over the pairs `i != j`,
    and `huber(x)` = `x^2 / 2` up to 1, `|x| - 1/2` beyond:

        loss = 1 / m^2 * sum_ij huber(d(t)_ij / mu(t) - d(s)_ij / mu(s))

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        student: Tensor of shape `(m, ...)`, the student's, of any width.

    Returns:
        Float32 scalar; 0 for a batch of one.

    Example:

    >>> loss = relational_distance_loss(np.random.rand(8, 50), np.random.rand(8, 3))

    Source: Park et al., "Relational Knowledge Distillation", arXiv 1904.05068, the
    distance-wise loss, with the mean in place of the sum.
    """
    teacher = ops.stop_gradient(as_vectors(teacher))
    difference = _relative_distances(teacher) - _relative_distances(as_vectors(student))
    return ops.mean(_huber(difference))


def relational_angle_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles of all triples of samples.

    With `e_ij` the vector of length 1 from sample `j` to sample `i`:

        loss = 1 / m^3 * sum_ijk huber(e(t)_ij . e(t)_kj - e(s)_ij . e(s)_kj)

    It takes time and memory in the cube of the batch's size.

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        student: Tensor of shape `(m, ...)`, the student's, of any width.

    Returns:
        Float32 scalar; 0 for a batch of one.

    Example:

    >>> loss = relational_angle_loss(np.random.rand(8, 50), np.random.rand(8, 3))

    Source: Park et al., "Relational Knowledge Distillation", arXiv 1904.05068, the
    angle-wise loss, with the mean in place of the sum.
    """
    teacher = ops.stop_gradient(as_vectors(teacher))
    return ops.mean(_huber(_cosines(teacher) - _cosines(as_vectors(student))))


def _relative_distances(features: Tensor) -> Tensor:
    """Distances of all pairs, shape `(m, m)`, in units of their mean."""
    squared, apart = _squared_distances(features)
    distances = ops.where(apart, ops.sqrt(squared), 0.0)
    count = ops.shape(features)[0]
    pairs = ops.maximum(ops.cast(count * (count - 1), "float32"), 1.0)
    mean = ops.sum(distances) / pairs
    return distances / ops.where(mean > 0, mean, 1.0)


def _cosines(features: Tensor) -> Tensor:
    """Cosines of the angles at sample `j` between `i` and `k`, shape `(j, i, k)`."""
    # From the scalar products of the batch, (x_i - x_j) . (x_k - x_j), so that no
    # tensor of shape (m, m, width) is ever held.
    features = features - ops.mean(features, axis=0, keepdims=True)
    products = ops.matmul(features, ops.transpose(features))
    at_vertex = ops.expand_dims(products, 2)  # (j, i, 1)
    between = (
        ops.expand_dims(products, 0)
        - at_vertex
        - ops.transpose(at_vertex, (0, 2, 1))
        + ops.reshape(ops.diagonal(products), (-1, 1, 1))
    )
    squared, apart = _squared_distances(features)
    inverse = ops.where(apart, ops.rsqrt(squared), 0.0)
    return between * ops.expand_dims(inverse, 2) * ops.expand_dims(inverse, 1)


def _squared_distances(features: Tensor) -> tuple[Tensor, Tensor]:
    """Those of all pairs (1 for a sample to itself), and which pairs are apart.

    Duplicates are not: their root has no gradient, nor have they a direction. By
    rounding their distance may not be 0, so all count that are closer than 0.3 % of
    the root mean square.
    """
    squared = pairwise_squared_distances(features)
    apart = squared > 1e-5 * ops.mean(squared)
    apart = ops.logical_and(apart, ops.logical_not(on_diagonal(ops.shape(features)[0])))
    return ops.where(apart, squared, 1.0), apart


def _huber(x: Tensor) -> Tensor:
    size = ops.absolute(x)
    return ops.where(size <= 1.0, 0.5 * ops.square(x), size - 0.5)


@keras.saving.register_keras_serializable(package="keras_lpd")
class RelationalKnowledge(FeatureLoss):
    """RKD: `relational_distance_loss` and `relational_angle_loss` in a sum.

    Args:
        distance_weight: Weight of the distances in the sum. Defaults to 25.
        angle_weight: Weight of the angles; 0 spares their time and memory, which
            grow with the cube of the batch's size. Defaults to 50.
        teacher_layer_name: The teacher's feature layer. Defaults to the one that
            `LPDistiller` uses (in the stock Distiller: the output).
        student_layer_name: The student's, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"rkd"`.

    Raises:
        ValueError: If a weight is negative, or both are 0.

    Example:

    >>> loss = RelationalKnowledge(angle_weight=0)  # distances alone

    Source: Park et al., arXiv 1904.05068. `default_weight`, 1, and the two weights
    are those of the RepDistiller benchmark on CIFAR-100.
    """

    default_weight = 1.0

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "rkd",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)
        self.distance_weight = as_nonnegative("distance_weight", distance_weight)
        self.angle_weight = as_nonnegative("angle_weight", angle_weight)
        if not distance_weight and not angle_weight:
            raise ValueError(
                "`distance_weight` and `angle_weight` are both 0: nothing is left to "
                "compare. Give one of them a weight."
            )

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        loss: Tensor = 0.0
        for weight, function in (
            (self.distance_weight, relational_distance_loss),
            (self.angle_weight, relational_angle_loss),
        ):
            if weight:
                loss = loss + weight * function(teacher_outputs, student_outputs)
        return loss

    def get_config(self) -> dict[str, Any]:
        return {
            "distance_weight": self.distance_weight,
            "angle_weight": self.angle_weight,
            **super().get_config(),
        }
