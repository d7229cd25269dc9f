"""What `LPDistiller` asks of models, before it trains."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lpd.features import graph_ends, has_head, is_graph

_UNNAMED = re.compile(r"(keras_tensor|input|input_layer)(_\d+)?$")
"""What Keras calls inputs that nobody named."""


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


def check_pair(teacher: keras.Model, student: keras.Model, alike: bool) -> None:
    """Refuses models that share weights, or can't be run on the same batch.

    Args:
        teacher: The teacher.
        student: The student.
        alike: Whether both take the batch as it is.
    """
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
    if not alike or not (is_graph(teacher) and is_graph(student)):
        return
    given, taken = _named_inputs(teacher), _named_inputs(student)
    if names_inputs(teacher) and names_inputs(student) and not given.keys() & taken:
        return  # A dict of inputs is what they mean: each takes its own.
    if any(isinstance(graph_ends(model)[0], dict) for model in (teacher, student)):
        # Of a dict of inputs each model takes what it knows by name.
        agree = all(
            shapes_agree(given[name], taken[name]) for name in given.keys() & taken
        )
    else:
        pairs = zip(given.values(), taken.values())
        agree = len(given) == len(taken) and all(shapes_agree(*pair) for pair in pairs)
    if not agree:
        raise ValueError(
            "Teacher and student are run on the same batch, so their inputs must "
            f"agree. Received: teacher '{teacher.name}' with {given}, student "
            f"'{student.name}' with {taken}. Make of the batch what the teacher takes "
            "with `teacher_preprocessing=` (for example a `keras.layers.Resizing`)."
        )


def check_preprocessed(teacher: keras.Model, inputs: Any) -> None:
    """Refuses what preprocessing makes of the student's inputs, if it does not fit."""
    shapes = [tuple(one.shape) for one in keras.tree.flatten(inputs)]
    expected = [tuple(one.shape) for one in teacher.inputs]
    if len(shapes) != len(expected) or not all(map(shapes_agree, shapes, expected)):
        raise ValueError(
            f"`teacher_preprocessing` makes of the student's inputs what does not fit "
            f"teacher '{teacher.name}'. Expected: {expected}. Received: {shapes}."
        )


def check_head(
    teacher: keras.Model, losses: Sequence[keras.distillation.DistillationLoss]
) -> None:
    """Refuses losses on logits with a teacher that has no classifier."""
    for loss in losses:
        if isinstance(loss, keras.distillation.LogitsDistillation) and not has_head(
            teacher
        ):
            raise ValueError(
                f"{type(loss).__name__} wants the teacher's logits, but teacher "
                f"'{teacher.name}' has no classifier: its output is features, of shape "
                f"{tuple(teacher.outputs[0].shape)}. Leave that loss out; those on "
                "features need no logits (LocalityPreserving, NeighborProbability)."
            )


def check_outputs(
    teacher_name: str, shapes: Sequence[tuple[int | None, ...]], student: keras.Model
) -> None:
    """Refuses models whose outputs can't be compared with each other."""
    if not is_graph(student):
        return
    student_shapes = [tuple(output.shape) for output in student.outputs]
    if len(shapes) != len(student_shapes) or not all(
        map(shapes_agree, shapes, student_shapes)
    ):
        raise ValueError(
            "A distillation loss compares the outputs of teacher and student, which "
            f"must agree then. Received: teacher '{teacher_name}' {list(shapes)}, "
            f"student '{student.name}' {student_shapes}. With a teacher of other "
            "classes take losses on features, which may have any width "
            "(LocalityPreserving, NeighborProbability)."
        )


def names_inputs(model: keras.Model) -> bool:
    """Whether somebody gave names to the inputs, to be found in a dict by them."""
    return not any(map(_UNNAMED.match, _named_inputs(model)))


def _named_inputs(model: keras.Model) -> dict[str, tuple[int | None, ...]]:
    inputs, _ = graph_ends(model)
    if isinstance(inputs, dict):
        return {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    return {tensor.name: tuple(tensor.shape) for tensor in model.inputs}


def shapes_agree(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether one batch can have both shapes; Keras adds and drops a last axis of 1."""
    shorter, longer = sorted((tuple(one), tuple(other)), key=len)
    if len(longer) == len(shorter) + 1 and longer[-1] == 1:
        longer = longer[:-1]
    return len(shorter) == len(longer) and all(
        a == b or a is None or b is None for a, b in zip(shorter, longer)
    )


def check_finite(teacher: keras.Model) -> None:
    """Refuses a teacher whose weights have NaN or infinite values.

    Its features need not show it: on CPUs a ReLU makes 0 of NaN.
    """
    broken = [
        variable.path
        for variable in teacher.weights
        if keras.backend.is_float_dtype(variable.dtype)
        and not bool(ops.all(ops.isfinite(variable)))
    ]
    if broken:
        raise ValueError(
            f"The teacher '{teacher.name}' has NaN or infinite values in its weights, "
            f"so its features mean nothing: {', '.join(broken[:5])}. Load or train "
            "it again."
        )


def warn_of_logits(
    loss: keras.distillation.DistillationLoss, activations: dict[str, str | None]
) -> None:
    """Warns where `LogitsDistillation` would compare what it isn't meant to.

    Args:
        loss: Any distillation loss.
        activations: What makes the outputs of each model, by the model's name.
    """
    if not isinstance(loss, keras.distillation.LogitsDistillation):
        return
    # Keras takes the softmax for an instance of the loss, not for its name.
    if any(one is keras.losses.kl_divergence for one in keras.tree.flatten(loss.loss)):
        warnings.warn(
            "LogitsDistillation with its default loss, 'kl_divergence', takes the "
            "divergence of the logits themselves, as if they were probabilities "
            f"(Keras {keras.__version__}), which teaches next to nothing. Give it an "
            "instance, which takes the softmax first: "
            "`LogitsDistillation(temperature=..., loss=keras.losses.KLDivergence())`.",
            stacklevel=4,
        )
    for name, activation in activations.items():
        if activation is not None:
            warnings.warn(
                f"LogitsDistillation expects logits, but model '{name}' ends in "
                f"a {activation}: it would distil the softmax of that. Use models "
                "without the last activation, and `from_logits=True` in the loss.",
                stacklevel=4,
            )
