"""Which layer of a model is "the features", and one forward pass that gives them.

Functional and Sequential models are graphs of layers, possibly nested (a
`keras.applications` backbone inside a Sequential). A layer in such a graph has
a path: the names of the models around it and its own, joined by slashes, as in
`"backbone/conv5"`. Other models are asked through a callable.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

OUTPUTS = ""
"""The key under which a `FeatureExtractor` gives the model's own outputs."""

FEATURES = "features"
"""The name of the features where a feature function returns a single tensor."""

FeatureFunction = Callable[[keras.Model, Any, bool], tuple[Any, Any]]
"""`(model, inputs, training) -> (features, outputs)`."""

Preprocessing = Callable[[Any], Any]
"""`batch -> batch`; a Keras layer is one."""

_PASSES_THROUGH = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Flatten,
    keras.layers.Identity,
)
"""Layers that hand the features on, as noise or in another shape."""

_MAKES_NO_FEATURES = (
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
    keras.layers.PReLU,
)
"""Layers that have weights, yet make neither features nor logits."""

_MAKES_NO_LOGITS = {
    "celu", "elu", "gelu", "hardsilu", "leakyrelu", "mish", "prelu", "relu", "relu6",
    "selu", "silu", "swish",
    "groupnormalization", "layernormalization", "normalize", "rmsnormalization",
    "unitnormalization",
}  # fmt: skip
"""Activations and layers that no classifier ends with, in lower case."""


