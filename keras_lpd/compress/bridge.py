"""From Keras 3 to tf_keras and back: the same layers with the same weights.

tensorflow-model-optimization works on tf_keras, the Keras 2 that lives on beside
Keras 3. No file format leads from one to the other, so a model is built again layer
by layer, nested models flattened, and compared with the first one by numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_lpd.checks import check_model
from keras_lpd.compress.counterparts import Counterparts, scope_name
from keras_lpd.compress.packages import load
from keras_lpd.features import (
    FeatureExtractor,
    feature_shape,
    graph_ends,
    is_graph,
    node_behind,
)

TOLERANCE = 1e-4
"""How far outputs may lie apart, relative to the largest of them."""


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A model on both sides.

    Args:
        source: The Keras 3 model.
        model: The tf_keras model. Its inputs and outputs are flat lists: the outputs
            are those of `source`, and after them the features of `features`.
        features: Paths of layers of `source`.
        names: What each of its layers is called in `model`, by their paths.
        variables: The variables of `source`, by the names of those in `model`.
        regularizers: What regularizes the outputs of some among `features`.
    """

    source: keras.Model
    model: Any
    features: tuple[str, ...]
    names: dict[str, str]
    variables: dict[str, keras.Variable]
    regularizers: dict[str, Any]

    def back(self, model: Any) -> keras.Model:
        """A new Keras 3 model like `source`, with the weights of a tf_keras model.

        Args:
            model: A model with layers of the names of those in `self.model`.
        """
        found = keras.models.clone_model(self.source)
        found.set_weights(self.source.get_weights())
        for path, name in self.names.items():
            weights = model.get_layer(name).get_weights()
            if weights:
                layer_at(found, path).set_weights(weights)
        return found


def cross(model: keras.Model, features: Iterable[str] = ()) -> Crossing:
    """Builds a Keras 3 model again in tf_keras, with the same weights.

    Both are run on the same random inputs, in inference mode. The difference is the
    largest between any two outputs that belong together, divided by the largest
    output; it has to be at most 1e-4, and is some 1e-7 as a rule.

    The new model computes in float32, whatever the precision of the first one. The
    regularizers of the first one are left behind; `Adapter` applies them.

    Args:
        model: A built Functional or Sequential model. It stays as it is.
        features: Paths of layers whose outputs the new model gives too.

    Returns:
        A `Crossing`.

    Raises:
        ValueError: If a layer can't cross, or the outputs differ; names the layer.
        ImportError: If tf-keras is not installed.

    Example:

    >>> crossing = cross(student, features=["features"])
    >>> len(crossing.model.outputs)
    2
    >>> copy = crossing.back(crossing.model)
    >>> np.array_equal(copy.get_weights()[0], student.get_weights()[0])
    True
    """
    check_model("student", model)
    features = tuple(dict.fromkeys(features))
    for path in features:
        feature_shape(model, path)
    crossing = _Builder(model).build(features)
    _check_parity(crossing)
    return crossing


def difference(one: Any, other: Any) -> float:
    """The largest difference of two arrays, relative to the largest value of `one`."""
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    if not one.size:
        return 0.0
    distance = float(np.max(np.abs(one - other)))
    if distance == 0.0:
        return 0.0
    largest = float(np.max(np.abs(one)))
    return distance / largest if largest else math.inf


def apart(crossing: Crossing, model: Any, source: keras.Model) -> float:
    """The `difference` of the outputs of a tf_keras and a Keras 3 model, in inference.

    Args:
        crossing: How the Keras 3 model, or one like it, crossed over.
        model: A tf_keras model with the inputs and outputs of `crossing.model`.
        source: A Keras 3 model like `crossing.source`.
    """
    source, inputs = _float32_copy(source), probe(crossing)
    ours = keras.tree.flatten(source(_packed(source, inputs), training=False))
    theirs = model(inputs, training=False)
    theirs = theirs if isinstance(theirs, (list, tuple)) else [theirs]
    return max(difference(*pair) for pair in zip(ours, theirs))


