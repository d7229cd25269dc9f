"""Multiplications of a model, as TensorFlow's own profiler counts them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_lpd.quiet import quietly
from keras_lpd.report.counting import PRODUCTS, check, products
from keras_lpd.report.measuring import compiled_for

_BY_HAND = ("Einsum", "Conv3DBackpropInputV2")
"""Products of which the profiler does not know how many there are."""


def graph_of(model: keras.Model, sample: Any) -> Any:
    """The graph that TensorFlow makes of a model in inference mode.

    Args:
        model: A built model.
        sample: What it takes, in tensors, of which the shapes are used.
    """
    before = tf.config.functions_run_eagerly()
    # So that functions inside become part of the graph: Keras compiles convolutions
    # in groups, which the profiler would not look into.
    tf.config.run_functions_eagerly(True)
    try:
        return compiled_for(lambda x: model(x, training=False), sample).graph
    finally:
        tf.config.run_functions_eagerly(before)


def macs(graph: Any) -> int:
    """Multiply-accumulates of a graph: products of convolutions and of matrices.

    They are half the floating-point operations that TensorFlow's profiler
    (`tf.compat.v1.profiler`) counts for these nodes, of which one half are the
    products and the other their sums; padding is counted as if it were data. Biases,
    activations, pooling and normalization, where the profiler counts too, are left
    out. `Einsum` and transposed convolutions in three dimensions, which it does not
    know, are counted as `multiplications` does.

    Args:
        graph: What `graph_of` gives.

    Raises:
        ValueError: If there are loops, branches or compiled functions in the graph, or
            operations of which nobody knows the products, or their sizes.

    Example:

    >>> macs(graph_of(student, x_train[:1]))  # 6,912 of them in conv_1
    70208
    """
    counted = _profile(graph)
    total = 0
    for op in graph.get_operations():
        check(op)
        if op.type in PRODUCTS:
            by_hand = products(op)  # refuses sizes that nobody knows
            total += by_hand if _goes_by_hand(op) else counted.get(op.name, 0) // 2
    return total


def _goes_by_hand(op: Any) -> bool:
    # The profiler takes the wrong size of the first matrix, if that is transposed.
    wrong = op.type.startswith("BatchMatMul") and op.get_attr("adj_x")
    return op.type in _BY_HAND or wrong


def _profile(graph: Any) -> dict[str, int]:
    """The floating-point operations of each node."""
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(
        profiler.ProfileOptionBuilder.float_operation()
    )
    with quietly():  # It warns of its own parts.
        root = profiler.profile(graph, options=options.with_empty_output().build())

    def nodes(node: Any) -> Iterator[Any]:
        yield node
        for child in node.children:
            yield from nodes(child)

    return {node.name: node.float_ops for node in nodes(root)}