class FeatureExtractor:
    """One forward pass of a model that gives features and outputs.

    Args:
        model: A built model.
        layers: Paths of the layers whose outputs are wanted.
        outputs: Whether the model's own outputs are wanted too. Without them
            the pass ends at the last feature layer, before the head.
        function: For models that are no graph, `(model, inputs, training) ->
            (features, outputs)`; `features` is a tensor, or a dict of tensors
            by name.
        preprocessing: What is done to the inputs before: a Keras layer, in
            inference mode, or any callable on a batch.

    Raises:
        TypeError: If `preprocessing` can't be called.
        ValueError: If a layer can't be found, or has no batch axis.

    Example:

    >>> extract = FeatureExtractor(student, ["features"])
    >>> results = extract(x_train[:32], training=False)
    >>> features, predictions = results["features"], results[OUTPUTS]
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Iterable[str] = (),
        *,
        outputs: bool = True,
        function: FeatureFunction | None = None,
        preprocessing: Preprocessing | None = None,
    ):
        if preprocessing is not None and not callable(preprocessing):
            raise TypeError(
                "Preprocessing must be a Keras layer, or a callable that takes a batch "
                f"of inputs and returns one. Received: {preprocessing!r}"
            )
        self.model = model
        self.layers = list(dict.fromkeys(layers))
        self.function = function
        self.preprocessing = preprocessing
        self._pass: keras.Model | None = None
        if self.layers and function is None:
            self._pass = _cut(model, self.layers, outputs)

    def __call__(self, inputs: Any, training: bool) -> dict[str, Any]:
        """Runs the model once; gives a dict of tensors, by path and `OUTPUTS`."""
        inputs = own_inputs(self.model, self.preprocessed(inputs))
        if self._pass is not None:
            return self._pass(inputs, training=training)
        if self.function is None:
            return {OUTPUTS: self.model(inputs, training=training)}
        result = self.function(self.model, inputs, training)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(
                f"The feature function of model '{self.model.name}' must return "
                f"(features, outputs). Received: {type(result).__name__}."
            )
        features, outputs = result
        if not isinstance(features, dict):
            features = {FEATURES: features}
        missing = [name for name in self.layers if name not in features]
        if missing:
            raise ValueError(
                f"The feature function of model '{self.model.name}' gave no "
                f"features named {missing}, only {sorted(features)}. Return a "
                "dict of features by the names that the losses ask for."
            )
        return {**features, OUTPUTS: outputs}

    def preprocessed(self, inputs: Any) -> Any:
        """The inputs as they come before the model."""
        if self.preprocessing is None:
            return inputs
        if isinstance(self.preprocessing, keras.Layer):
            return self.preprocessing(inputs, training=False)
        return self.preprocessing(inputs)

    def describe(self, layer: str) -> str:
        """The layer with its model, and how wide it is, where that can be known."""
        shape = self.shape(layer)
        if shape is None:
            return f"'{layer}' of '{self.model.name}'"
        width = "x".join(str(size) for size in shape[1:])
        return f"'{layer}' of '{self.model.name}' ({width} wide)"

    def shape(self, layer: str) -> tuple[int | None, ...] | None:
        """The shape of a layer's output, batch axis first; None of a function's."""
        return None if self.function else feature_shape(self.model, layer)


def is_graph(model: Any) -> bool:
    """Whether the model runs exactly as its graph of layers says.

    True for built Functional and Sequential models; False for subclassed
    ones, and for those that override `call`.
    """
    return (
        isinstance(model, keras.Model)
        and bool(getattr(model, "inputs", None))
        and type(model).call.__module__.startswith("keras.")
    )


def find_feature_layer(model: keras.Model) -> str:
    """Finds the layer whose output the model's head works on.

    The head is the last layer with weights before the output, seen through
    activations, dropout, flattening, softmax and the like; the features are
    what goes into it, before dropout and flattening. Of a model without a head,
    a backbone, they are its output; see `has_head`.

    Args:
        model: A built Functional or Sequential model with one output.

    Returns:
        The path of the layer, such as `"dense"` or `"backbone/avg_pool"`.

    Raises:
        ValueError: If the model's graph gives no clear answer.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((784,)),
    ...     keras.layers.Dense(32, activation="relu", name="hidden"),
    ...     keras.layers.Dropout(0.2),
    ...     keras.layers.Dense(10),
    ... ])
    >>> find_feature_layer(model)
    'hidden'
    """
    _require_graph(model)
    if len(model.outputs) != 1:
        raise _unclear(model, f"it has {len(model.outputs)} outputs")
    features = _Spot(model.outputs[0])
    if has_head(model):
        head = features.inside()
        while not _has_kernel(head.operation):
            head = head.before(model).inside()
        features = head.before(model)
    while isinstance(features.inside().operation, _PASSES_THROUGH):
        features = features.inside().before(model)
    if not _depends_on_weights(features):
        raise _unclear(model, "no layer with weights comes before its head")
    return features.path


def has_head(model: keras.Model) -> bool:
    """Whether the model's output may be logits or probabilities, as far as one sees.

    A backbone, such as those of `keras.applications` with `include_top=False`, ends
    in a ReLU or its like, or in a normalization of each sample, perhaps pooled: its
    output is the features already. What ends in a layer with weights has a head, and
    so has a regressor with a single output above 0.

    Args:
        model: A built model. Of subclassed ones nothing is seen: True.
    """
    if (
        not is_graph(model)
        or len(model.outputs) != 1
        or model.outputs[0].shape[-1] == 1
    ):
        return True
    spot = _Spot(model.outputs[0]).inside()
    while True:
        if _activation(spot.operation) in _MAKES_NO_LOGITS:
            return not _depends_on_weights(spot)
        if _activation(spot.operation) in ("softmax", "sigmoid"):
            return True
        if (
            _has_kernel(spot.operation)
            or len(node_behind(spot.tensor).input_tensors) != 1
        ):
            return True
        spot = spot.before(model).inside()


def default_layer(
    model: keras.Model,
    function: FeatureFunction | None,
    arguments: str = "`teacher_layer=` or `student_layer=`",
) -> str:
    """The features of losses that name no layer, as a `FeatureExtractor` knows them.

    Args:
        model: A built model.
        function: What gives its features, if it is no graph.
        arguments: With which a caller lets a layer be named, for the error.
    """
    if function is not None:
        return FEATURES
    _require_graph(model)
    try:
        return find_feature_layer(model)
    except ValueError as error:
        raise ValueError(f"{error} Give it as {arguments}.") from None


def in_words(key: str) -> str:
    """The key of a `FeatureExtractor`, in words."""
    return "the outputs" if key == OUTPUTS else f"layer '{key}'"


def output_activation(model: keras.Model) -> str | None:
    """`"softmax"`, `"sigmoid"` or None: what makes the model's output, if known."""
    if not is_graph(model):
        return None
    spot = _Spot(model.outputs[0]).inside()
    while isinstance(spot.operation, (*_PASSES_THROUGH, keras.layers.Reshape)) or (
        getattr(spot.operation, "activation", None) is keras.activations.linear
        and isinstance(spot.operation, keras.layers.Activation)
    ):
        spot = spot.before(model).inside()
    name = _activation(spot.operation)
    return name if name in ("softmax", "sigmoid") else None


