"""Quantisation aware training while distilling: a student learns to do with 8 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from keras_lpd.compress.bridge import Crossing, layer_at
from keras_lpd.compress.packages import load
from keras_lpd.compress.quantize_plan import Plan
from keras_lpd.compress.training import (
    KERNELS,
    CompressingDistiller,
    check_distiller,
    kernel_of,
)
from keras_lpd.distiller import LPDistiller
from keras_lpd.features import own_inputs
from keras_lpd.log import logger
from keras_lpd.taught import inputs_of


def quantize_aware(distiller: LPDistiller) -> QuantizingDistiller:
    """A distiller whose student learns as if it computed in 8 bits.

    Weights and results of layers are rounded to 256 values in the forward pass, as an
    int8 file will round them, and the student learns around it. The ranges of the
    results are taken from the first batch of `fit`, and follow slowly after that; the
    statistics of batch normalization are not touched by it.

    What `prune` made 0 stays 0. Of what `cluster` has found, every dense kernel keeps
    as many values, and every filter of a convolution: each of those is scaled by
    itself in an int8 file.

    Args:
        distiller: An `LPDistiller` with a student that is trained already, or what
            `prune` or `cluster` gave. Its student stays as it is.

    Returns:
        A `QuantizingDistiller`: `fit` goes on distilling, and `strip()` gives a
        tf_keras model to be converted to an int8 LiteRT file.

    Raises:
        TypeError: If it is no `LPDistiller`.
        ValueError: If a layer can't cross to tf_keras, or can't be quantised there, or
            the student does not compute in float32; names the layer.
        ImportError: If the extra `compress` is not installed.

    Example:

    >>> quantizing = quantize_aware(LPDistiller(teacher, student))
    >>> history = quantizing.fit(x_train, y_train, verbose=0)
    >>> model = quantizing.strip()

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", arXiv 1712.05877.
    """
    check_distiller(distiller, "quantize_aware", after=("prune", "cluster"))
    return QuantizingDistiller(distiller)


class QuantizingDistiller(CompressingDistiller):
    """A distiller whose student learns as if it computed in 8 bits.

    See `quantize_aware`.

    Args:
        distiller: Where teacher, losses and student are taken from.
    """

    def __init__(self, distiller: LPDistiller):
        self._keeps_zeros = "prune" in distiller.methods
        self._keeps_values = "cluster" in distiller.methods
        super().__init__(distiller, self._wrap, "quantize_aware")
        # Kept with the weights: those bring their ranges along.
        self._calibrated = self.student.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calibrated"
        )
        self._expected = {
            path: kernel_of(layer_at(self.crossing.source, path))
            for path in self._kernel_paths
        }

    @property
    def calibrated(self) -> bool:
        """Whether the ranges have been set, by `fit` or by `calibrate`."""
        return float(self._calibrated) > 0

    def calibrate(self, inputs: Any, batch_size: int = 128) -> None:
        """Sets the ranges of all layers' results to those seen on some samples.

        `fit` does it with its first batch, if it was not done before. Without either,
        the student gives next to nothing of what it knows.

        Args:
            inputs: What the student takes, some hundred samples of it.
            batch_size: How many are run at once. Defaults to 128.
        """
        rows = len(keras.tree.flatten(inputs)[0])
        batches = [
            keras.tree.map_structure(
                lambda x: tf.convert_to_tensor(x[start : start + batch_size]),  # noqa: B023
                inputs,
            )
            for start in range(0, rows, batch_size)
        ]
        self._calibrate(batches)

    def _calibrate(self, batches: list[Any]) -> None:
        for variable in self.student.inner.non_trainable_variables:
            if variable.name.endswith(("_min:0", "_max:0")):
                variable.assign(tf.zeros_like(variable))
        with _taking_all_values(self.student.inner):
            for batch in batches:
                self.student(batch, training=True)
        self._calibrated.assign(1.0)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step as of any distiller, after the ranges are set."""
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)

        def calibrate() -> tf.Tensor:
            self._calibrate([own_inputs(self.crossing.source, inputs_of(x))])
            return tf.constant(True)

        tf.cond(self._calibrated > 0, lambda: tf.constant(True), calibrate)
        return super().train_step(data)

    def strip(self) -> Any:
        """A tf_keras model that rounds as the int8 file will, to be converted.

        It shares its layers with the model that is trained here.

        Raises:
            ValueError: If it was neither fitted nor calibrated, or zeros or values of
                what was done before are lost.
        """
        self._check_kernels()
        inner, count = self.student.inner, len(self.crossing.source.outputs)
        outputs = inner.outputs[:count]
        return load("tf_keras").Model(inner.inputs, outputs, name=inner.name)

    def kernels(self) -> dict[str, np.ndarray]:
        """The kernels rounded to 8 bits, as the forward pass uses them, by paths."""
        if not self.calibrated:
            raise ValueError(
                f"Student '{self.student.name}' knows no ranges yet, and would give "
                "nonsense. `fit` first, or `calibrate(inputs)` with some hundred "
                "samples."
            )
        found = {}
        for path, wrapper in self._wrappers.items():
            (kernel, quantizer, ranges), *_ = wrapper._weight_vars
            found[path] = np.asarray(quantizer(kernel, False, weights=ranges))
        return found

    @property
    def _wrappers(self) -> dict[str, Any]:
        """The wrapped layers with kernels, by their paths."""
        paths = {name: path for path, name in self.crossing.names.items()}
        return {
            paths[layer.layer.name]: layer
            for layer in self.student.inner.layers
            if getattr(layer, "_weight_vars", None) and layer.layer.name in paths
        }

    @property
    def _kernel_paths(self) -> list[str]:
        return [
            path
            for path, wrapper in self._wrappers.items()
            if type(wrapper.layer).__name__ in KERNELS
        ]

    def _check_kernels(self) -> None:
        """Refuses a result in which what was done before is undone."""
        found = self.kernels()
        for path, before in self._expected.items():
            kernel = found[path]
            if self._keeps_zeros and np.any(kernel[before == 0]):
                raise ValueError(f"Layer '{path}' has lost zeros that `prune` made.")
            if self._keeps_values:
                most = len(np.unique(before))
                per_filter = kernel.reshape(-1, kernel.shape[-1]).T
                rows = per_filter if kernel.ndim == 4 else [kernel]
                if any(len(np.unique(row)) > most for row in rows):
                    raise ValueError(
                        f"Layer '{path}' has more values than the {most} that "
                        "`cluster` has found."
                    )

    # How it is made

    def _wrap(self, crossing: Crossing) -> Any:
        _check_precision(crossing)
        tfmot, tf_keras = load("tensorflow_model_optimization"), load("tf_keras")
        plan = Plan(crossing)
        quantization = tfmot.quantization.keras
        with quantization.quantize_scope():
            annotated = tf_keras.models.clone_model(
                crossing.model, clone_function=plan.annotated
            )
            model = quantization.quantize_apply(annotated, self._scheme())
        if self._keeps_values:
            _fix_derived_kernels(model)
        logger.info(
            "Quantising: %s.%s",
            ", ".join(plan.kernels),
            f" In float between two conversions: {', '.join(plan.in_float)}."
            if plan.in_float
            else "",
        )
        return model

    def _scheme(self) -> Any:
        tfmot = load("tensorflow_model_optimization")
        combine = tfmot.experimental.combine
        if self._keeps_values:
            return combine.Default8BitClusterPreserveQuantizeScheme(self._keeps_zeros)
        if self._keeps_zeros:
            return combine.Default8BitPrunePreserveQuantizeScheme()
        return tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme()


