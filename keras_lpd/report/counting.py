"""How many multiplications there are in a graph of TensorFlow's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

_ELEMENTWISE = ("Mul", "Square", "SquaredDifference")
"""One product for each element of the result."""

_MATRICES = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_CONVOLUTIONS = ("Conv2D", "Conv3D")
_TRANSPOSED = ("Conv2DBackpropInput", "Conv3DBackpropInputV2")

PRODUCTS = (
    *_MATRICES,
    *_CONVOLUTIONS,
    *_TRANSPOSED,
    "DepthwiseConv2dNative",
    "Einsum",
)
"""Products of matrices and convolutions, which are added up."""

_LIKE_PRODUCTS = re.compile(r"Conv[23]D|Conv2d|Convolution|MatMul|Einsum|RNN|LSTM|GRU")
"""Types of operations which multiply too, if they are none of those above."""


def multiplications(function: Callable[..., Any], *shapes: Sequence[int]) -> list[int]:
    """Counts the multiplications in the graph that TensorFlow makes of a function.

    They are counted as in `complexity`: of `MatMul`, `BatchMatMul`, `Einsum`, `Conv2D`,
    `Conv3D`, depthwise and transposed convolutions each product, of `Mul`, `Square` and
    `SquaredDifference` each element, but for single numbers.

    Args:
        function: Takes float32 tensors of these shapes.
        *shapes: Shapes of its inputs, with all sizes known.

    Returns:
        A number for each input: multiplications that depend on it, but on none of
        the inputs after it. Their sum is the total.

    Raises:
        ValueError: If a size in the graph is unknown, or if the graph has loops,
            branches or calls of other graphs in it, or products of other kinds, such
            as those of sparse matrices.

    Example:

    >>> multiplications(lambda x: x @ np.ones((3, 5), "float32"), (2, 3))
    [30]
    >>> per_batch = multiplications(student, (128, 8, 8, 1))
    """
    import tensorflow as tf

    graph = (
        tf.function(lambda *tensors: function(*tensors), autograph=False)
        .get_concrete_function(*(tf.TensorSpec(tuple(shape)) for shape in shapes))
        .graph
    )
    counts = [0] * len(shapes)
    given = {tensor.op.name: i for i, tensor in enumerate(graph.inputs[: len(shapes)])}
    depends = dict(given)  # on which of the inputs, the last of them; -1: on none
    for op in graph.get_operations():  # in the order in which they were made
        if op.name not in given:
            before = (depends[tensor.op.name] for tensor in op.inputs)
            depends[op.name] = max(before, default=-1)
            if depends[op.name] >= 0:
                counts[depends[op.name]] += products(op)
    return counts


def products(op: Any) -> int:
    """How many multiplications an operation of TensorFlow's makes.

    Raises:
        ValueError: If nobody knows.
    """
    check(op)
    if op.type in _ELEMENTWISE:
        result = op.outputs[0]
        counts = result.dtype.is_floating and result.shape.rank != 0
        return _product(op, result.shape) if counts else 0
    if op.type in _MATRICES:
        flag = "transpose_a" if op.type == "MatMul" else "adj_x"
        inner = op.inputs[0].shape[-2 if op.get_attr(flag) else -1]
        return _product(op, [*op.outputs[0].shape, inner])
    if op.type == "Einsum":
        return _product(op, _einsum_sizes(op)) if len(op.inputs) > 1 else 0
    if op.type in _CONVOLUTIONS:
        return _product(op, [*op.outputs[0].shape, *op.inputs[1].shape[:-1]])
    if op.type in _TRANSPOSED:  # Each of its inputs goes into all of the kernel.
        return _product(op, [*op.inputs[2].shape, *op.inputs[1].shape[:-1]])
    if op.type == "DepthwiseConv2dNative":
        return _product(op, [*op.outputs[0].shape, *op.inputs[1].shape[:2]])
    return 0


def check(op: Any) -> None:
    """Refuses an operation of which nobody knows how much it multiplies."""
    if any(attribute.type == "func" for attribute in op.op_def.attr):
        raise ValueError(
            f"Multiplications inside '{op.name}' ({op.type}) can't be counted. "
            "Expected: a model or function without loops, branches and calls of "
            "compiled functions."
        )
    if op.type not in PRODUCTS and _LIKE_PRODUCTS.search(op.type):
        raise ValueError(
            f"Multiplications of '{op.name}' ({op.type}) can't be counted. Known are "
            f"{', '.join(PRODUCTS)}."
        )


def _product(op: Any, sizes: Any) -> int:
    sizes = tuple(sizes)
    if None in sizes:
        raise ValueError(
            f"The sizes of '{op.name}' ({op.type}) are not all known: {sizes}. "
            "Give the function's inputs, and the model's, fixed sizes."
        )
    return math.prod(sizes)


def _einsum_sizes(op: Any) -> list[int | None]:
    """The size behind each letter, and of each axis that dots stand for."""
    sizes: dict[str | int, int | None] = {}
    terms = op.get_attr("equation").decode().split("->")[0].split(",")
    for term, tensor in zip(terms, op.inputs):
        before, _, after = term.partition("...")
        dotted = len(tensor.shape) - len(before) - len(after)
        # Dots stand for axes counted from the last one, and sizes of 1 are repeated.
        axes = [*before, *range(-dotted, 0), *after]
        for axis, size in zip(axes, tensor.shape):
            sizes[axis] = size if sizes.get(axis, 1) == 1 else sizes[axis]
    return list(sizes.values())