def graph_ends(model: keras.Model) -> tuple[Any, Any]:
    """Symbolic inputs and outputs, in the structure a graph model is called with."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    outputs = model.output
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        outputs = outputs[0]
    return model.input, outputs


def own_inputs(model: keras.Model, inputs: Any) -> Any:
    """Of a dict of inputs those that a graph model knows by name; others as they are.

    So that two models, of which each takes its own, can be run on the same batch.
    """
    if not isinstance(inputs, dict) or not is_graph(model):
        return inputs
    expected, _ = graph_ends(model)
    if isinstance(expected, dict):
        names = {name: name for name in expected}
    else:
        names = keras.tree.map_structure(lambda tensor: tensor.name, expected)
    if not all(name in inputs for name in keras.tree.flatten(names)):
        return inputs
    return keras.tree.map_structure(lambda name: inputs[name], names)


def layer_paths(model: keras.Model) -> list[str]:
    """The paths of all layers of a graph model, nested ones included."""
    paths = []
    for layer in model.layers:
        paths.append(layer.name)
        if is_graph(layer):
            paths += [f"{layer.name}/{path}" for path in layer_paths(layer)]
    return paths


def feature_shape(model: keras.Model, path: str) -> tuple[int | None, ...]:
    """The static shape of the output of the layer at `path`, batch axis first.

    Raises:
        ValueError: If there is no such layer, it has several outputs, or
            its output has no batch axis.
    """
    _require_graph(model)
    owner = model
    *around, name = path.split("/")
    for outer in around:
        layer = next((layer for layer in owner.layers if layer.name == outer), None)
        if not is_graph(layer):
            raise _unknown_layer(model, path)
        owner = layer
    if not any(node.operation.name == name for node in _nodes(owner)):
        raise _unknown_layer(model, path)
    outputs = _node_of(owner, name).outputs
    if len(outputs) != 1:
        raise ValueError(
            f"Layer '{path}' of model '{model.name}' has {len(outputs)} outputs; "
            "features are one tensor. Name another layer."
        )
    shape = tuple(outputs[0].shape)
    batch = owner.inputs[0].shape[0]
    if not shape or shape[0] != batch:
        raise ValueError(
            f"Layer '{path}' of model '{model.name}' gives shape {shape}, without "
            f"the batch axis of the model's inputs ({batch}). Features need one "
            "row a sample: name another layer."
        )
    return shape


def _cut(model: keras.Model, paths: Sequence[str], outputs: bool) -> keras.Model:
    """A model over the same layers, from its inputs to `{path: features}`.

    With `outputs`, the model's own come along under the key `OUTPUTS`.
    """
    for path in paths:
        feature_shape(model, path)
    direct = [path for path in paths if "/" not in path]
    nested: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if "/" in path:
            outer, inner = path.split("/", 1)
            nested[outer].append(inner)

    inputs, model_outputs = graph_ends(model)
    if not nested:
        wanted = {name: _node_of(model, name).outputs[0] for name in direct}
        if outputs:
            wanted[OUTPUTS] = model_outputs
        return keras.Model(inputs, wanted)

    if len(nested) == 1 and not direct and not outputs:
        # Nothing behind the nested model is needed: end inside it.
        (outer, inners), *_ = nested.items()
        node = _node_of(model, outer)
        ended = _cut(node.operation, inners, outputs=False)
        found = ended(*node.arguments.args, **node.arguments.kwargs)
        return keras.Model(inputs, {f"{outer}/{name}": found[name] for name in found})

    # Run the graph again, with the nested models giving their features as well;
    # they run to their end then, whether or not anything behind them is wanted.
    cuts = {
        outer: _cut(model.get_layer(outer), nested[outer], True) for outer in nested
    }
    features = {}

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation.name in cuts:
            found = dict(cuts[operation.name](*args, **kwargs))
            result = found.pop(OUTPUTS)
            features.update({f"{operation.name}/{key}": found[key] for key in found})
        else:
            result = operation(*args, **kwargs)
        if operation.name in direct:
            features[operation.name] = result
        return result

    rerun = keras.models.clone_model(
        keras.Model(inputs, model_outputs),
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=call,
    )
    if outputs:
        features[OUTPUTS] = rerun.output
    return keras.Model(inputs, features)


def _nodes(model: keras.Model) -> Iterator[Any]:
    """The calls that make up the model's graph, those nearest to the output first."""
    tensors = list(model.outputs)
    stop = {id(tensor) for tensor in model.inputs}
    seen = set()
    while tensors:
        tensor = tensors.pop(0)
        node = node_behind(tensor)
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if id(tensor) not in stop:
            tensors += node.input_tensors


