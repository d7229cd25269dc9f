"""What all losses that compare features have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

from keras_lpd.neighbors import Rows, Tensor


def snake_case(name: str) -> str:
    """`"LogitsDistillation"` -> `"logits_distillation"`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class FeatureLoss(keras.distillation.DistillationLoss):
    """Base of the losses that compare teacher features with student features.

    Subclasses implement `compute_loss(teacher_outputs, student_outputs)`. Those with
    parameters of their own make them in `build`, and give them as `layers`.

    Args:
        teacher_layer_name: Name of the teacher's layer whose output is the
            features. `None` means, in `LPDistiller`, the layer that it found
            or was given; in the stock `keras.distillation.Distiller`, the
            model's output.
        student_layer_name: The same for the student.
        name: What the loss is called in the logs, where `_loss` is added.

    Attributes:
        default_weight: The weight the loss has beside the cross-entropy
            where the user gives none.
        only_attracts: Whether the loss only ever pulls samples together, so
            that alone it would shrink all features to one point.
        compares_samples: Whether the loss compares the samples of a batch with each
            other, and so depends on which of them come together. On several devices
            it is given the features of all of them. `True`, for all losses but
            `Hint` and `AttentionTransfer`.
        divides_by_replicas: Under a `tf.distribute` strategy, whether the loss divides
            its value by the number of replicas, as each `keras.losses.Loss` does.
            Defaults to whether the loss has one among its attributes.
        compares_maps: Whether the loss needs feature maps, not vectors.
        layers: Keras layers whose weights `LPDistiller` trains beside the
            student. Empty, for all losses but `Hint`.
    """

    default_weight: float = 1.0
    only_attracts: bool = False
    compares_samples: bool = True
    compares_maps: bool = False

    @property
    def layers(self) -> list[keras.Layer]:
        return []

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str | None = None,
    ):
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name
        self.name = name or snake_case(type(self).__name__)

    def build(
        self, teacher_shape: Sequence[int | None], student_shape: Sequence[int | None]
    ) -> None:
        """Makes `layers`, for features of these shapes, batch axis first."""

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Refuses anything but two tensors over the same samples.

        Widths and ranks may differ; the number of samples may not.
        """
        sizes = {}
        for role, features in (
            ("teacher", teacher_outputs),
            ("student", student_outputs),
        ):
            if keras.tree.is_nested(features):
                raise ValueError(
                    f"{type(self).__name__} compares one feature tensor of the "
                    "teacher with one of the student. Received for the "
                    f"{role}: {type(features).__name__}. Name one layer with a "
                    f"single output as `{role}_layer_name`."
                )
            if len(features.shape) == 0:
                raise ValueError(
                    f"{type(self).__name__}: the {role}'s features must have "
                    "shape (batch, ...). Received a scalar. Name another layer "
                    f"as `{role}_layer_name`."
                )
            sizes[role] = features.shape[0]
        if None not in sizes.values() and sizes["teacher"] != sizes["student"]:
            raise ValueError(
                f"{type(self).__name__}: teacher and student features must come "
                "from the same samples. Received: teacher batch of "
                f"{sizes['teacher']}, student batch of {sizes['student']}."
            )

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        raise NotImplementedError("Subclasses must implement `compute_loss`.")

    def share(
        self, teacher_outputs: Tensor, student_outputs: Tensor, rows: Rows
    ) -> Tensor:
        """What some rows of a batch add to its loss; all shares make the loss.

        Here each row has an equal share of the loss of the whole batch, which every
        device computes. Losses that can do with less override it.

        Args:
            teacher_outputs: The teacher's features of the whole batch.
            student_outputs: The student's.
            rows: The rows that this device looks after.
        """
        count = keras.ops.cast(keras.ops.shape(student_outputs)[0], "float32")
        own = keras.ops.cast(keras.ops.size(rows.indices), "float32")
        return own / count * self.compute_loss(teacher_outputs, student_outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureLoss:
        return cls(**config)
