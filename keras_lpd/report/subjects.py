"""The models that are compared, and how each is asked."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lpd.checks import check_model
from keras_lpd.distiller import LPDistiller
from keras_lpd.features import (
    OUTPUTS,
    FeatureExtractor,
    Preprocessing,
    find_feature_layer,
    has_head,
    own_inputs,
)
from keras_lpd.neighbors import as_vectors
from keras_lpd.outputs import chosen_classes, threshold_of
from keras_lpd.report.macs import graph_of
from keras_lpd.report.measuring import compiled_for

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model makes of the samples.

    Attributes:
        features: Float32 of shape `(n, width)`, of the first samples; `None` of a
            model without a feature layer.
        classes: The chosen ones, `int` of shape `(n,)`; `None` where outputs are no
            scores of classes.
        among: How many classes it knows; 0 if it chooses none.
    """

    features: np.ndarray | None
    classes: np.ndarray | None
    among: int


@dataclasses.dataclass(frozen=True)
class Subject:
    """One of the models that are compared.

    Attributes:
        name: What it is called in the table.
        model: The model.
        extract: Its pass to the features, if there are any, and on to its outputs.
        prepare: Makes of a batch what the model takes.
        missing: Why no layer was found for the features, or `""`.
    """

    name: str
    model: keras.Model
    extract: FeatureExtractor
    prepare: Callable[[Any], Any]
    missing: str

    @classmethod
    def of(
        cls,
        name: str,
        value: Any,
        layer: str | None,
        preprocessing: Preprocessing | None,
    ) -> Subject:
        """What stands behind an entry of the comparison.

        Args:
            name: Its name.
            value: A model, a distiller, or the path of a saved one.
            layer: The path of its feature layer; `None` to look for it.
            preprocessing: Makes of a batch what the model takes, or `None`.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If it is nothing of that kind.
            ValueError: If it can't be compared, or the layer is not there.
        """
        if isinstance(value, (str, os.PathLike)):
            value = _loaded(name, value)
        model = _model_of(name, value)

        def extractor(layer: str | None) -> FeatureExtractor:
            if isinstance(value, LPDistiller):
                return value.feature_extractor("student", layer)
            return FeatureExtractor(model, [layer or find_feature_layer(model)])

        missing = ""
        try:
            extract = extractor(layer)
        except ValueError as error:
            if layer is not None:
                raise
            missing = str(error)
            extract = FeatureExtractor(model)
        prepare = FeatureExtractor(model, preprocessing=preprocessing).preprocessed
        return cls(name, model, extract, prepare, missing)

    @property
    def layer(self) -> str | None:
        """The path of the feature layer."""
        return next(iter(self.extract.layers), None)

    def taken(self, inputs: Any, rows: slice) -> Any:
        """Some of the inputs as tensors, as the model takes them."""
        batch = keras.tree.map_structure(lambda x: tf.constant(x[rows]), inputs)
        return own_inputs(self.model, self.prepare(batch))

    def graph(self, inputs: Any) -> Any:
        """The graph of inference on the first of the samples.

        Raises:
            ValueError: If the model does not take the samples.
        """
        sample = self.taken(inputs, slice(1))
        try:
            return graph_of(self.model, sample)
        except Exception as error:  # A layer may raise anything at a wrong shape.
            shapes = [tuple(one.shape) for one in keras.tree.flatten(sample)]
            why = " ".join(str(error).split())
            raise ValueError(
                f"Model '{self.name}' does not take the samples. Received: one of shape"
                f" {', '.join(map(str, shapes))}. If it takes others, say how to make "
                f"them: preprocessing={{'{self.name}': ...}}. Keras says: {why}"
            ) from error

    def answers(self, inputs: Any, count: int, few: int, pooling: Any) -> Answers:
        """Runs the model on all samples, and keeps the features of the first few."""
        layer, predicts = self.layer if few else None, has_head(self.model)

        def run(batch: Any) -> dict[str, Any]:
            found = self.extract(batch, training=False)
            wanted = {}
            if layer is not None:
                wanted["features"] = as_vectors(found[layer], pooling)
            if predicts and tf.is_tensor(found[OUTPUTS]):
                wanted["outputs"] = tf.cast(found[OUTPUTS], "float32")
            return wanted

        compiled = compiled_for(run, self.taken(inputs, slice(1)), None)
        features, outputs = [], []
        for start in range(0, count, _BATCH):
            found = compiled(self.taken(inputs, slice(start, start + _BATCH)))
            if "features" in found and start < few:
                features.append(found["features"].numpy())
            if "outputs" in found:
                outputs.append(found["outputs"].numpy())
        kept = np.concatenate(features)[:few] if features else None
        if not outputs:
            return Answers(kept, None, 0)
        scores = np.concatenate(outputs)
        classes = chosen_classes(scores, threshold_of(self.model, scores))
        among = 0 if classes is None else max(scores.shape[-1], 2)
        return Answers(kept, classes, among)


def _loaded(name: str, path: str | os.PathLike[str]) -> Any:
    path = pathlib.Path(path)
    if path.suffix == ".tflite":
        raise ValueError(
            f"'{name}' is a LiteRT file. Expected: a model, a distiller, or a `.keras` "
            "file. `keras_lpd.compress.evaluate_litert` measures LiteRT files, and "
            f"holds them against the model. Received: {path}"
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path} (model '{name}').")
    return keras.models.load_model(path, compile=False)


def _model_of(name: str, value: Any) -> keras.Model:
    if isinstance(value, LPDistiller) and hasattr(value, "strip"):
        raise ValueError(
            f"The student of '{name}' is still being compressed. Compare the result: "
            f"{{'{name}': distiller.strip()}}."
        )
    if isinstance(value, (LPDistiller, keras.distillation.Distiller)):
        value = value.student
    check_model(f"model '{name}'", value)
    return value