def node_behind(tensor: Any) -> Any:
    """The call that a symbolic tensor came out of."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _node_of(model: keras.Model, name: str) -> Any:
    """The call of the layer of that name; of several, the last before the output."""
    return next(node for node in _nodes(model) if node.operation.name == name)


@dataclasses.dataclass(frozen=True)
class _Spot:
    """A tensor somewhere in a graph of nested models.

    Args:
        tensor: The symbolic tensor, in the innermost of the models.
        around: The calls of the nested models that it lies in, outermost first.
    """

    tensor: Any
    around: tuple[Any, ...] = ()

    @property
    def operation(self) -> Any:
        return self.tensor._keras_history.operation

    @property
    def path(self) -> str:
        nodes = [*self.around, node_behind(self.tensor)]
        return "/".join(node.operation.name for node in nodes)

    def inside(self) -> _Spot:
        """The same tensor, where it is made inside a nested model."""
        spot = self
        while is_graph(spot.operation):
            inner = spot.operation.outputs[spot.tensor._keras_history.tensor_index]
            spot = _Spot(inner, (*spot.around, node_behind(spot.tensor)))
        return spot

    def before(self, model: keras.Model) -> _Spot:
        """What goes into the operation that makes this tensor."""
        inputs = node_behind(self.tensor).input_tensors
        if not inputs:
            raise _unclear(model, "no layer with weights makes its output")
        if len(inputs) > 1:
            raise _unclear(model, f"'{self.path}' has {len(inputs)} inputs")
        tensor, around = inputs[0], self.around
        while around:
            model_inputs = [id(t) for t in around[-1].operation.inputs]
            if id(tensor) not in model_inputs:
                break
            tensor = around[-1].input_tensors[model_inputs.index(id(tensor))]
            around = around[:-1]
        return _Spot(tensor, around)


def _has_kernel(operation: Any) -> bool:
    """Whether it is a layer that learns more than a scale."""
    return bool(getattr(operation, "weights", ())) and not isinstance(
        operation, _MAKES_NO_FEATURES
    )


def _activation(operation: Any) -> str:
    """The name of its activation, or its own, in lower case and one word."""
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", type(operation).__name__)
    return name.lower().replace("_", "")


def _depends_on_weights(spot: _Spot) -> bool:
    """Whether any layer with weights has a part in the tensor."""
    tensors = [spot.tensor, *(t for node in spot.around for t in node.input_tensors)]
    while tensors:
        node = node_behind(tensors.pop())
        if _has_kernel(node.operation):
            return True
        tensors += node.input_tensors
    return False


def _require_graph(model: keras.Model) -> None:
    if not is_graph(model):
        raise ValueError(
            f"The layers of model '{model.name}' can't be looked into: it is a "
            f"subclassed model ({type(model).__name__}), not a Functional or "
            "Sequential one. Pass `teacher_features=` or `student_features=`, a "
            "callable (model, inputs, training) -> (features, outputs)."
        )


def _unclear(model: keras.Model, reason: str) -> ValueError:
    return ValueError(
        f"The feature layer of model '{model.name}' can't be chosen by itself: "
        f"{reason}. Name the layer. There are: {', '.join(layer_paths(model))}."
    )


def _unknown_layer(model: keras.Model, path: str) -> ValueError:
    paths = layer_paths(model)
    near = difflib.get_close_matches(path, paths, n=5, cutoff=0.4)
    last = path.rsplit("/", 1)[-1]
    near += [
        other for other in paths if other.endswith(f"/{last}") and other not in near
    ]
    hint = (
        f"Did you mean: {', '.join(near)}?" if near else f"It has: {', '.join(paths)}."
    )
    return ValueError(f"Model '{model.name}' has no layer '{path}'. {hint}")