def layer_at(model: keras.Model, path: str) -> keras.Layer:
    """The layer at a path, which may lead into nested models."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


def probe(crossing: Crossing, rows: int = 8) -> list[np.ndarray]:
    """Random inputs, one array for each input of the models.

    Half of the rows lie evenly in [0, 1], as images do, half are normally
    distributed; behind a `Rescaling` they are, that is: before it they are wider.
    """
    random = np.random.default_rng(0)
    found = []
    for tensor in crossing.source.inputs:
        count = tensor.shape[0] or rows
        shape = [32 if size is None else size for size in tensor.shape[1:]]
        scale = _reach(crossing.source, tensor)
        even = random.uniform(0.0, 1.0, (count // 2, *shape))
        normal = random.normal(size=(count - count // 2, *shape))
        values = scale * np.concatenate([even, normal])
        found.append(values.astype(tensor.dtype))
    return found


class _Builder:
    """Makes the layers of one model.

    Args:
        model: The Keras 3 model.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.counterparts = Counterparts(model)
        self.crossed: set[int] = set()
        self.names: dict[str, str] = {}
        self.variables: dict[str, keras.Variable] = {}
        self.tensors: dict[str, Any] = {}
        self.regularizers: dict[str, Any] = {}

    def build(self, features: tuple[str, ...]) -> Crossing:
        if not is_graph(self.model):
            raise ValueError(
                f"Model '{self.model.name}' can't cross to tf_keras, which "
                "tensorflow-model-optimization needs: it is a subclassed model "
                f"({type(self.model).__name__}), whose layers can't be looked into. "
                "Build it as a Functional or Sequential one."
            )
        tf_keras = load("tf_keras")
        inputs = [
            tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=f"input_{number}")
            for number, tensor in enumerate(self.model.inputs, 1)
        ]
        outputs = self._cross(self.model, inputs)
        features = tuple(dict.fromkeys([*features, *self.regularizers]))
        outputs += [self.tensors[path] for path in features]
        return Crossing(
            self.model,
            tf_keras.Model(inputs, outputs, name=scope_name(self.model.name)),
            features,
            self.names,
            self.variables,
            self.regularizers,
        )

    def _cross(
        self,
        model: keras.Model,
        inputs: Sequence[Any],
        around: str = "",
        inference: bool = False,
    ) -> list[Any]:
        """Makes the layers of a model, or of one nested in it, on symbolic inputs.

        Args:
            model: The Keras 3 model.
            inputs: The tf_keras tensors that go into it.
            around: The path of the model, with a slash.
            inference: Whether it is called with `training=False`.
        """
        made = {id(key): value for key, value in zip(model.inputs, inputs)}
        for node in _in_order(model):
            operation, path = node.operation, around + node.operation.name
            if not is_graph(operation):
                self.counterparts.check(operation, path)
            given = [made[id(tensor)] for tensor in node.input_tensors]
            within = self._call_arguments(node, path, inference)
            if is_graph(operation):
                results = self._cross(operation, given, f"{path}/", within)
            else:
                results = [self._layer(operation, path, given, within)]
            if len(results) == 1:
                self.tensors[path] = results[0]
            made.update({id(key): one for key, one in zip(node.outputs, results)})
        return [made[id(tensor)] for tensor in model.outputs]

    def _call_arguments(self, node: Any, path: str, inference: bool) -> bool:
        """Whether the call is fixed to inference; other arguments are refused."""
        settings = dict(node.arguments.kwargs)
        fixed = settings.pop("training", None)
        given = [*node.arguments.args, *settings.values()]
        tensors = [one for one in keras.tree.flatten(given) if one is not None]
        if fixed or not all(map(keras.utils.is_keras_tensor, tensors)):
            raise self.counterparts.refusal(
                path,
                node.operation,
                f"it is called with arguments of its own ({node.arguments.kwargs}); "
                "only its inputs and `training=False` can cross.",
            )
        return inference or fixed is False

    def _layer(
        self, layer: keras.Layer, path: str, inputs: list[Any], inference: bool
    ) -> Any:
        """Makes one layer, gives it its weights, and calls it."""
        if id(layer) in self.crossed:
            raise self.counterparts.refusal(
                path,
                layer,
                "it is called more than once. Give each call a layer of its own.",
            )
        self.crossed.add(id(layer))
        first, *others = self.counterparts.of(layer, path, inference)
        # Batch statistics that are fixed by the call are fixed for good.
        fixed = inference and isinstance(layer, keras.layers.BatchNormalization)
        first.trainable = layer.trainable and not fixed
        tensor = first(inputs if len(inputs) > 1 else inputs[0])
        for other in others:
            tensor = other(tensor)
        if first.weights:
            self._set_weights(layer, path, first)
        self.names[path] = (first if first.weights else (first, *others)[-1]).name
        if layer.activity_regularizer is not None:
            self.regularizers[path] = layer.activity_regularizer
        return tensor

    def _set_weights(self, layer: keras.Layer, path: str, counterpart: Any) -> None:
        values = [np.asarray(value, "float32") for value in layer.get_weights()]
        shapes = [value.shape for value in values]
        expected = [tuple(weight.shape) for weight in counterpart.weights]
        if shapes != expected:
            raise self.counterparts.refusal(
                path,
                layer,
                f"its weights have the shapes {shapes}, where tf_keras has {expected}. "
                "Quantised layers and LoRA can't cross.",
            )
        counterpart.set_weights(values)
        pairs = zip(counterpart.weights, layer.weights)
        self.variables.update({ours.name: theirs for ours, theirs in pairs})


