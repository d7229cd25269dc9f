"""Which class outputs choose, and how often that is right."""

import keras
import numpy as np
import pytest

from keras_lpd.outputs import accuracy, chosen_classes, known_classes, threshold_of
from tests.subclassed import TwoLayers

LOGITS = np.array([[-2.0], [0.3], [4.0]])
PROBABILITIES = np.array([[0.1], [0.4], [0.9]])


def ending_in(activation):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(1, activation=activation)]
    )


@pytest.mark.parametrize(
    "maker, outputs, threshold",
    [
        # Who knows what makes its outputs is believed, whatever they are.
        (ending_in("sigmoid"), PROBABILITIES, 0.5),
        (ending_in(None), PROBABILITIES, 0.0),
        ("sigmoid", PROBABILITIES, 0.5),
        # Of others the outputs themselves tell.
        (TwoLayers(), PROBABILITIES, 0.5),
        (TwoLayers(), LOGITS, 0.0),
        (None, PROBABILITIES, 0.5),
        (None, LOGITS, 0.0),
    ],
)
def test_thresholds_of_single_outputs(maker, outputs, threshold):
    assert threshold_of(maker, outputs) == threshold


def test_chosen_classes_and_how_many_there_are():
    assert chosen_classes(LOGITS, 0.0).tolist() == [0, 1, 1]
    assert chosen_classes(PROBABILITIES, 0.5).tolist() == [0, 0, 1]
    assert known_classes(LOGITS) == 2
    scores = np.eye(5)[[3, 1]]
    assert chosen_classes(scores, 0.0).tolist() == [3, 1]
    assert known_classes(scores) == 5
    maps = np.ones((2, 4, 4, 3))
    assert chosen_classes(maps, 0.0) is None
    assert known_classes(maps) == 0


def test_accuracy():
    chosen, labels = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])
    assert accuracy(chosen, 3, labels) == 0.75
    with pytest.raises(ValueError, match="labels go up to 2, but the model knows 2"):
        accuracy(chosen, 2, labels)
    with pytest.raises(ValueError, match="no rows of scores"):
        accuracy(None, 0, labels)
