"""What a model makes of samples: its features, and the classes that it chooses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lpd.features import OUTPUTS, FeatureExtractor, Preprocessing, has_head
from keras_lpd.neighbors import as_vectors
from keras_lpd.outputs import chosen_classes, known_classes, threshold_of
from keras_lpd.samples import count_of

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model makes of the samples.

    Attributes:
        features: Float32 of shape `(n, width)`, of all samples or the first ones;
            `None` of a model without a feature layer.
        classes: The chosen ones, `int` of shape `(n,)`; `None` where outputs are no
            scores of classes.
        among: How many classes the model knows; 0 if it chooses none.
    """

    features: np.ndarray | None
    classes: np.ndarray | None
    among: int


def classes_of(outputs: Any, maker: Any) -> tuple[np.ndarray | None, int]:
    """The chosen classes, and among how many: `(None, 0)` of what scores none.

    Args:
        outputs: What a model gave; an array, if it is scores of classes.
        maker: The model, or what is known of it; see `threshold_of`.
    """
    if not isinstance(outputs, np.ndarray):
        return None, 0
    classes = chosen_classes(outputs, threshold_of(maker, outputs))
    return classes, known_classes(outputs)


def answering(
    extract: FeatureExtractor,
    pooling: str | None = None,
    *,
    few: int | None = None,
    prepare: Preprocessing | None = None,
) -> Callable[[Any], Answers]:
    """A function from samples to what a model makes of them, compiled once.

    Args:
        extract: The model's pass to its feature layer, if there is one, and on to its
            outputs.
        pooling: How feature maps become vectors.
        few: Of how many samples features are wanted, the first ones. Defaults to all.
        prepare: What is done to a batch of arrays before, outside of the graph.
    """
    layer = None if few == 0 else next(iter(extract.layers), None)
    predicts = has_head(extract.model)

    @tf.function(reduce_retracing=True)
    def run(batch: Any) -> dict[str, Any]:
        found = extract(batch, training=False)
        wanted = {}
        if layer is not None:
            wanted["features"] = as_vectors(found[layer], pooling)
        if predicts and tf.is_tensor(found[OUTPUTS]):
            wanted["outputs"] = tf.cast(found[OUTPUTS], "float32")
        return wanted

    def answers(inputs: Any) -> Answers:
        count = count_of(inputs)
        ends = {"features": count if few is None else few, "outputs": count}
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, count, _BATCH):
            # The last batch begins again at the first sample, to be of the same size.
            rows = np.arange(start, start + min(_BATCH, count)) % count
            batch = keras.tree.map_structure(lambda x: x[rows], inputs)  # noqa: B023
            for key, tensor in run(prepare(batch) if prepare else batch).items():
                if start < ends[key]:
                    parts.setdefault(key, []).append(np.asarray(tensor))
        found = {key: np.concatenate(part)[: ends[key]] for key, part in parts.items()}
        predicted = classes_of(found.get("outputs"), extract.model)
        return Answers(found.get("features"), *predicted)

    return answers
