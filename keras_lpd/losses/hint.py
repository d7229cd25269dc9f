"""FitNets' hints: the student guesses the teacher's features through a regressor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.neighbors import Tensor, channel_axis

Shape = tuple[Any, ...]


def hint_loss(teacher: Tensor, regressed: Tensor) -> Tensor:
    """Mean squared difference of the teacher's features and what was made of the
    student's.

        loss = mean over all entries of (t - r)^2

    Args:
        teacher: Tensor of shape `(m, ...)`, the teacher's features. No gradient
            flows into them.
        regressed: Tensor of the same shape: the student's features behind the
            regressor.

    Returns:
        Float32 scalar.

    Example:

    >>> loss = hint_loss(np.zeros((8, 20)), np.ones((8, 20)))

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550,
    equation 3, with the mean in place of half the sum, as is common since.
    """
    teacher = ops.stop_gradient(ops.cast(teacher, "float32"))
    return ops.mean(ops.square(teacher - ops.cast(regressed, "float32")))


@keras.saving.register_keras_serializable(package="keras_lpd")
class Hint(FeatureLoss):
    """FitNets' hint, with the regressor that it trains beside the student.

    The one loss here that owns parameters. `LPDistiller` makes the regressor to fit
    the two feature layers, trains it with the student, counts it in
    `auxiliary_parameters()`, and leaves it out of the student's file. Every distiller
    needs a `Hint` of its own: one that is given to a second goes on with the regressor
    that the first has trained.

    Args:
        regressor: `"dense"` maps flattened features onto flattened features.
            `"convolutional"` maps feature maps of height `H` onto maps of height
            `h <= H` (widths likewise) with one convolution, of `H - h + 1` rows,
            without padding; maps of one size with 3x3 and padding; smaller maps
            of the student are refused. `"auto"` is convolutional where both sides
            have maps, dense otherwise. Defaults to `"auto"`.
        teacher_layer_name: The teacher's hint layer. Defaults to the feature
            layer that `LPDistiller` uses.
        student_layer_name: The student's guided layer, likewise.
        name: Name in the logs, where `_loss` is added. Defaults to `"hint"`.

    Attributes:
        layer: The regressor, a Keras layer; `None` until `build`.

    Raises:
        ValueError: If the kind of regressor is unknown, or does not fit the maps.

    Example:

    >>> distiller = LPDistiller(
    ...     teacher, student, gamma=None, distillation_losses=Hint()
    ... )
    >>> distiller.auxiliary_parameters() > 0
    True

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550.
    There hints come in a stage of their own, before distillation; here they are one
    of the losses, and the regressor is linear, as in later comparisons.
    `default_weight`, 100, is that of the RepDistiller benchmark on CIFAR-100.
    """

    default_weight = 100.0
    compares_samples = False

    def __init__(
        self,
        regressor: str = "auto",
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        name: str = "hint",
    ):
        super().__init__(teacher_layer_name, student_layer_name, name)
        if regressor not in ("auto", "dense", "convolutional"):
            raise ValueError(
                "`regressor` must be 'auto', 'dense' or 'convolutional'. "
                f"Received: regressor={regressor!r}"
            )
        self.regressor = regressor
        self.compares_maps = regressor == "convolutional"
        self.layer: keras.Layer | None = None
        self.built = False
        self._shapes: tuple[Shape, Shape] | None = None

    @property
    def layers(self) -> list[keras.Layer]:
        return [] if self.layer is None else [self.layer]

    def build(
        self, teacher_shape: Sequence[int | None], student_shape: Sequence[int | None]
    ) -> None:
        """Makes the regressor, for features of these shapes, batch axis first.

        `LPDistiller` calls it by itself, where it can see the shapes. Call it
        yourself for subclassed models.

        Raises:
            ValueError: If a size is unknown, if the convolution can't have the
                teacher's height and width, or if it was made for other shapes.
        """
        shapes = (tuple(teacher_shape[1:]), tuple(student_shape[1:]))
        if shapes == self._shapes:
            return
        if self._shapes is not None:
            raise ValueError(
                f"The regressor of loss '{self.name}' was made for a teacher's "
                f"features of shape {self._shapes[0]} and a student's of "
                f"{self._shapes[1]}. Received: {shapes[0]} and {shapes[1]}. Make a new "
                "loss for these; for features that a cache has projected, make the "
                "distiller with that cache."
            )
        if None in (*shapes[0], *shapes[1]):
            raise ValueError(
                f"Loss '{self.name}' needs to know all sizes of the features. "
                f"Received: teacher {shapes[0]}, student {shapes[1]}. Give the models' "
                "inputs a fixed size, or name other layers."
            )
        self.layer = regressor_layer(self.regressor, *shapes)
        self.layer.build((None, *_taken(self.layer, shapes[1])))
        self._shapes, self.built = shapes, True

    def validate_model_compatibility(self, teacher: Any, student: Any) -> None:
        # Called by the stock Distiller, not by LPDistiller.
        raise ValueError(
            f"Loss '{self.name}' has a regressor to train, which the stock "
            "`keras.distillation.Distiller` would leave as it is. Use "
            "`keras_lpd.LPDistiller`."
        )

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **kwargs: Any
    ) -> Tensor:
        if self.layer is None:
            raise ValueError(
                f"The regressor of loss '{self.name}' is not made yet. `LPDistiller` "
                "does that where the models are Functional or Sequential; otherwise "
                "call `loss.build(teacher_shape, student_shape)` first."
            )
        self.build(teacher_outputs.shape, student_outputs.shape)  # refuses others
        student = ops.cast(student_outputs, "float32")
        student = ops.reshape(student, (-1, *_taken(self.layer, student.shape[1:])))
        regressed = self.layer(student)
        teacher = ops.reshape(teacher_outputs, (-1, *regressed.shape[1:]))
        return hint_loss(teacher, regressed)

    def get_build_config(self) -> dict[str, Any] | None:
        if self._shapes is None:
            return None
        teacher, student = self._shapes
        return {"teacher_shape": [None, *teacher], "student_shape": [None, *student]}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.build(config["teacher_shape"], config["student_shape"])

    def get_config(self) -> dict[str, Any]:
        return {"regressor": self.regressor, **super().get_config()}


def regressor_layer(
    kind: str, teacher_shape: Shape, student_shape: Shape
) -> keras.Layer:
    """The regressor of that kind, not built yet, for a sample's features."""
    maps = len(teacher_shape) == len(student_shape) == 3
    if kind == "dense" or (kind == "auto" and not maps):
        units = math.prod(teacher_shape)
        return keras.layers.Dense(units, name="hint_regressor", dtype="float32")
    channels = channel_axis(4) - 1
    space = [i for i in range(3) if i != channels]
    if not maps or any(teacher_shape[i] > student_shape[i] for i in space):
        raise ValueError(
            "A convolutional regressor maps feature maps onto ones that are no larger. "
            f"Received: teacher {teacher_shape}, student {student_shape}. Name other "
            "layers, or use `Hint(regressor='dense')`."
        )
    same = all(teacher_shape[i] == student_shape[i] for i in space)
    return keras.layers.Conv2D(
        teacher_shape[channels],
        3 if same else [student_shape[i] - teacher_shape[i] + 1 for i in space],
        padding="same" if same else "valid",
        name="hint_regressor",
        dtype="float32",
    )


def _taken(layer: keras.Layer, shape: Shape) -> Shape:
    """In which shape a regressor takes a student's features of that shape."""
    return shape if isinstance(layer, keras.layers.Conv2D) else (math.prod(shape),)
