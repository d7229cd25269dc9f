"""What a layer of Keras 3 is in tf_keras."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lpd.compress.packages import load
from keras_lpd.models.maxout import Maxout

_CONV = "filters kernel_size strides padding data_format dilation_rate groups use_bias"
_TRANSPOSED = _CONV.replace("groups", "output_padding")
_DEPTHWISE = (
    "kernel_size strides padding depth_multiplier data_format dilation_rate use_bias"
)
_POOL = "pool_size strides padding data_format"
_GLOBAL = "data_format keepdims"

_SETTINGS = {
    "Dense": "units use_bias",
    "Conv1D": _CONV,
    "Conv2D": _CONV,
    "Conv3D": _CONV,
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2DTranspose": _TRANSPOSED,
    "Conv3DTranspose": _TRANSPOSED,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "SeparableConv1D": f"filters {_DEPTHWISE}",
    "SeparableConv2D": f"filters {_DEPTHWISE}",
    "BatchNormalization": "axis momentum epsilon center scale",
    "LayerNormalization": "axis epsilon center scale",
    "GroupNormalization": "groups axis epsilon center scale",
    "UnitNormalization": "axis",
    "Rescaling": "scale offset",
    "ReLU": "max_value negative_slope threshold",
    "ELU": "alpha",
    "PReLU": "shared_axes",
    "Softmax": "axis",
    "MaxPooling1D": _POOL,
    "MaxPooling2D": _POOL,
    "MaxPooling3D": _POOL,
    "AveragePooling1D": _POOL,
    "AveragePooling2D": _POOL,
    "AveragePooling3D": _POOL,
    "GlobalMaxPooling1D": _GLOBAL,
    "GlobalMaxPooling2D": _GLOBAL,
    "GlobalMaxPooling3D": _GLOBAL,
    "GlobalAveragePooling1D": _GLOBAL,
    "GlobalAveragePooling2D": _GLOBAL,
    "GlobalAveragePooling3D": _GLOBAL,
    "ZeroPadding1D": "padding",
    "ZeroPadding2D": "padding data_format",
    "ZeroPadding3D": "padding data_format",
    "Cropping1D": "cropping",
    "Cropping2D": "cropping data_format",
    "Cropping3D": "cropping data_format",
    "UpSampling1D": "size",
    "UpSampling2D": "size data_format interpolation",
    "UpSampling3D": "size data_format",
    "Add": "",
    "Subtract": "",
    "Multiply": "",
    "Average": "",
    "Maximum": "",
    "Minimum": "",
    "Concatenate": "axis",
    "Dot": "axes normalize",
    "Flatten": "data_format",
    "Reshape": "target_shape",
    "Permute": "dims",
    "RepeatVector": "n",
    "Dropout": "rate noise_shape",
    "SpatialDropout1D": "rate",
    "SpatialDropout2D": "rate data_format",
    "SpatialDropout3D": "rate data_format",
    "GaussianDropout": "rate",
    "GaussianNoise": "stddev",
    "AlphaDropout": "rate noise_shape",
}
"""Layers that have the same name on both sides, and the settings that cross."""

_ONLY_IN_TRAINING = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.AlphaDropout,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
"""Layers that hand on what they get, in inference."""


class Counterparts:
    """Makes tf_keras layers out of Keras 3 layers, without their weights.

    Args:
        model: The Keras 3 model, to be named in refusals.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.tf_keras = load("tf_keras")
        self._taken: set[str] = set()

    def check(self, layer: keras.Layer, path: str) -> None:
        """Refuses what has no counterpart."""
        kind = type(layer).__name__
        if not isinstance(layer, keras.Layer):
            reason = (
                f"it is an operation of `keras.ops` ({kind}), not a layer. Use a layer "
                "in its place, such as `keras.layers.Add` or `Rescaling`."
            )
        elif isinstance(layer, keras.layers.Lambda):
            reason = "a Lambda can't be looked into. Use layers in its place."
        elif isinstance(layer, keras.Model):
            reason = "it is a subclassed model, whose layers can't be looked into."
        elif "image_preprocessing" in type(layer).__module__:
            reason = (
                "it prepares or augments images. Do that in the data pipeline, before "
                "the student, and leave it out here."
            )
        elif type(layer) is Maxout or type(layer) is getattr(keras.layers, kind, None):
            if kind in _SETTINGS or kind in _SPECIAL:
                return
            known = hasattr(self.tf_keras.layers, kind)
            reason = "it isn't provided for here." if known else "tf_keras has none."
            reason += " Use another layer."
        else:
            reason = "it is a custom layer. Use layers of Keras in its place."
        raise self.refusal(path, layer, reason)

    def of(self, layer: keras.Layer, path: str, inference: bool = False) -> list[Any]:
        """The tf_keras layers that do together what the layer does, in their order.

        If it has weights, they belong to the first.

        Args:
            layer: The Keras 3 layer.
            path: Its path, which makes the names of the new ones.
            inference: Whether it is always run in inference mode.
        """
        if inference and isinstance(layer, _ONLY_IN_TRAINING):
            return self._identity(layer, path)
        kind = type(layer).__name__
        if kind in _SPECIAL:
            return _SPECIAL[kind](self, layer, path)
        if getattr(layer, "rms_scaling", False):
            raise self.refusal(path, layer, "tf_keras has no `rms_scaling`.")
        config = layer.get_config()
        settings = {key: config[key] for key in _SETTINGS[kind].split()}
        if "activation" in config:
            settings["activation"] = self._activation(layer, path)
        return [self._make(kind, path, **settings)]

    def _activation(self, layer: keras.Layer, path: str) -> str:
        """The name of the layer's activation, if tf_keras knows it."""
        name = layer.get_config()["activation"]
        known = isinstance(name, str) and hasattr(keras.activations, name)
        try:
            if not known:
                raise ValueError
            self.tf_keras.activations.get(name)
        except ValueError:
            shown = name if known else getattr(layer.activation, "__name__", name)
            raise self.refusal(
                path, layer, f"tf_keras has no activation {shown!r}."
            ) from None
        return "swish" if name == "silu" else name

    def _make(self, kind: str, path: str, **settings: Any) -> Any:
        name = scope_name(path)
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        make = getattr(self.tf_keras.layers, kind)
        return make(**settings, name=name, dtype="float32")

    # Layers that are something else on the other side

    def _activation_layer(self, layer: keras.Layer, path: str) -> list[Any]:
        name = self._activation(layer, path)
        if name == "relu6":  # What MobileNets have: known to all that comes after.
            return [self._make("ReLU", path, max_value=6.0)]
        return [self._make("Activation", path, activation=name)]

    def _leaky_relu(self, layer: keras.Layer, path: str) -> list[Any]:
        return [self._make("LeakyReLU", path, alpha=float(layer.negative_slope))]

    def _normalization(self, layer: keras.Layer, path: str) -> list[Any]:
        if getattr(layer, "invert", False):
            raise self.refusal(path, layer, "`invert=True` can't cross.")
        mean, variance = np.asarray(layer.mean), np.asarray(layer.variance)
        shape = layer.mean.shape
        kept = [size for size in shape if size != 1] or [1]
        settings = {"mean": mean.reshape(kept), "variance": variance.reshape(kept)}
        axis = layer.axis or None
        return [self._make("Normalization", path, axis=axis, **settings)]

    def _identity(self, layer: keras.Layer, path: str) -> list[Any]:
        return [self._make("Activation", path, activation="linear")]

    def _maxout(self, layer: Maxout, path: str) -> list[Any]:
        """The pieces side by side, a pooling over them, and the shape as before."""
        *space, units = layer.output.shape[1:]
        if None in space or (
            space and keras.config.image_data_format() == "channels_first"
        ):
            raise self.refusal(
                path,
                layer,
                f"its output of shape {tuple(layer.output.shape)} has to be of known "
                "size, with channels last.",
            )
        pieces = layer.pieces
        count = math.prod(space)
        return [
            self._make(
                "Reshape", f"{path}_pieces", target_shape=(count, pieces, units)
            ),
            self._make(
                "MaxPooling2D", f"{path}_pool", pool_size=(1, pieces), padding="valid"
            ),
            self._make("Reshape", path, target_shape=(*space, units)),
        ]

    def refusal(self, path: str, operation: Any, reason: str) -> ValueError:
        return ValueError(
            f"Layer '{path}' ({type(operation).__name__}) of model "
            f"'{self.model.name}' can't cross to tf_keras, which "
            f"tensorflow-model-optimization needs: {reason}"
        )


_SPECIAL: dict[str, Callable[[Counterparts, Any, str], list[Any]]] = {
    "Activation": Counterparts._activation_layer,
    "ActivityRegularization": Counterparts._identity,
    "Identity": Counterparts._identity,
    "LeakyReLU": Counterparts._leaky_relu,
    "Maxout": Counterparts._maxout,
    "Normalization": Counterparts._normalization,
}


def scope_name(path: str) -> str:
    """A path as TensorFlow takes it for the name of a scope."""
    name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", path)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
