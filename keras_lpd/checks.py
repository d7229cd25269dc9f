"""What `LPDistiller` asks of models, losses and weights, before it trains."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_lpd.features import graph_ends, is_graph, output_activation


def as_losses(losses: Any) -> list[keras.distillation.DistillationLoss]:
    """One loss, several or none as a list."""
    if losses is None:
        return []
    losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    for loss in losses:
        if not isinstance(loss, keras.distillation.DistillationLoss):
            raise TypeError(
                "`distillation_losses` takes instances of "
                "`keras.distillation.DistillationLoss`, one or a list. "
                f"Received: {loss!r}"
            )
    return losses


def as_weights(weights: Any, losses: list[Any]) -> list[float]:
    """A weight for each loss: its default, where none are given."""
    if weights is None:
        return [float(getattr(loss, "default_weight", 1.0)) for loss in losses]
    weights = list(weights) if isinstance(weights, (list, tuple)) else [weights]
    if len(weights) != len(losses):
        raise ValueError(
            "`distillation_loss_weights` needs one weight for each of the "
            f"{len(losses)} `distillation_losses`. Received: {weights!r}"
        )
    return [as_weight("distillation_loss_weights", weight) for weight in weights]


def as_weight(argument: str, weight: Any) -> float:
    """The weight as a float, if it is a finite number of at least 0."""
    valid = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
    if not valid or not 0 <= weight < float("inf"):
        raise ValueError(
            f"`{argument}` takes numbers of at least 0. Received: {weight!r}"
        )
    return float(weight)


def check_model(role: str, model: Any) -> None:
    """Refuses what is no built Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"The {role} must be a `keras.Model` (of Keras 3). Received: {model!r} "
            f"of type {type(model).__module__}.{type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            f"The {role} '{model.name}' is not built: it has no weights yet. Start it "
            "with a `keras.Input`, or call it on one batch of data."
        )


def check_pair(teacher: keras.Model, student: keras.Model) -> None:
    """Refuses models that share weights, or can't be run on the same batch."""
    if teacher is student:
        raise ValueError(
            f"Teacher and student are the same model, '{student.name}'. "
            "The student has to be a model of its own."
        )
    trained = {id(variable) for variable in student.trainable_variables}
    shared = [v.path for v in teacher.variables if id(v) in trained]
    if shared:
        raise ValueError(
            f"Teacher '{teacher.name}' and student '{student.name}' share weights that "
            f"training would change: {', '.join(shared[:5])}. Use "
            "`keras.models.clone_model` for one of the two."
        )
    if not (is_graph(teacher) and is_graph(student)):
        return
    given, taken = _named_inputs(teacher), _named_inputs(student)
    if any(isinstance(graph_ends(model)[0], dict) for model in (teacher, student)):
        # Of a dict of inputs each model takes what it knows by name.
        agree = all(
            _shapes_agree(given[name], taken[name]) for name in given.keys() & taken
        )
    else:
        pairs = zip(given.values(), taken.values())
        agree = len(given) == len(taken) and all(_shapes_agree(*pair) for pair in pairs)
    if not agree:
        raise ValueError(
            "Teacher and student are run on the same batch, so their inputs must "
            f"agree. Received: teacher '{teacher.name}' with {given}, student "
            f"'{student.name}' with {taken}. Put a layer in front of one of them "
            "(for example `keras.layers.Resizing`)."
        )


def check_outputs(teacher: keras.Model, student: keras.Model) -> None:
    """Refuses models whose outputs can't be compared with each other."""
    if not (is_graph(teacher) and is_graph(student)):
        return
    teacher_shapes = [tuple(output.shape) for output in teacher.outputs]
    student_shapes = [tuple(output.shape) for output in student.outputs]
    if len(teacher_shapes) != len(student_shapes) or not all(
        map(_shapes_agree, teacher_shapes, student_shapes)
    ):
        raise ValueError(
            "A distillation loss compares the outputs of teacher and student, which "
            f"must agree then. Received: teacher '{teacher.name}' {teacher_shapes}, "
            f"student '{student.name}' {student_shapes}."
        )


def _named_inputs(model: keras.Model) -> dict[str, tuple[int | None, ...]]:
    inputs, _ = graph_ends(model)
    if isinstance(inputs, dict):
        return {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    return {tensor.name: tuple(tensor.shape) for tensor in model.inputs}


def _shapes_agree(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether one batch can have both shapes; Keras adds and drops a last axis of 1."""
    shorter, longer = sorted((tuple(one), tuple(other)), key=len)
    if len(longer) == len(shorter) + 1 and longer[-1] == 1:
        longer = longer[:-1]
    return len(shorter) == len(longer) and all(
        a == b or a is None or b is None for a, b in zip(shorter, longer)
    )


def warn_of_probabilities(
    loss: keras.distillation.DistillationLoss, *models: Any
) -> None:
    """Warns where `LogitsDistillation` would take the softmax of a softmax."""
    if not isinstance(loss, keras.distillation.LogitsDistillation):
        return
    for model in models:
        activation = output_activation(model)
        if activation is not None:
            warnings.warn(
                f"LogitsDistillation expects logits, but model '{model.name}' ends in "
                f"a {activation}: it would distil the softmax of that. Use models "
                "without the last activation, and `from_logits=True` in the loss.",
                stacklevel=3,
            )
