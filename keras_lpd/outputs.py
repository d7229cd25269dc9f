"""What a model's outputs say: which class it chooses."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lpd.features import is_graph, output_activation


def threshold_of(model: Any, outputs: np.ndarray) -> float:
    """Above which a single output means the class 1: a logit, or a probability."""
    if is_graph(model):
        return 0.5 if output_activation(model) == "sigmoid" else 0.0
    return 0.5 if outputs.min() >= 0.0 and outputs.max() <= 1.0 else 0.0


def chosen_classes(outputs: np.ndarray, threshold: float) -> np.ndarray | None:
    """The chosen classes; `None` where outputs are no scores of classes."""
    if outputs.ndim != 2:
        return None
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > threshold).astype(np.int64)
    return outputs.argmax(axis=1)
