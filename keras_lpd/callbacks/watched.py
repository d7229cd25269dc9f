"""What teacher and student make of the same samples, while the student trains."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lpd.answers import Answers, answering, classes_of
from keras_lpd.arguments import as_integer
from keras_lpd.checks import check_finite, check_model
from keras_lpd.distiller import LPDistiller
from keras_lpd.features import (
    OUTPUTS,
    FeatureExtractor,
    FeatureFunction,
    Preprocessing,
    default_layer,
)
from keras_lpd.metrics import Neighborhoods
from keras_lpd.neighbors import as_vectors, check_pooling
from keras_lpd.samples import Samples
from keras_lpd.teacher_cache import TeacherCache


@dataclasses.dataclass(frozen=True)
class View(Answers):
    """What a model makes of the samples, and which it is.

    Attributes:
        model: The model's name.
        layer: The layer that the features are of.
    """

    features: np.ndarray
    model: str
    layer: str


class WatchingCallback(keras.callbacks.Callback):
    """Looks at the same samples, with teacher and student, after some epochs.

    In `LPDistiller.fit` it takes the models, layers and settings of the distiller; in
    `fit` of a plain Keras model, that one is the student, and the others are given.
    Nothing that it does has an effect on the training.

    Args:
        dataset: The samples, held in memory: arrays `(x, y)`, or batches.
        k: How many neighbours.
        max_samples: How many samples of the data set are looked at, the first ones.
        every: After how many epochs; after the first in any case, and after the last
            one if it is known for that by then: not if a callback that comes later in
            the list stops the training.
        teacher: The teacher, where the model that is fitted has none.
        teacher_layer: The path of its feature layer.
        student_layer: The same for the student.
        teacher_features: For a subclassed teacher, `(model, inputs, training) ->
            (features, outputs)`.
        student_features: The same for a subclassed student.
        teacher_preprocessing: Makes of a batch what the teacher takes.
        pooling: `None`, `"avg"` or `"max"`: how feature maps become vectors. A
            distiller's own setting if it is left out.
    """

    def __init__(
        self,
        dataset: Any,
        k: int,
        max_samples: int,
        every: int,
        *,
        teacher: keras.Model | None = None,
        teacher_layer: str | None = None,
        student_layer: str | None = None,
        teacher_features: FeatureFunction | None = None,
        student_features: FeatureFunction | None = None,
        teacher_preprocessing: Preprocessing | None = None,
        pooling: str | None = None,
    ):
        super().__init__()
        self.k = as_integer("k", k, least=1)
        self.max_samples = as_integer("max_samples", max_samples, least=2)
        self.every = as_integer("every", every, least=1)
        if teacher is not None:
            check_model("teacher", teacher)
        check_pooling(pooling)
        self._dataset = dataset
        self._given_teacher = teacher
        self._layers = {"teacher": teacher_layer, "student": student_layer}
        self._functions = {"teacher": teacher_features, "student": student_features}
        self._preprocessing = teacher_preprocessing
        self._pooling = pooling

    # When it looks

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not hasattr(self, "samples"):
            self.samples = Samples.take(self._dataset, self.max_samples)
        if len(self.samples) <= 2 * self.k:
            raise ValueError(
                f"`dataset` has {len(self.samples)} samples, which is too few to tell "
                f"{self.k} neighbours from the others. Expected: more than "
                f"{2 * self.k}. Give more samples, or a smaller `k`."
            )
        self.teacher = self._teacher_view()
        self.teacher_neighborhoods = Neighborhoods.of(self.teacher.features, self.k)
        self._view_student = _viewing(self._extractor("student"), self._pooled)
        self.viewed: int | None = None
        self.epoch: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        if (
            epoch % self.every == 0
            or epoch + 1 == self.params.get("epochs")
            or self.model.stop_training
        ):
            self.look(epoch, logs)

    def look(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks now."""
        self.viewed = epoch
        student = self._view_student(self.samples.inputs)
        if np.isfinite(student.features).all():
            self.on_view(epoch, student, logs)
        else:
            warnings.warn(
                f"After epoch {epoch + 1} the student's features have NaN or infinite "
                f"values, so that {type(self).__name__} can tell nothing about them.",
                stacklevel=2,
            )

    def on_view(self, epoch: int, student: View, logs: dict[str, Any] | None) -> None:
        """Called with what the student makes of the samples by then."""
        raise NotImplementedError

    # What it looks at

    def _teacher_view(self) -> View:
        cache = getattr(self.model, "teacher", None)
        if self._given_teacher is None and isinstance(cache, TeacherCache):
            return self._cached_view(cache)
        extract = self._extractor("teacher")
        check_finite(extract.model)
        return _viewing(extract, self._pooled)(self.samples.inputs)

    def _cached_view(self, cache: TeacherCache) -> View:
        """What the samples have brought along, of a teacher that is not here."""
        taught = self.samples.taught
        if taught is None or taught.mark != cache.mark:
            raise ValueError(
                "The distiller's teacher is a cache, and `dataset` does not come with "
                "the features of that cache. Give `dataset=cache.attach(...)`, "
                "batched, or the teacher itself with `teacher=`."
            )
        layer = self._layers["teacher"] or self.model.teacher_layer
        layer = layer or cache.feature_layer
        if layer not in taught.features:
            raise ValueError(
                f"The cache has {cache.kept}, not the features of layer {layer!r}. "
                "Name one that it has with `teacher_layer=`."
            )
        features = np.asarray(as_vectors(taught.features[layer], self._pooled))
        outputs = taught.features.get(OUTPUTS)
        predicted = classes_of(outputs, cache.output_activation)
        return View(features, *predicted, cache.teacher_name, layer)

    def _extractor(self, role: str) -> FeatureExtractor:
        """The pass of a model to its features, on to its outputs."""
        layer, model = self._layers[role], self.model
        if role == "teacher" and self._given_teacher is not None:
            model = self._given_teacher
        elif isinstance(model, LPDistiller):
            return model.feature_extractor(role, layer)
        elif isinstance(model, keras.distillation.Distiller):
            model = getattr(model, role)
        elif role == "teacher":
            raise ValueError(
                f"`fit` of model '{model.name}' knows no teacher. Give "
                f"`{type(self).__name__}(..., teacher=teacher)`."
            )
        function = self._functions[role]
        layer = layer or default_layer(model, function)
        preprocessing = self._preprocessing if role == "teacher" else None
        return FeatureExtractor(
            model, [layer], function=function, preprocessing=preprocessing
        )

    @property
    def _pooled(self) -> str | None:
        if self._pooling is None and isinstance(self.model, LPDistiller):
            return self.model.pooling
        return self._pooling


def _viewing(extract: FeatureExtractor, pooling: str | None) -> Callable[[Any], View]:
    """A function from samples to what the extractor's model makes of them."""
    (layer,), answers = extract.layers, answering(extract, pooling)

    def view(inputs: Any) -> View:
        return View(**vars(answers(inputs)), model=extract.model.name, layer=layer)

    return view
