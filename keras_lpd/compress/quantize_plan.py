"""Which layers are quantised in training, and how."""

from __future__ import annotations

from typing import Any

from keras_lpd.compress.bridge import Crossing
from keras_lpd.compress.packages import load
from keras_lpd.compress.training import KERNELS

_CONFIGS = (
    "tensorflow_model_optimization.python.core.quantization.keras.default_8bit."
    "default_8bit_quantize_configs"
)
_FOLDS_INTO = ("Conv2D", "DepthwiseConv2D", "Dense")
"""What a batch normalization that follows it becomes a part of."""

_KNOWN = {
    "Activation", "Add", "AveragePooling1D", "AveragePooling2D", "Concatenate",
    "Conv2D", "Conv2DTranspose", "Cropping1D", "Cropping2D", "Cropping3D", "Dense",
    "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalMaxPooling3D", "LeakyReLU", "MaxPooling2D",
    "Permute", "ReLU", "Reshape", "SeparableConv2D", "Softmax", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "UpSampling2D", "ZeroPadding1D",
    "ZeroPadding2D",
}  # fmt: skip
"""The layers that tfmot's 8-bit scheme knows."""

_ONLY_OUTPUT = {
    "Average", "ELU", "Maximum", "Minimum", "Multiply", "Normalization", "Rescaling",
    "Subtract",
}  # fmt: skip
"""Layers that are not in that scheme, whose results get a range of their own.

LiteRT computes some of them in float32, from int8 and back to it.
"""

_UNTOUCHED = {
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "MaxPooling1D", "RepeatVector",
}  # fmt: skip
"""Layers whose results are in the range of what they get."""

_ACTIVATIONS = {"linear", "relu", "softmax", "sigmoid", "tanh", "swish", "gelu"}
"""The activations of layers with a kernel that tfmot quantises."""


class Plan:
    """What tfmot is told to do with each layer of a crossed model.

    Args:
        crossing: How the student crossed over. Its tf_keras model is used up.
    """

    def __init__(self, crossing: Crossing):
        self.crossing = crossing
        self.tfmot, self.tf_keras = (
            load("tensorflow_model_optimization"),
            load("tf_keras"),
        )
        self.configs = load(_CONFIGS)
        self.paths = {name: path for path, name in crossing.names.items()}
        self.kernels: list[str] = []
        self.in_float: list[str] = []
        self.replaced: dict[str, Any] = {}
        for layer in crossing.model.layers:
            self._check(layer)
        for layer in crossing.model.layers:
            if type(layer).__name__ in {*_FOLDS_INTO, "SeparableConv2D"}:
                self._prepare_relu(layer)

    def annotated(self, layer: Any) -> Any:
        """The layer as it is to be quantised; the `clone_function` of a model."""
        layer = self.replaced.get(layer.name, layer)
        kind = type(layer).__name__
        if kind in KERNELS:
            self.kernels.append(self.paths.get(layer.name, layer.name))
        config = None
        if self._alone(layer) or kind in _ONLY_OUTPUT or self._other_activation(layer):
            config = self.configs.Default8BitOutputQuantizeConfig()
            self.in_float.append(f"{self.paths.get(layer.name, layer.name)} ({kind})")
        elif kind in _UNTOUCHED:
            config = self.configs.NoOpQuantizeConfig()
        return self.tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    def _check(self, layer: Any) -> None:
        """Refuses what tfmot can't quantise."""
        kind = type(layer).__name__
        if kind in {"InputLayer", "BatchNormalization"} | _ONLY_OUTPUT | _UNTOUCHED:
            return
        if kind not in _KNOWN:
            raise self._refusal(layer, "tensorflow-model-optimization has no way to.")
        activation = _activation(layer)
        if layer.weights and activation not in _ACTIVATIONS:
            raise self._refusal(
                layer,
                f"its activation is {activation!r}. Put that into a layer of its own.",
            )
        for after in _next(layer):
            normalizes = type(after).__name__ == "BatchNormalization"
            if layer.weights and activation != "linear" and normalizes:
                raise self._refusal(
                    layer,
                    f"its activation, {activation!r}, stands before the batch "
                    f"normalization '{self.paths[after.name]}', which can become a "
                    "part of it only if it follows at once. Put the activation into a "
                    "layer of its own, behind both.",
                )

    def _prepare_relu(self, layer: Any) -> None:
        """Keeps tfmot from leaving out a kernel that a `ReLU` follows.

        It takes both for one, and rounds the results of the one and the kernel of the
        other, which is to say: none. Here they are made one before.
        """
        following = _next(layer)
        if len(following) != 1 or _activation(layer) != "linear":
            return
        relu, layers = following[0], self.tf_keras.layers
        plain = _activation(relu) == "relu"
        if type(relu).__name__ == "ReLU":
            settings = (
                relu.max_value,
                float(relu.negative_slope),
                float(relu.threshold),
            )
            plain = settings == (None, 0.0, 0.0)
            if settings == (6.0, 0.0, 0.0):
                self.replaced[relu.name] = layers.Activation("relu6", name=relu.name)
            elif not plain:
                raise self._refusal(relu, "only plain ones and ReLU6 can be here.")
        if not plain:
            return
        if self._is_output(layer):
            self.replaced[relu.name] = layers.LeakyReLU(0.0, name=relu.name)
        else:
            layer.activation = self.tf_keras.activations.relu
            self.replaced[relu.name] = layers.Activation("linear", name=relu.name)

    def _alone(self, layer: Any) -> bool:
        """Whether it is a batch normalization that is part of nothing else."""
        if type(layer).__name__ != "BatchNormalization":
            return False
        before = layer._inbound_nodes[0].inbound_layers
        folds = type(before).__name__ in {*_FOLDS_INTO, "SeparableConv2D"}
        return not folds

    def _other_activation(self, layer: Any) -> bool:
        known = _ACTIVATIONS | {"relu6"}
        return type(layer).__name__ == "Activation" and _activation(layer) not in known

    def _is_output(self, layer: Any) -> bool:
        return any(layer.output is tensor for tensor in self.crossing.model.outputs)

    def _refusal(self, layer: Any, reason: str) -> ValueError:
        return ValueError(
            f"Layer '{self.paths.get(layer.name, layer.name)}' "
            f"({type(layer).__name__}) of model '{self.crossing.source.name}' can't be "
            f"quantised: {reason}"
        )


def _activation(layer: Any) -> str:
    """The name of a layer's activation, `"linear"` where it has none."""
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _next(layer: Any) -> list[Any]:
    """The layers that take what a layer gives."""
    return [node.outbound_layer for node in layer._outbound_nodes]
