"""Similarity preserving: the batch's table of similarities."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import Tensor, as_vectors, unit_vectors


def similarity_preserving_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference of the tables of scalar products, row by row normalised.

    With `G` the matrix of all scalar products of a batch's `m` flattened features,
    each row scaled to length 1:

        loss = 1 / m^2 * |G(t) - G(s)|^2

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        student: Tensor of shape `(m, ...)`, the student's, of any width.

    Returns:
        Float32 scalar.

    Example:

    >>> teacher = np.random.rand(8, 500)
    >>> loss = similarity_preserving_loss(teacher, np.random.rand(8, 7, 7, 16))

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation",
    arXiv 1907.09682, section 3.
    """
    teacher = ops.stop_gradient(as_vectors(teacher))
    tables = [
        unit_vectors(ops.matmul(features, ops.transpose(features)))
        for features in (teacher, as_vectors(student))
    ]
    return ops.mean(ops.square(tables[0] - tables[1]))


@keras.saving.register_keras_serializable(package="keras_lpd")
class SimilarityPreserving(FeatureLoss):
    """`similarity_preserving_loss` as a `keras.distillation.DistillationLoss`.

    Args:
        teacher_layer_name: The teacher's feature layer. Defaults to the one that
            `LPDistiller` uses (in the stock Distiller: the output).
        student_layer_name: The student's, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"similarity"`.

    Example:

    >>> distiller = LPDistiller(
    ...     teacher, student, gamma=None, distillation_losses=SimilarityPreserving()
    ... )

    Source: Tung and Mori, arXiv 1907.09682. `default_weight`, 3000, is that of the
    RepDistiller benchmark on CIFAR-100, between feature maps.
    """

    default_weight = 3000.0

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "similarity",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        return similarity_preserving_loss(teacher_outputs, student_outputs)
