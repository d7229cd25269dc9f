"""The models that are compared, and how each is asked."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_lpd.answers import Answers, answering
from keras_lpd.checks import check_model
from keras_lpd.distiller import LPDistiller
from keras_lpd.features import (
    FeatureExtractor,
    Preprocessing,
    find_feature_layer,
    own_inputs,
)
from keras_lpd.report.macs import graph_of
from keras_lpd.students import is_being_compressed, model_of


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

    def answers(self, inputs: Any, few: int, pooling: str | None) -> Answers:
        """Runs the model on all samples, and keeps the features of the first few."""
        answers = answering(
            self.extract, pooling, few=few, prepare=lambda x: self.taken(x, slice(None))
        )
        return answers(inputs)


def _loaded(name: str, path: str | os.PathLike[str]) -> Any:
    import keras_lpd.models  # noqa: F401  # Registers the layers of its own.

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
    if is_being_compressed(value):
        if "quantize_aware" in value.methods:
            raise ValueError(
                f"The student of '{name}' is on its way to a LiteRT file, and comes "
                "out as no model of Keras 3. Write the file with `keras_lpd.compress."
                "to_litert(distiller.strip(), path, 'int8')`, and measure it with "
                "`keras_lpd.compress.evaluate_litert`."
            )
        raise ValueError(
            f"The student of '{name}' is still being compressed. Compare the result: "
            f"{{'{name}': distiller.strip()}}."
        )
    model = model_of(value)
    check_model(f"model '{name}'", model)
    return model
