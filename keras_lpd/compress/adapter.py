"""A Keras 3 model around a tf_keras model, to be trained as any other."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_lpd.compress.bridge import Crossing
from keras_lpd.features import graph_ends, own_inputs


class Adapter(keras.Model):
    """Runs a tf_keras model, and trains, saves and restores its weights.

    The variables of the tf_keras model are its weights: both sides share the storage.
    Without that a Keras 3 model would have no weights, and optimizers, `save_weights`
    and `EarlyStopping` would do nothing without a word.

    Regularizers and constraints are those of the Keras 3 model that crossed over.

    Args:
        crossing: How that model crossed over.
        model: `crossing.model`, or what tensorflow-model-optimization made of it: a
            model with the same inputs and outputs.

    Example:

    >>> from keras_lpd.compress.bridge import cross
    >>> crossing = cross(student)
    >>> adapter = Adapter(crossing, crossing.model)
    >>> adapter(x_train[:32]).shape
    TensorShape([32, 10])
    >>> len(adapter.trainable_weights) == len(student.trainable_weights)
    True
    """

    def __init__(self, crossing: Crossing, model: Any):
        super().__init__(name=crossing.source.name, dtype="float32", autocast=False)
        self.crossing = crossing
        self.inner = model
        self.supports_jit = False  # What tfmot adds has not been tried under XLA.
        trainable = {id(variable) for variable in model.trainable_variables}
        for variable in model.variables:
            self._share(variable, id(variable) in trainable)
        self._regularizers = {
            path: keras.layers.Activation("linear", activity_regularizer=regularizer)
            for path, regularizer in crossing.regularizers.items()
        }
        self.built = True

    def _share(self, variable: tf.Variable, trainable: bool) -> None:
        """Tracks a variable of the tf_keras model, as `keras.layers.TFSMLayer` does."""
        shared = keras.Variable(
            variable,
            trainable=trainable,
            dtype=variable.dtype.name,
            name=variable.name.split(":")[0].replace("/", "."),
        )
        if shared.value is not variable:
            raise RuntimeError(
                f"Keras {keras.__version__} copies variables of TensorFlow, where they "
                "have to be shared. Expected: a version of at least 3.12."
            )
        source = self.crossing.variables.get(variable.name)
        if source is not None:
            shared.regularizer = source.regularizer
            shared.constraint = source.constraint
        self._track_variable(shared)

    def call(
        self, inputs: Any, training: bool | None = None, with_features: bool = False
    ) -> Any:
        """Runs the tf_keras model.

        Args:
            inputs: What the Keras 3 model takes.
            training: Whether to run in training mode.
            with_features: Whether to give the features too.

        Returns:
            What the Keras 3 model gives; with `with_features` a pair of a dict of the
            features, by their layers' paths, and that.
        """
        source = self.crossing.source
        flat = keras.tree.flatten(own_inputs(source, inputs))
        found = self.inner(flat, training=bool(training))
        found = list(found) if isinstance(found, (list, tuple)) else [found]
        for loss in self.inner.losses:
            self.add_loss(loss)
        count = len(source.outputs)
        features = dict(zip(self.crossing.features, found[count:]))
        for path, regularize in self._regularizers.items():
            features[path] = regularize(features[path])
        _, expected = graph_ends(source)
        outputs = keras.tree.pack_sequence_as(expected, found[:count])
        return (features, outputs) if with_features else outputs

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            f"Student '{self.name}' is being compressed, and can't be saved as a whole "
            "meanwhile. Use `save_weights`, or save what the distiller's `strip()` "
            "gives."
        )


def features_of(
    adapter: Adapter, inputs: Any, training: bool
) -> tuple[dict[str, Any], Any]:
    """The `student_features` of a distiller whose student is an `Adapter`."""
    return adapter(inputs, training=training, with_features=True)
