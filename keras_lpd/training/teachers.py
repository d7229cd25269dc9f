"""Where a teacher's features come from: a model that runs, or the data themselves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_lpd.checks import (
    check_finite,
    check_head,
    check_model,
    check_outputs,
    check_pair,
    check_preprocessed,
    names_inputs,
)
from keras_lpd.features import (
    OUTPUTS,
    FeatureExtractor,
    FeatureFunction,
    Preprocessing,
    default_layer,
    graph_ends,
    in_words,
    is_graph,
    output_activation,
    own_inputs,
)
from keras_lpd.fingerprint import fingerprint
from keras_lpd.refusals import require_finite
from keras_lpd.taught import Taught, split
from keras_lpd.teacher_cache import TeacherCache
from keras_lpd.training.terms import Term


class RunningTeacher:
    """A model that runs on each batch, unless the batch brings its features along.

    Args:
        model: The model. It stays in this plain object, untracked by Keras.
        function: Gives the features of a model that is no graph.
        preprocessing: Makes of a batch what the model takes.
    """

    def __init__(
        self,
        model: keras.Model,
        function: FeatureFunction | None = None,
        preprocessing: Preprocessing | None = None,
    ):
        check_model("teacher", model)
        self.source = model
        self.name = model.name
        self.output_activation = output_activation(model)
        self.preprocessing = preprocessing
        self._function = function
        self._asked = _Asked()
        self._fingerprint = ""
        self._extract = FeatureExtractor(
            model, function=function, preprocessing=preprocessing
        )

    @property
    def feature_layer(self) -> str:
        return default_layer(self.source, self._function)

    def shape(self, layer: str) -> tuple[int | None, ...] | None:
        """The shape of what it gives for a layer, batch axis first, where known."""
        return self._extract.shape(layer)

    def prepare(
        self, terms: Sequence[Term], layer: str | None, student: keras.Model
    ) -> None:
        """Gets ready to give what the losses ask for, `layer` if they name none."""
        check_pair(self.source, student, alike=self.preprocessing is None)
        self._check_preprocessing(student)
        check_head(self.source, [term.loss for term in terms])
        self._asked = asked = _Asked(terms, layer)
        if asked.compares_outputs and is_graph(self.source):
            shapes = [tuple(output.shape) for output in self.source.outputs]
            check_outputs(self.name, shapes, student)
        layers = [key for key in asked.keys if key != OUTPUTS]
        self._extract = self.extractor(layers, outputs=OUTPUTS in asked.keys)

    def extractor(self, layers: Sequence[str], outputs: bool) -> FeatureExtractor:
        """One pass of the model on what it makes of a batch."""
        return FeatureExtractor(
            self.source,
            layers,
            outputs=outputs,
            function=self._function,
            preprocessing=self.preprocessing,
        )

    def _check_preprocessing(self, student: keras.Model) -> None:
        """Tries the preprocessing on what the student takes, as far as that is known.

        Where the student takes a part of a dict, the rest is not.
        """
        if self.preprocessing is None or not is_graph(student):
            return
        inputs, _ = graph_ends(student)
        if not is_graph(self.source) or isinstance(inputs, dict):
            return
        specs = keras.tree.map_structure(
            lambda one: tf.TensorSpec(one.shape, one.dtype), inputs
        )
        try:
            traced = tf.function(self._extract.preprocessed)
            made = traced.get_concrete_function(specs).structured_outputs
        except Exception as error:
            if names_inputs(student):
                return
            raise ValueError(
                "`teacher_preprocessing` fails on the student's inputs, "
                f"{specs} ({type(error).__name__}: {error})."
            ) from error
        check_preprocessed(self.source, own_inputs(self.source, made))

    def check(self) -> None:
        """Refuses what can't teach, before each training."""
        check_finite(self.source)

    def has_changed(self) -> bool:
        """Whether it is another than when this was last asked.

        A compiled training step holds the fingerprint of the teacher it was made with.
        """
        before, self._fingerprint = self._fingerprint, fingerprint(self.source)
        return before not in ("", self._fingerprint)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        """The inputs of a batch by themselves, and the features by their keys."""
        taught = split(x)
        if taught is None:
            found = self._extract(x, training=False)
            return x, {key: self._checked(key, found[key]) for key in self._asked.keys}
        if not self._fingerprint:
            with tf.init_scope():  # A graph in the making can't look at weights.
                self._fingerprint = fingerprint(self.source)
        if not taught.mark.made_by(self._fingerprint):
            raise ValueError(
                "The features that come with the data are another teacher's: the "
                f"weights or layers of '{self.name}' differ from those of the teacher "
                "that the cache was built with. Build a cache with this one, or make "
                "the distiller with that cache in place of the teacher."
            )
        return taught.inputs, self._asked.take(taught)

    def describe(self, layer: str) -> str:
        return self._extract.describe(layer)

    def _checked(self, key: str, features: Any) -> Any:
        check = functools.partial(
            require_finite,
            message="The teacher's features have NaN or infinite values "
            f"({in_words(key)} of model '{self.name}'). Check that its weights are "
            "sound, and that the inputs are preprocessed as it expects "
            "(`teacher_preprocessing=`).",
        )
        return keras.tree.map_structure(check, features)


