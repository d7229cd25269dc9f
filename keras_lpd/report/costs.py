"""What distillation methods cost: auxiliary parameters, memory and multiplications."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_lpd.arguments import as_integer, is_integer
from keras_lpd.features import feature_shape, find_feature_layer, is_graph
from keras_lpd.losses import (
    AttentionTransfer,
    CorrelationCongruence,
    FeatureLoss,
    Hint,
    LocalityPreserving,
    NeighborProbability,
    ProbabilisticTransfer,
    RelationalKnowledge,
    SimilarityPreserving,
)
from keras_lpd.report.formulas import COSTS, Shape
from keras_lpd.report.table import Table

METHODS: dict[str, FeatureLoss] = {
    "hint (dense)": Hint("dense"),
    "hint (convolutional)": Hint("convolutional"),
    "AT": AttentionTransfer(),
    "SP": SimilarityPreserving(),
    "RKD": RelationalKnowledge(),
    "PKT": ProbabilisticTransfer(),
    "CC": CorrelationCongruence(),
    "LP": LocalityPreserving(),
    "neighbour probability": NeighborProbability(),
}
"""The methods that `complexity` knows by name, each with its defaults."""


@dataclasses.dataclass(frozen=True)
class ComplexityRow:
    """What one method costs between one pair of layers.

    Attributes:
        method: Name of the method.
        teacher_layer: The teacher's layer, or the shape that was given instead.
        student_layer: The student's.
        batch_size: For how many samples the multiplications are counted.
        parameters: Auxiliary parameters, trained beside the student's own.
        bytes: Memory for them: float32 weights and the optimizer's slots.
        teacher_macs: Multiplications that depend on the teacher's features alone,
            for a batch. No gradient flows there.
        student_macs: All other multiplications of the loss, for a batch.
    """

    method: str
    teacher_layer: str
    student_layer: str
    batch_size: int
    parameters: int
    bytes: int
    teacher_macs: int
    student_macs: int

    @property
    def macs(self) -> int:
        """Multiplications of both sides, for a batch."""
        return self.teacher_macs + self.student_macs

    @property
    def macs_per_sample(self) -> int:
        """Multiplications of both sides, for one sample of such a batch."""
        return self.macs // self.batch_size  # without remainder, for all methods


@dataclasses.dataclass(frozen=True)
class Complexity(Table):
    """What methods cost, as `complexity` counted it.

    Attributes:
        rows: List of `ComplexityRow`.
        batch_size: For how many samples the multiplications are counted.
        optimizer: Name of the optimizer whose slots are in the bytes.
    """

    rows: list[ComplexityRow]
    batch_size: int
    optimizer: str

    def columns(self) -> dict[str, str]:
        return {
            "method": "method",
            "teacher layer": "teacher_layer",
            "student layer": "student_layer",
            "parameters": "parameters",
            f"bytes, {self.optimizer}": "bytes",
            "MACs, teacher's side": "teacher_macs",
            "MACs, student's side": "student_macs",
            "MACs a sample": "macs_per_sample",
        }

    def note(self) -> str:
        return (
            f"MACs are multiplications of the loss's forward pass, batch of "
            f"{self.batch_size:,}; bytes are weights and {self.optimizer}'s slots."
        )


def complexity(
    teacher: keras.Model,
    student: keras.Model,
    pairs: Sequence[tuple[Any, Any]] | None = None,
    *,
    batch_size: int = 128,
    methods: Sequence[str | FeatureLoss] | None = None,
    optimizer: str | keras.optimizers.Optimizer = "adam",
) -> Complexity:
    """What each distillation method adds to training, from the shapes of its features.

    Nothing is run or built; the numbers follow from closed formulas. Counted are:

    - auxiliary parameters: what is trained beside the student.
    - bytes: these parameters in float32, once as weights and once for each slot that
      the optimizer keeps of every weight: two of Adam, one of SGD with momentum, none
      of plain SGD. Gradients and what is held between the two passes come on top.
    - MACs: the multiplications in the forward pass of the loss, as it is written
      here, whether or not their products are added up. Matrix products and
      convolutions count one for each product, padding included; elementwise products
      and squares, those by a constant included, one for each element of their result.
      Not counted are additions, divisions, roots, exponentials, sorting, moving data,
      and products of two single numbers.

    The teacher's side is what depends on the teacher's features alone. All else is
    the student's, and has a backward pass besides. The models' own passes are not in
    the table; `multiplications` counts them.

    Args:
        teacher: A built Functional or Sequential model.
        student: Likewise.
        pairs: Pairs `(teacher_layer, student_layer)`, each the path of a layer, or
            the shape of a sample's features: `(7, 7, 192)`. Defaults to the
            feature layers that `LPDistiller` uses.
        batch_size: Samples in a batch. Defaults to 128.
        methods: Names out of `METHODS`, or losses of their classes, whose own layers
            are left aside. Defaults to all of `METHODS`.
        optimizer: A Keras optimizer, or its name. Defaults to `"adam"`.

    Returns:
        A `Complexity`, with a row for each pair and method, but where the method
        can't be used: attention transfer on vectors, and a convolutional hint on
        vectors, or on a student's maps smaller than the teacher's.

    Raises:
        ValueError: If a layer can't be found or a size is unknown, if an argument is
            out of its range, or if no method can be used.

    Example:

    >>> report = complexity(teacher, student, methods=["hint (dense)", "LP"])
    >>> [(row.method, row.parameters, row.macs_per_sample) for row in report.rows]
    [('hint (dense)', 4224, 4224), ('LP', 0, 17573)]

    Sources: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550, and
    Chen et al., "Learning Student Networks via Feature Embedding", arXiv 1812.06597,
    for the parameters of the regressors, to which biases are added here.
    """
    batch_size = as_integer("batch_size", batch_size, least=1)
    losses = _chosen(list(METHODS) if methods is None else methods)
    if pairs is None:
        pairs = [(_default_layer(teacher), _default_layer(student))]
    optimizer = _fresh(optimizer)
    copies = 1 + _slots(optimizer)

    rows = []
    for one, other in _checked(pairs):
        shapes = _sample_shape(teacher, one), _sample_shape(student, other)
        for name, loss in losses:
            cost = COSTS[type(loss)](loss, batch_size, *shapes)
            if cost is not None:
                rows.append(
                    ComplexityRow(
                        method=name,
                        teacher_layer=_label(one),
                        student_layer=_label(other),
                        batch_size=batch_size,
                        parameters=cost.parameters,
                        bytes=4 * cost.parameters * copies,
                        teacher_macs=batch_size * cost.teacher,
                        student_macs=batch_size * cost.student,
                    )
                )
    if not rows:
        raise ValueError(
            f"None of the methods {[name for name, _ in losses]} can be used between "
            f"the pairs {list(pairs)}: attention transfer and convolutional hints "
            "compare feature maps, and a convolutional hint needs a student's maps "
            "no smaller than the teacher's. Name other layers or methods."
        )
    return Complexity(rows, batch_size, type(optimizer).__name__)


def _chosen(methods: Sequence[str | FeatureLoss]) -> list[tuple[str, FeatureLoss]]:
    if isinstance(methods, (str, FeatureLoss)):
        methods = [methods]
    losses = []
    for method in methods:
        loss: Any = METHODS.get(method) if isinstance(method, str) else method
        if type(loss) not in COSTS:
            raise ValueError(
                f"`methods` must be names among {list(METHODS)}, or losses out of "
                f"{[kind.__name__ for kind in COSTS]}. Received: {method!r}. The "
                "multiplications of other losses can be counted by `multiplications`."
            )
        losses.append((method if isinstance(method, str) else loss.name, loss))
    return losses


def _checked(pairs: Sequence[tuple[Any, Any]]) -> Sequence[tuple[Any, Any]]:
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(
                "`pairs` must be a list of pairs (teacher_layer, student_layer). "
                f"Received: pairs={pairs!r}"
            )
    return pairs


def _sample_shape(model: keras.Model, layer: Any) -> Shape:
    if isinstance(layer, str):
        _require_graph(model)
        shape = feature_shape(model, layer)[1:]
    else:
        shape = tuple(layer)
    if not all(is_integer(size, least=1) for size in shape):
        raise ValueError(
            f"All sizes of the features must be known. Received: '{_label(layer)}' of "
            f"shape {shape}. Give the model's input a fixed size, or the shape of a "
            "sample's features in place of the layer's name."
        )
    return shape  # type: ignore[return-value]


def _default_layer(model: keras.Model) -> str:
    _require_graph(model)
    try:
        return find_feature_layer(model)
    except ValueError as error:
        raise ValueError(
            f"{error} For `complexity`: pairs=[(teacher_layer, student_layer)]."
        ) from error


def _require_graph(model: Any) -> None:
    if not is_graph(model):
        raise ValueError(
            f"`complexity` finds layers in built Functional and Sequential models. "
            f"Received: '{getattr(model, 'name', model)}' ({type(model).__name__}). "
            "Give the shapes of a sample's features instead: "
            "pairs=[(teacher_shape, student_shape)]."
        )


def _label(layer: Any) -> str:
    return layer if isinstance(layer, str) else "x".join(map(str, layer))


def _fresh(optimizer: Any) -> keras.optimizers.Optimizer:
    """One that has no variables yet, and the user's is left alone."""
    optimizer = keras.optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


def _slots(optimizer: keras.optimizers.Optimizer) -> int:
    """How many numbers an optimizer keeps of every weight."""
    weights = keras.Variable(keras.ops.zeros((2, 3)), dtype="float32")
    optimizer.build([weights])
    return sum(slot.shape == weights.shape for slot in optimizer.variables)
