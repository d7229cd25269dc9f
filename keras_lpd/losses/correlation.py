"""Correlation congruence: the batch's table of kernel values."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_lpd.arguments import as_integer, as_positive
from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import Tensor, as_vectors, unit_vectors


def correlation_congruence_loss(
    teacher: Tensor, student: Tensor, width: float = 0.4, order: int = 2
) -> Tensor:
    """Squared difference of the correlations, a Gaussian kernel on unit vectors.

    The kernel is expanded in a Taylor series of the scalar product, up to `order` P;
    with `g` for `width`:

        C_ij = exp(-2g) * sum_p (2g)^p / p! * (f_i . f_j)^p      p from 0 to P
        loss = 1 / m^2 * |C(t) - C(s)|^2

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        student: Tensor of shape `(m, ...)`, the student's, of any width.
        width: The kernel's `gamma`, a positive float. Defaults to 0.4.
        order: Order of the expansion, a positive integer. Defaults to 2.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> loss = correlation_congruence_loss(np.random.rand(8, 50), np.random.rand(8, 3))

    Source: Peng et al., "Correlation Congruence for Knowledge Distillation",
    arXiv 1904.01802, section 3, the kernel in its Taylor series; without the sampler
    of batches that goes with it there.
    """
    width, order = as_positive("width", width), as_integer("order", order, least=1)
    teacher = ops.stop_gradient(as_vectors(teacher))
    tables = [_correlations(f, width, order) for f in (teacher, as_vectors(student))]
    return ops.mean(ops.square(tables[0] - tables[1]))


def _correlations(features: Tensor, width: float, order: int) -> Tensor:
    features = unit_vectors(features)
    products = ops.matmul(features, ops.transpose(features))
    power, series = ops.ones_like(products), ops.ones_like(products)
    for p in range(1, order + 1):
        power = power * products
        series = series + (2.0 * width) ** p / math.factorial(p) * power
    return math.exp(-2.0 * width) * series


@keras.saving.register_keras_serializable(package="keras_lpd")
class CorrelationCongruence(FeatureLoss):
    """`correlation_congruence_loss` as a `keras.distillation.DistillationLoss`.

    Args:
        width: The kernel's `gamma`, a positive float. Defaults to 0.4.
        order: Order of the kernel's expansion, a positive integer. Defaults to 2.
        teacher_layer_name: The teacher's feature layer. Defaults to the one that
            `LPDistiller` uses (in the stock Distiller: the output).
        student_layer_name: The student's, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"correlation"`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> loss = CorrelationCongruence(order=3)

    Source: Peng et al., arXiv 1904.01802. `default_weight`, 0.02, is that of the
    RepDistiller benchmark on CIFAR-100, which has another formula with embeddings that
    are trained; with this one a far larger weight does better
    (`benchmarks/results/compare_methods.md`).
    """

    default_weight = 0.02

    def __init__(
        self,
        width: float = 0.4,
        order: int = 2,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "correlation",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)
        self.width = as_positive("width", width)
        self.order = as_integer("order", order, least=1)

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        return correlation_congruence_loss(
            teacher_outputs, student_outputs, self.width, self.order
        )

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width, "order": self.order, **super().get_config()}
