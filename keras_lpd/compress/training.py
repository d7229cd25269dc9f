"""What pruning, clustering and quantising share: a distiller that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lpd.compress.adapter import Adapter, features_of
from keras_lpd.compress.bridge import TOLERANCE, Crossing, apart, cross, layer_at
from keras_lpd.compress.packages import load
from keras_lpd.distiller import LPDistiller
from keras_lpd.log import logger

KERNELS = {
    "Dense": "kernel",
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv3D": "kernel",
    "Conv2DTranspose": "kernel",
    "Conv3DTranspose": "kernel",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}
"""Layers that are pruned and clustered, and the weight that it is done to."""


class CompressingDistiller(LPDistiller):
    """A distiller whose student is being compressed while it learns.

    `prune`, `cluster` and `quantize_aware` make it out of an `LPDistiller`. It has the
    teacher, the losses, their weights and settings of that one; its student is an
    `Adapter`, with a copy of the weights. The losses are the same objects: what they
    train themselves goes on from where it is.

    It is compiled and fitted as an `LPDistiller`; `fit` adds what
    tensorflow-model-optimization wants to be called meanwhile. `save_weights` keeps
    all that is needed to go on; the whole can't be saved.

    Args:
        distiller: Where teacher, losses and student are taken from.
        wrap: Makes of how the student crossed over what is trained, a tf_keras model.
        method: What is done: `"prune"`, `"cluster"` or `"quantize_aware"`.

    Attributes:
        methods: What was done, in its order.
    """

    def __init__(
        self,
        distiller: LPDistiller,
        wrap: Callable[[Crossing], Any],
        method: str,
    ):
        crossing = cross(student_of(distiller), distiller._student.layers)
        super().__init__(
            student=Adapter(crossing, wrap(crossing)),
            student_features=features_of,
            **distiller._arguments(),
            name=distiller.name,
        )
        self.methods = (*distiller.methods, method)

    @property
    def crossing(self) -> Crossing:
        """How the student crossed over."""
        return self.student.crossing

    def strip(self) -> Any:
        """The result, without what was put around it.

        Returns:
            A new Keras 3 student, of the layers of the first one; after
            `quantize_aware` a tf_keras model to be converted.

        Raises:
            ValueError: If it does not give what the trained model gives.
        """
        student = self.crossing.back(self._stripped())
        distance = apart(self.crossing, self.student.inner, student)
        if distance > TOLERANCE:
            raise ValueError(
                f"The stripped student '{student.name}' does not give what the trained "
                f"one gives: outputs differ by {distance:.1e} of the largest. "
                f"Expected: at most {TOLERANCE:.0e}."
            )
        return student

    def kernels(self) -> dict[str, np.ndarray]:
        """The kernels that are compressed as they come out, by their layers' paths."""
        student = self.strip()
        return {path: kernel_of(layer_at(student, path)) for path in self._kernel_paths}

    def _stripped(self) -> Any:
        """The tf_keras model with the layers of `self.crossing.model`."""
        raise NotImplementedError

    @property
    def _kernel_paths(self) -> list[str]:
        """The paths of the layers that are compressed."""
        raise NotImplementedError

    # Training

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the student further; see `LPDistiller.fit`."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "Students are compressed on one device; here are "
                f"{self.distribute_strategy.num_replicas_in_sync}. Distil on all of "
                "them first, then compress the student outside of `strategy.scope()`."
            )
        ours = self._callbacks()
        # Ours come first: the others see, and save, what ours leave.
        if isinstance(callbacks, keras.callbacks.CallbackList):
            for callback in ours:
                callback.set_model(self)
                callback.set_params(callbacks.params)
            callbacks.callbacks[:0] = ours
        else:
            callbacks = [*ours, *keras.tree.flatten(callbacks or [])]
        return super().fit(
            x, y, batch_size, epochs, verbose, callbacks=callbacks, **kwargs
        )

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        return []

    @property
    def _student_graph(self) -> keras.Model:
        return self.crossing.source

    # What can't be done meanwhile

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the result of `strip()` is what is exported."""
        raise NotImplementedError(
            "The student is being compressed. Export what `strip()` gives."
        )

    def get_config(self) -> dict[str, Any]:
        return self.student.get_config()  # which says what to do


def check_distiller(distiller: Any, method: str, after: tuple[str, ...]) -> None:
    """Refuses what is no distiller, or can't be compressed that way any more.

    Args:
        distiller: What the user gave.
        method: What is to be done.
        after: What may have been done before.
    """
    if not isinstance(distiller, LPDistiller):
        raise TypeError(
            f"`{method}` takes an `LPDistiller`. Received: {distiller!r} of type "
            f"{type(distiller).__module__}.{type(distiller).__name__}. Make one of "
            "teacher and student: `LPDistiller(teacher, student)`."
        )
    if not set(distiller.methods) <= set(after):
        raise ValueError(
            f"`{method}` can't follow on {' and '.join(distiller.methods)}: it would "
            "undo it. The order is: prune, cluster, quantize_aware, of which each may "
            "be left out."
        )
    function = distiller._student.function
    if function is not None and function is not features_of:
        raise ValueError(
            f"`{method}` builds the student again, where the distiller's "
            "`student_features` can't look into it. Make the distiller with "
            "`student_layer=`, the name of a layer."
        )


def student_of(distiller: LPDistiller) -> keras.Model:
    """The Keras 3 student of a distiller, stripped if it is being compressed."""
    if isinstance(distiller, CompressingDistiller):
        return distiller.strip()
    return distiller.student


def kernel_of(layer: Any) -> np.ndarray:
    """The kernel of a layer of either Keras that has one in `KERNELS`."""
    return np.asarray(getattr(layer, KERNELS[type(layer).__name__]))


def wrap_kernels(crossing: Crossing, wrap: Callable[[Any], Any], doing: str) -> Any:
    """The crossed model with some layers wrapped: those with kernels that are trained.

    The new model shares the layers of the old one, which is used up by it.

    Args:
        crossing: How the student crossed over.
        wrap: Wraps a layer, or gives it back.
        doing: For the log: what is done to them.
    """
    tf_keras = load("tf_keras")
    paths = {name: path for path, name in crossing.names.items()}
    wrapped, left = [], []

    def clone(layer: Any) -> Any:
        kind, path = type(layer).__name__, paths.get(layer.name, layer.name)
        if kind in KERNELS and layer.trainable:
            found = wrap(layer)
            if found is not layer:
                wrapped.append(path)
                return found
        if any("kernel" in weight.name for weight in layer.weights):
            left.append(f"{path} ({kind}{'' if layer.trainable else ', frozen'})")
        return layer

    model = tf_keras.models.clone_model(crossing.model, clone_function=clone)
    if not wrapped:
        raise ValueError(
            f"Nothing of model '{crossing.source.name}' is there for {doing}: it has "
            f"none of the layers {', '.join(sorted(KERNELS))} that are trainable."
        )
    logger.info(
        "%s: %s.%s",
        doing.capitalize(),
        ", ".join(wrapped),
        f" Left as they are: {', '.join(left)}." if left else "",
    )
    return model
