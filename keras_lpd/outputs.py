"""What a model's outputs say: which class it chooses, and how often that is right."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lpd.features import is_graph, output_activation


def threshold_of(maker: Any, outputs: np.ndarray) -> float:
    """Above which a single output means the class 1: a logit, or a probability.

    Args:
        maker: The model that gave the outputs, or what `output_activation` said of it.
            Where neither tells (a subclassed model, `None`), they are probabilities
            if all of them lie between 0 and 1.
        outputs: Its outputs for some samples.
    """
    if is_graph(maker):
        probable = output_activation(maker) == "sigmoid"
    elif isinstance(maker, str):
        probable = maker == "sigmoid"
    else:
        probable = outputs.min() >= 0.0 and outputs.max() <= 1.0
    return 0.5 if probable else 0.0


def chosen_classes(outputs: np.ndarray, threshold: float) -> np.ndarray | None:
    """The chosen classes; `None` where outputs are no scores of classes."""
    if outputs.ndim != 2:
        return None
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > threshold).astype(np.int64)
    return outputs.argmax(axis=1)


def known_classes(outputs: np.ndarray) -> int:
    """Among how many classes outputs choose: two by a single one; 0 if by none."""
    return max(outputs.shape[1], 2) if outputs.ndim == 2 else 0


def accuracy(classes: np.ndarray | None, among: int, labels: np.ndarray) -> float:
    """How many samples are classified right, as a fraction.

    Args:
        classes: The chosen ones, of `chosen_classes`.
        among: How many there are, of `known_classes`.
        labels: The right ones.

    Raises:
        ValueError: If none were chosen, or the labels are of more classes.
    """
    if classes is None:
        raise ValueError("The outputs are no rows of scores, one a class.")
    if labels.max() >= among:
        raise ValueError(
            f"The labels go up to {labels.max()}, but the model knows {among} classes. "
            "Give the data that it was trained for."
        )
    return float(np.mean(classes == labels))
