"""Probabilistic knowledge transfer: who picks whom, by cosine similarity."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import Tensor, as_vectors, on_diagonal, unit_vectors

_EPSILON = 1e-7


def probabilistic_transfer_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Divergence between the probabilities with which samples pick each other.

    With `K(a, b) = (cos(a, b) + 1) / 2`, and `p` for the teacher, `q` for the student:

        p_ij = K(t_i, t_j) / sum_k K(t_i, t_k)    over all k of the batch but i
        loss = 1 / m^2 * sum_ij p_ij log(p_ij / q_ij)

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        student: Tensor of shape `(m, ...)`, the student's, of any width.

    Returns:
        Float32 scalar; 0 for a batch of one.

    Example:

    >>> loss = probabilistic_transfer_loss(np.random.rand(8, 50), np.random.rand(8, 3))

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic
    Knowledge Transfer", arXiv 1803.10837, section 3, with the cosine kernel and the
    mean in place of the sum, as in the authors' code (which, other than the paper,
    counts each sample among those it may pick).
    """
    p = _probabilities(ops.stop_gradient(as_vectors(teacher)))
    q = _probabilities(as_vectors(student))
    return ops.mean(p * ops.log((p + _EPSILON) / (q + _EPSILON)))


def _probabilities(features: Tensor) -> Tensor:
    features = unit_vectors(features)
    kernel = (ops.matmul(features, ops.transpose(features)) + 1.0) / 2.0
    kernel = ops.where(on_diagonal(ops.shape(features)[0]), 0.0, kernel)
    return kernel / ops.maximum(ops.sum(kernel, axis=1, keepdims=True), _EPSILON)


@keras.saving.register_keras_serializable(package="keras_lpd")
class ProbabilisticTransfer(FeatureLoss):
    """PKT: `probabilistic_transfer_loss` as a `keras.distillation.DistillationLoss`.

    Args:
        teacher_layer_name: The teacher's feature layer. Defaults to the one that
            `LPDistiller` uses (in the stock Distiller: the output).
        student_layer_name: The student's, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"pkt"`.

    Example:

    >>> distiller = LPDistiller(
    ...     teacher, student, gamma=None, distillation_losses=ProbabilisticTransfer()
    ... )

    Source: Passalis and Tefas, arXiv 1803.10837. `default_weight`, 30000, is that of
    the RepDistiller benchmark on CIFAR-100.
    """

    default_weight = 30000.0

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "pkt",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        return probabilistic_transfer_loss(teacher_outputs, student_outputs)
