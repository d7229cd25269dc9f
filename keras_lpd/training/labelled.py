"""Metrics of batches in which some samples have no label."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops


@contextlib.contextmanager
def counting_labelled(compiled: Any, sample_weight: Any) -> Iterator[None]:
    """Within it, all compiled metrics leave out the samples of weight 0.

    Keras weighs what is given as `weighted_metrics`. Those given as `metrics` count
    every sample alike, the unlabelled among them, of which the label means nothing.

    Args:
        compiled: What a Keras model holds its compiled metrics in, or `None`.
        sample_weight: The weights of the batch, or `None`.
    """
    if compiled is None or sample_weight is None:
        yield
        return
    update_state = compiled.update_state
    labelled = keras.tree.map_structure(
        lambda weight: ops.cast(ops.not_equal(weight, 0), "float32"), sample_weight
    )

    def update(y: Any, y_pred: Any, weights: Any) -> None:
        if not compiled.built:
            compiled.build(y, y_pred)
        plain, weighted = compiled._flat_metrics, compiled._flat_weighted_metrics
        compiled._flat_metrics = [None] * len(plain)
        try:
            for metrics, used in ((plain, labelled), (weighted, weights)):
                compiled._flat_weighted_metrics = metrics
                update_state(y, y_pred, used)
        finally:
            compiled._flat_metrics = plain
            compiled._flat_weighted_metrics = weighted

    compiled.update_state = update
    try:
        yield
    finally:
        del compiled.update_state