class CachedTeacher:
    """A cache: there is no model, the features come with the data.

    Args:
        cache: The cache.
    """

    def __init__(self, cache: TeacherCache):
        self.source = cache
        self.preprocessing = None
        self.name = cache.teacher_name
        self.output_activation = cache.output_activation
        self._asked = _Asked()

    @property
    def feature_layer(self) -> str:
        if self.source.feature_layer is None:
            raise ValueError(
                f"The teacher cache {self.source.path} has {self.source.kept}. Name "
                "the one to use with `teacher_layer=`."
            )
        return self.source.feature_layer

    def shape(self, layer: str) -> tuple[int | None, ...] | None:
        """The shape of what it gives for a layer, batch axis first, where known."""
        return (None, *self.source.shape(layer))

    def prepare(
        self, terms: Sequence[Term], layer: str | None, student: keras.Model
    ) -> None:
        """Checks that the cache has what the losses ask for."""
        self._asked = asked = _Asked(terms, layer)
        asked.check(self.source, self.source.mark.flattened)
        if asked.compares_outputs:
            check_outputs(self.name, [(None, *self.source.shape(OUTPUTS))], student)

    def check(self) -> None:
        """Refuses what can't teach; a cache was checked when it was opened."""

    def has_changed(self) -> bool:
        """Whether it is another than when this was last asked: a cache never is."""
        return False

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        """The inputs of a batch by themselves, and the features by their keys."""
        taught = split(x)
        if taught is None:
            raise ValueError(
                "The distiller's teacher is a cache, but the data come without its "
                "features. Train on `cache.attach(dataset)`, and shuffle and batch "
                "after that."
            )
        if taught.mark != self.source.mark:
            raise ValueError(
                "The features that come with the data are of another cache. Expected: "
                f"{self.source.mark}. Received: {taught.mark}. Attach the cache that "
                "the distiller was made with."
            )
        return taught.inputs, self._asked.take(taught)

    def describe(self, layer: str) -> str:
        shape = "x".join(map(str, self.source.shape(layer)))
        return f"'{layer}' of the cache of '{self.name}' ({shape} wide)"


Teacher = RunningTeacher | CachedTeacher


class _Asked:
    """What the losses ask of a teacher."""

    def __init__(self, terms: Sequence[Term] = (), layer: str | None = None):
        self.keys = list(dict.fromkeys(term.key("teacher", layer) for term in terms))
        self.compares_outputs = any(term.compares_outputs for term in terms)
        self.needs_maps = any(term.needs_maps for term in terms)

    def take(self, taught: Taught) -> dict[str, Any]:
        """The features asked for out of those that were brought along."""
        self.check(taught.features, taught.mark.flattened)
        return {key: ops.cast(taught.features[key], "float32") for key in self.keys}

    def check(self, kept: Any, flattened: bool) -> None:
        """Refuses what was brought along, if it is not what was asked for."""
        missing = [key for key in self.keys if key not in kept]
        if missing:
            names = ", ".join(map(in_words, missing))
            raise ValueError(
                f"The losses ask for {names} of the teacher, which the cache does not "
                "have. Build one with `layers=[...]` or `outputs=True`."
            )
        if flattened and self.needs_maps:
            raise ValueError(
                "A loss has `pooling` or compares feature maps, but the cache's were "
                "flattened to be projected. Leave `pooling` out, take another loss, or "
                "build the cache without `project`."
            )