def _in_order(model: keras.Model) -> list[Any]:
    """The calls in a model's graph, each behind those it depends on."""
    inputs = {id(tensor) for tensor in model.inputs}

    def before(node: Any) -> list[Any]:
        tensors = [one for one in node.input_tensors if id(one) not in inputs]
        return [node_behind(tensor) for tensor in tensors]

    ordered: list[Any] = []
    seen: set[int] = set()
    waiting = [
        node_behind(one) for one in reversed(model.outputs) if id(one) not in inputs
    ]
    while waiting:
        node = waiting[-1]
        missing = [one for one in before(node) if id(one) not in seen]
        if missing:
            waiting += reversed(missing)
            continue
        waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            ordered.append(node)
    return ordered


def _reach(model: keras.Model, tensor: Any) -> float:
    """About the largest value that an input is made for, as far as one sees."""
    for node in _in_order(model):
        if not any(one is tensor for one in node.input_tensors):
            continue
        layer = node.operation
        if is_graph(layer):
            index = [one is tensor for one in node.input_tensors].index(True)
            return _reach(layer, layer.inputs[index])
        if isinstance(layer, keras.layers.Rescaling):
            return 1.0 / max(float(np.max(np.abs(layer.scale))), 1e-6)
        if isinstance(layer, keras.layers.Normalization):
            deviation = np.sqrt(np.asarray(layer.variance))
            return float(np.max(np.abs(np.asarray(layer.mean)) + deviation))
    return 1.0


# The check


def _check_parity(crossing: Crossing) -> None:
    """Refuses a crossing whose outputs are not those of the source."""
    distance = apart(crossing, crossing.model, crossing.source)
    if distance <= TOLERANCE:
        return
    path = _first_that_differs(crossing)
    raise ValueError(
        f"Model '{crossing.source.name}' is not the same in tf_keras, which "
        "tensorflow-model-optimization needs: on random inputs the outputs differ by "
        f"{distance:.1e} of the largest. Expected: at most {TOLERANCE:.0e}. The first "
        f"layer that differs is {path}. Use another layer in its place."
    )


def _first_that_differs(crossing: Crossing) -> str:
    tf_keras = load("tf_keras")
    source, inputs = _float32_copy(crossing.source), probe(crossing)
    paths = [path for path in crossing.names if _one_output(source, path)]
    ours = FeatureExtractor(source, paths, outputs=False)(
        _packed(source, inputs), training=False
    )
    tensors = {path: crossing.model.get_layer(crossing.names[path]) for path in paths}
    model = tf_keras.Model(
        crossing.model.inputs, [layer.output for layer in tensors.values()]
    )
    theirs = model(inputs, training=False)
    for path, other in zip(paths, theirs if isinstance(theirs, list) else [theirs]):
        if ours[path].shape == other.shape and difference(ours[path], other) > 1e-5:
            layer = layer_at(crossing.source, path)
            activation = getattr(getattr(layer, "activation", None), "__name__", "")
            shown = f", {activation}" if activation else ""
            return f"'{path}' ({type(layer).__name__}{shown})"
    return "none by itself"


def _one_output(model: keras.Model, path: str) -> bool:
    try:
        feature_shape(model, path)
    except ValueError:
        return False
    return True


def _packed(model: keras.Model, inputs: list[np.ndarray]) -> Any:
    """Flat inputs in the structure that the model is called with."""
    expected, _ = graph_ends(model)
    return keras.tree.pack_sequence_as(expected, inputs)


def _float32_copy(model: keras.Model) -> keras.Model:
    """A copy that computes in float32; or the model, if it does so itself."""
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