@contextlib.contextmanager
def _taking_all_values(model: Any) -> Iterator[None]:
    """Lets ranges grow to all values that come by, instead of following slowly.

    Meanwhile batch normalizations keep their statistics, and dropouts nothing back.
    """
    quantizers = load("tensorflow_model_optimization").quantization.keras.quantizers
    layers = [getattr(layer, "layer", layer) for layer in model.layers]
    norms = [one for one in layers if type(one).__name__ == "BatchNormalization"]
    drops = [one for one in layers if hasattr(one, "rate")]
    before = [one.trainable for one in norms], [one.rate for one in drops]
    for norm in norms:
        norm.trainable = False
    for drop in drops:
        drop.rate = 0.0
    try:
        with mock.patch.object(
            quantizers.MovingAverageQuantizer,
            "__call__",
            quantizers.AllValuesQuantizer.__call__,
        ):
            yield
    finally:
        for norm, trainable in zip(norms, before[0]):
            norm.trainable = trainable
        for drop, rate in zip(drops, before[1]):
            drop.rate = rate


def _fix_derived_kernels(model: Any) -> None:
    """Takes kernels that are made anew of their values in each step out of training.

    tfmot trains the values, and the choice among them, in variables of their own.
    """
    for wrapper in model.layers:
        for kernel, _, variables in getattr(wrapper, "_weight_vars", ()):
            if "cluster_centroids_tf" in variables:
                wrapper._trainable_weights = [
                    one for one in wrapper._trainable_weights if one is not kernel
                ]
                wrapper._non_trainable_weights.append(kernel)


def _check_precision(crossing: Crossing) -> None:
    for path in crossing.names:
        dtype = layer_at(crossing.source, path).compute_dtype
        if dtype != "float32":
            raise ValueError(
                f"Layer '{path}' of model '{crossing.source.name}' computes in "
                f"{dtype}; quantisation aware training is for students of float32. "
                "Build the student under the policy 'float32', and give it the "
                "weights: `float32_student.set_weights(student.get_weights())`."
            )
