"""The locality preserving loss of "Learning Student Networks via Feature Embedding"."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lpd.arguments import as_integer
from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import (
    Rows,
    Tensor,
    as_vectors,
    check_pooling,
    check_sigma,
    feature_variance,
    heat_kernel,
    nearest_neighbors,
    unit_vectors,
)

_TINY = 1e-12


def locality_preserving_loss(
    teacher: Tensor,
    student: Tensor,
    k: int = 5,
    sigma: float | str = "auto",
    normalize: str | None = None,
    pooling: str | None = None,
    rows: Rows | None = None,
) -> Tensor:
    """Keeps the teacher's neighbours close in the student's feature space.

    With `t` the teacher's and `s` the student's features of a batch of `m`
    samples, and `N(i)` the `k` samples of the batch nearest to `i` in the
    teacher's features:

        a_ij = exp(-|t_i - t_j|^2 / sigma^2)    for j in N(i), else 0
        loss = 1 / (2m) * sum_ij a_ij * |s_i - s_j|^2

    The widths of `t` and `s` need not agree, and nothing is trained besides
    the student. No gradient flows into the teacher.

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features.
        student: Tensor of shape `(m, ...)`, the student's.
        k: How many neighbours a sample has; all there are, in a batch of `k`
            or fewer. Defaults to 5.
        sigma: Width of the heat kernel, a positive float, or `"auto"`:
            sigma^2 is the mean squared distance to the neighbours in this
            batch. Defaults to `"auto"`.
        normalize: What is done to the student's side, so that shrinking all
            features makes no better loss. `None`, the paper's loss: nothing.
            `"l2"`: each student vector is scaled to length 1. `"spread"`:
            the loss is divided by the variance of the student's features
            over the batch (by 1e-12, where that is less). Defaults to `None`.
        pooling: `None` flattens feature maps; `"avg"` and `"max"` pool
            them over space. Defaults to `None`.
        rows: The samples `i` to sum over, where other devices sum over the others:
            what they give adds up to the loss. Defaults to all.

    Returns:
        Float32 scalar; 0 for a batch of one.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> teacher = np.random.rand(32, 500)
    >>> student = np.random.rand(32, 7, 7, 16)
    >>> loss = locality_preserving_loss(teacher, student, pooling="avg")

    Source: Chen et al., "Learning Student Networks via Feature Embedding",
    arXiv 1812.06597. `sigma="auto"` and `normalize` are ours.
    """
    check_normalize(normalize)
    teacher = ops.stop_gradient(as_vectors(teacher, pooling))
    student = as_vectors(student, pooling)
    if normalize == "l2":
        student = unit_vectors(student)

    squared_distances, neighbors = nearest_neighbors(teacher, k, rows=rows)
    weights = heat_kernel(squared_distances, sigma, rows)
    own = student if rows is None else rows.of(student)
    differences = ops.expand_dims(own, 1) - ops.take(student, neighbors, axis=0)
    pulls = ops.sum(ops.square(differences), axis=2)
    count = ops.cast(ops.shape(student)[0], "float32")
    loss = ops.sum(weights * pulls) / (2.0 * count)

    if normalize == "spread":
        loss = loss / ops.maximum(feature_variance(student), _TINY)
    return loss


@keras.saving.register_keras_serializable(package="keras_lpd")
class LocalityPreserving(FeatureLoss):
    """The paper's loss as a `keras.distillation.DistillationLoss`.

    Samples that are neighbours in the teacher's feature space are pulled
    together in the student's; see `locality_preserving_loss`. It works in
    `LPDistiller` and in the stock `keras.distillation.Distiller`, and adds no
    parameters. On its own it would shrink all features to one point: it goes
    beside a cross-entropy, or another loss that keeps samples apart.

    `default_weight`, 0.005, suits features of any width: on a validation split of
    Fashion-MNIST, weights from 0.005 to 0.15 did equally well with a student of 32
    features, while 0.05 gained nothing with one of 500, and 0.15 cost it more than a
    point. With every label at hand, random pairs did as well as the teacher's
    neighbours (`benchmarks/results/compare_methods.md`).

    Args:
        k: How many neighbours a sample has. Defaults to 5.
        sigma: `"auto"` or a positive float. Defaults to `"auto"`.
        normalize: `None`, `"l2"` or `"spread"`. Defaults to `None`.
        pooling: `None`, `"avg"` or `"max"`. Defaults to `None`.
        teacher_layer_name: The teacher's feature layer. Defaults to the one
            that `LPDistiller` uses (in the stock Distiller: the output).
        student_layer_name: The student's feature layer, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"lp"`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> loss = LocalityPreserving(k=3, normalize="spread", name="local")
    >>> distiller = LPDistiller(teacher, student, distillation_losses=[loss])
    """

    default_weight = 0.005
    only_attracts = True

    def __init__(
        self,
        k: int = 5,
        sigma: float | str = "auto",
        normalize: str | None = None,
        pooling: str | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "lp",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)
        check_sigma(sigma)
        check_normalize(normalize)
        check_pooling(pooling)
        self.k = as_integer("k", k, least=1)
        self.sigma = sigma if sigma == "auto" else float(sigma)
        self.normalize = normalize
        self.pooling = pooling

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        rows: Rows | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return locality_preserving_loss(
            teacher_outputs,
            student_outputs,
            rows=rows,
            k=self.k,
            sigma=self.sigma,
            normalize=self.normalize,
            pooling=self.pooling,
        )

    def share(
        self, teacher_outputs: Tensor, student_outputs: Tensor, rows: Rows
    ) -> Tensor:
        return self.compute_loss(teacher_outputs, student_outputs, rows=rows)

    def get_config(self) -> dict[str, Any]:
        return {
            "k": self.k,
            "sigma": self.sigma,
            "normalize": self.normalize,
            "pooling": self.pooling,
            **super().get_config(),
        }


def check_normalize(normalize: str | None) -> None:
    if normalize not in (None, "l2", "spread"):
        raise ValueError(
            "`normalize` must be None, 'l2' or 'spread'. "
            f"Received: normalize={normalize!r}"
        )
