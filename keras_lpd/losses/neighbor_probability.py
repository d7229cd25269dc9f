"""Neighbour probabilities: neighbours are pulled in, all others pushed away."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lpd.arguments import as_integer, as_positive
from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import (
    Rows,
    Tensor,
    as_vectors,
    check_pooling,
    nearest_neighbors,
    on_diagonal,
    unit_vectors,
)


def neighbor_probability_loss(
    teacher: Tensor,
    student: Tensor,
    k: int = 10,
    temperature: float = 0.1,
    pooling: str | None = None,
    rows: Rows | None = None,
) -> Tensor:
    """Makes the student pick the neighbours that the teacher picks, out of the batch.

    With `N(i)` the `k` samples of the batch nearest to `i` in the teacher's features,
    `d_ij` their distance and `D_i` the mean of `d_ij^2` over `N(i)`:

        p_ij = softmax over j in N(i) of -d_ij^2 / D_i
        q_ij = softmax over all j but i of cos(s_i, s_j) / temperature
        loss = -1 / m * sum_ij p_ij log q_ij

    What pulls the neighbours in pushes all others away, so that the features can't
    shrink to one point. Nothing is trained besides the student.

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        student: Tensor of shape `(m, ...)`, the student's, of any width.
        k: How many neighbours the teacher picks; all there are, in a batch of `k`
            or fewer. Defaults to 10.
        temperature: A positive float; the lower, the more the most similar samples
            weigh in the student's choice. Defaults to 0.1.
        pooling: `None` flattens feature maps; `"avg"` and `"max"` pool them over
            space. Defaults to `None`.
        rows: The samples `i` to sum over, where other devices sum over the others:
            what they give adds up to the loss. Defaults to all.

    Returns:
        Float32 scalar; 0 for a batch of one.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> loss = neighbor_probability_loss(np.random.rand(32, 50), np.random.rand(32, 8))

    Source: ours. Relatives: stochastic neighbour embedding (Hinton and Roweis 2002),
    probabilistic knowledge transfer (arXiv 1803.10837), CompRess (arXiv 2010.14713)
    and SEED (arXiv 2101.04731).
    """
    temperature = as_positive("temperature", temperature)
    teacher = ops.stop_gradient(as_vectors(teacher, pooling))
    student = unit_vectors(as_vectors(student, pooling))

    squared, neighbors = nearest_neighbors(teacher, k, rows=rows)
    # A batch of one has no neighbours: sums over none instead of means.
    found = ops.maximum(ops.cast(ops.shape(squared)[1], "float32"), 1.0)
    mean = ops.sum(squared, axis=1, keepdims=True) / found
    p = ops.exp(-squared / ops.where(mean > 0, mean, 1.0))
    p = p / ops.maximum(ops.sum(p, axis=1, keepdims=True), 1e-12)

    own, count = student if rows is None else rows.of(student), ops.shape(student)[0]
    logits = ops.matmul(own, ops.transpose(student)) / temperature
    logits = ops.where(on_diagonal(count, rows), -1e9, logits)
    log_q = ops.take_along_axis(ops.log_softmax(logits, axis=1), neighbors, axis=1)
    return -ops.sum(p * log_q) / ops.cast(count, "float32")


@keras.saving.register_keras_serializable(package="keras_lpd")
class NeighborProbability(FeatureLoss):
    """`neighbor_probability_loss` as a `keras.distillation.DistillationLoss`.

    Beside the locality preserving loss, or in its place: it pushes samples apart as
    it pulls neighbours in, so the features can't collapse, and needs neither labels
    nor the teacher's logits, and no parameters.

    `default_weight`, 2, did best of 0.2, 0.6 and 2 on a validation split of
    Fashion-MNIST (`benchmarks/results/compare_methods.md`). It needs some hundred
    steps, though, before the labels have their say; 0.6, which `LPDistiller` takes
    beside the locality preserving loss, needs fewer. `k` and `temperature` were not
    tuned there.

    Args:
        k: How many neighbours the teacher picks. Defaults to 10.
        temperature: Of the student's choice, a positive float. Defaults to 0.1.
        pooling: `None`, `"avg"` or `"max"`. Defaults to `None`.
        teacher_layer_name: The teacher's feature layer. Defaults to the one that
            `LPDistiller` uses (in the stock Distiller: the output).
        student_layer_name: The student's, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to
            `"neighbor_probability"`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> distiller = LPDistiller(
    ...     teacher, student, distillation_losses=NeighborProbability()
    ... )
    """

    default_weight = 2.0

    def __init__(
        self,
        k: int = 10,
        temperature: float = 0.1,
        pooling: str | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "neighbor_probability",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)
        check_pooling(pooling)
        self.k = as_integer("k", k, least=1)
        self.temperature = as_positive("temperature", temperature)
        self.pooling = pooling

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        rows: Rows | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return neighbor_probability_loss(
            teacher_outputs,
            student_outputs,
            rows=rows,
            k=self.k,
            temperature=self.temperature,
            pooling=self.pooling,
        )

    def share(
        self, teacher_outputs: Tensor, student_outputs: Tensor, rows: Rows
    ) -> Tensor:
        return self.compute_loss(teacher_outputs, student_outputs, rows=rows)

    def get_config(self) -> dict[str, Any]:
        return {
            "k": self.k,
            "temperature": self.temperature,
            "pooling": self.pooling,
            **super().get_config(),
        }
