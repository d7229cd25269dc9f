import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_lpd.features import (
    OUTPUTS,
    FeatureExtractor,
    default_layer,
    feature_shape,
    find_feature_layer,
    has_head,
    in_words,
    is_graph,
    layer_paths,
    output_activation,
)

IMAGES = np.random.default_rng(0).random((6, 8, 8, 3)).astype("float32")
ROWS = np.random.default_rng(1).normal(size=(6, 8)).astype("float32")


@pytest.fixture(autouse=True)
def fresh_names():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


class Counting(layers.Layer):
    """Hands its inputs on, and counts how often it ran."""

    calls = 0

    def call(self, inputs):
        self.calls += 1
        return inputs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.hidden = layers.Dense(4)
        self.head = layers.Dense(3)

    def call(self, inputs, training=None):
        return self.head(self.hidden(inputs))


class OverridesCall(keras.Model):
    """Functional, yet its graph does not tell what it does."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def sequential(*stack, shape=(8,), name=None):
    return keras.Sequential([keras.Input(shape), *stack], name=name)


def dense(units=4, name=None, **kwargs):
    return layers.Dense(units, name=name, **kwargs)


def backbone(name="backbone"):
    """Convolutions with everything that behaves differently in training."""
    return sequential(
        layers.Conv2D(4, 3, activation="relu", name="conv1"),
        layers.BatchNormalization(name="norm"),
        layers.Dropout(0.5, name="drop"),
        layers.Conv2D(5, 3, activation="relu", name="conv2"),
        layers.GlobalAveragePooling2D(name="pool"),
        shape=(8, 8, 3),
        name=name,
    )


def with_backbone_in_sequential():
    return sequential(
        layers.Rescaling(2.0, name="rescale"),
        backbone(),
        layers.Dropout(0.5, name="drop"),
        dense(6, "hidden", activation="relu"),
        layers.BatchNormalization(name="norm"),
        dense(3, "head"),
        shape=(8, 8, 3),
    )


def with_backbone_in_functional():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0, name="rescale")(inputs)
    x = backbone()(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = dense(6, "hidden", activation="relu")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, dense(3, "head")(x))


def numbers(tree):
    return keras.tree.map_structure(np.asarray, tree)


def assert_same(one, other):
    """Equal to the bit, in the same structure."""
    one, other = numbers(one), numbers(other)
    keras.tree.assert_same_structure(one, other)
    keras.tree.map_structure(np.testing.assert_array_equal, one, other)


def values(variables):
    return [
        np.asarray(ops.convert_to_tensor(variable)).copy() for variable in variables
    ]


def run_from(state, variables, function):
    """Runs it from a state of the variables (seeds among them); gives the next."""
    for variable, value in zip(variables, state, strict=True):
        variable.assign(value)
    result = numbers(function())
    return result, values(variables)


# find_feature_layer


def functional_with(head):
    inputs = keras.Input((8,))
    return keras.Model(inputs, head(dense(4, "hidden", activation="relu")(inputs)))


def head_model():
    return sequential(layers.Dropout(0.5), dense(3), shape=(4,), name="top")


def classifier(name="classifier"):
    return sequential(
        dense(4, "hidden", activation="relu"), dense(3), layers.Softmax(), name=name
    )


def bare_backbone_in_sequential():
    return sequential(backbone(), dense(3), shape=(8, 8, 3))


def bare_backbone_in_functional():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, dense(3)(layers.Dropout(0.5)(backbone()(inputs))))


def residual():
    inputs = keras.Input((8,))
    x = dense(8, "hidden", activation="relu")(inputs)
    return keras.Model(inputs, dense(3)(layers.Add(name="sum")([x, inputs])))


def twice_nested():
    inner = sequential(dense(4, "hidden"), layers.Dropout(0.5), name="inner")
    outer = sequential(inner, layers.Flatten(), name="outer")
    return sequential(outer, layers.Dropout(0.5), dense(3))


FOUND = {
    "Sequential": (
        lambda: sequential(dense(5), dense(4, "hidden"), dense(3)),
        "hidden",
    ),
    "Functional": (lambda: functional_with(dense(3)), "hidden"),
    "head with softmax": (
        lambda: functional_with(dense(3, activation="softmax")),
        "hidden",
    ),
    "dropout before the head": (
        lambda: sequential(dense(4, "hidden"), layers.Dropout(0.5), dense(3)),
        "hidden",
    ),
    "noise before the head": (
        lambda: sequential(dense(4, "hidden"), layers.GaussianNoise(0.5), dense(3)),
        "hidden",
    ),
    "activation before the head": (
        lambda: sequential(dense(4), layers.ReLU(name="relu"), dense(3)),
        "relu",
    ),
    "activation and dropout before the head": (
        lambda: sequential(
            dense(4),
            layers.Activation("relu", name="relu"),
            layers.Dropout(0.5),
            dense(3),
        ),
        "relu",
    ),
    "flatten and dropout before the head": (
        lambda: sequential(
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dropout(0.5),
            dense(3),
            shape=(8, 8, 3),
        ),
        "conv",
    ),
    "batch normalization before the head": (
        lambda: sequential(
            dense(4), layers.BatchNormalization(name="norm"), dense(3), layers.Softmax()
        ),
        "norm",
    ),
    "layers behind the head": (
        lambda: sequential(
            dense(4, "hidden"),
            dense(3),
            layers.BatchNormalization(),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Activation("linear", dtype="float32"),
            layers.Softmax(),
        ),
        "hidden",
    ),
    "keras.ops.softmax behind the head": (
        lambda: functional_with(lambda x: ops.softmax(dense(3)(x))),
        "hidden",
    ),
    "keras.ops before the head": (
        lambda: functional_with(lambda x: dense(3)(ops.relu(x))),
        "relu",
    ),
    "convolutional head": (
        lambda: sequential(
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.SpatialDropout2D(0.5),
            layers.Conv2D(3, 1),
            layers.GlobalAveragePooling2D(),
            layers.Softmax(),
            shape=(8, 8, 3),
        ),
        "conv",
    ),
    "recurrent": (
        lambda: sequential(layers.LSTM(4, name="lstm"), dense(3), shape=(5, 2)),
        "lstm",
    ),
    "residual": (residual, "sum"),
    "backbone in Sequential": (bare_backbone_in_sequential, "backbone"),
    "backbone in Functional": (bare_backbone_in_functional, "backbone"),
    "layers behind the backbone": (with_backbone_in_sequential, "norm"),
    "twice nested": (twice_nested, "outer/inner/hidden"),
    "head model": (lambda: functional_with(head_model()), "hidden"),
    "backbone and head model": (
        lambda: sequential(
            sequential(dense(4, "hidden"), name="backbone"), head_model()
        ),
        "backbone",
    ),
    "full model behind rescaling": (
        lambda: sequential(layers.Rescaling(2.0), classifier()),
        "classifier/hidden",
    ),
    "full model behind rescaling, Functional": (
        lambda: keras.Model(
            inputs := keras.Input((8,)),
            layers.Activation("linear")(classifier()(layers.Rescaling(2.0)(inputs))),
        ),
        "classifier/hidden",
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_layer_that_feeds_the_head_is_found(case):
    build, expected = FOUND[case]
    model = build()

    path = find_feature_layer(model)

    assert path == expected
    batch = np.ones((2, *model.inputs[0].shape[1:]), "float32")
    features = FeatureExtractor(model, [path])(batch, training=False)[path]
    assert features.shape == (2, *feature_shape(model, path)[1:])


def conv_body(*tail):
    conv = layers.Conv2D(4, 3, use_bias=False)
    norm = layers.BatchNormalization()
    return sequential(conv, norm, *tail, shape=(8, 8, 3))


HEADLESS = {
    "ReLU": (lambda: conv_body(layers.ReLU(name="relu")), "relu"),
    "ReLU, pooled": (
        lambda: conv_body(layers.ReLU(), layers.GlobalAveragePooling2D(name="gap")),
        "gap",
    ),
    "ReLU, pooled, dropped out": (
        lambda: conv_body(
            layers.Activation("swish"),
            layers.GlobalMaxPooling2D(name="gap"),
            layers.Dropout(0.5),
        ),
        "gap",
    ),
    "flattened": (
        lambda: conv_body(layers.LeakyReLU(name="leaky"), layers.Flatten()),
        "leaky",
    ),
    "keras.ops": (
        lambda: keras.Model(x := keras.Input((8,)), ops.relu(dense(4)(x))),
        "relu",
    ),
    "Dense with ReLU": (
        lambda: sequential(dense(8), dense(4, "embedding", activation="relu")),
        "embedding",
    ),
    "LayerNormalization": (
        lambda: sequential(dense(4), layers.LayerNormalization(name="norm")),
        "norm",
    ),
    "RMSNormalization": (
        lambda: sequential(dense(4), layers.RMSNormalization(name="norm")),
        "norm",
    ),
    "vectors of length 1": (
        lambda: sequential(dense(4), layers.UnitNormalization(name="unit")),
        "unit",
    ),
    "behind rescaling": (
        lambda: sequential(
            layers.Rescaling(2.0), conv_body(layers.ReLU()), shape=(8, 8, 3)
        ),
        "sequential",
    ),
}


@pytest.mark.parametrize("case", HEADLESS)
def test_the_features_of_a_backbone_are_its_output(case):
    build, expected = HEADLESS[case]
    model = build()
    assert not has_head(model)

    path = find_feature_layer(model)

    assert path == expected
    batch = np.random.default_rng(0).random((2, *model.inputs[0].shape[1:]))
    features = FeatureExtractor(model, [path], outputs=False)(batch, training=False)
    outputs = numbers(model(batch, training=False))
    np.testing.assert_array_equal(numbers(features[path]).ravel(), outputs.ravel())


@pytest.mark.parametrize(
    ("application", "pooling"), [("MobileNetV2", "avg"), ("ResNet50", None)]
)
def test_the_features_of_an_application_without_top(application, pooling):
    model = getattr(keras.applications, application)(
        input_shape=(32, 32, 3), include_top=False, weights=None, pooling=pooling
    )
    assert find_feature_layer(model) == model.layers[-1].name
    assert feature_shape(model, model.layers[-1].name) == model.output_shape


WITH_HEAD = {
    **FOUND,
    "regressor of positive numbers": (
        lambda: sequential(dense(4, "hidden"), dense(1, activation="relu")),
        "hidden",
    ),
    "logits divided by a temperature": (
        lambda: sequential(dense(4, "hidden"), dense(3), layers.Rescaling(0.25)),
        "hidden",
    ),
    "pooled logits": (
        lambda: sequential(
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Conv2D(3, 1),
            layers.GlobalAveragePooling2D(),
            shape=(8, 8, 3),
        ),
        "conv",
    ),
}


@pytest.mark.parametrize("case", WITH_HEAD)
def test_a_model_with_a_head_is_told_from_a_backbone(case):
    build, expected = WITH_HEAD[case]
    model = build()
    assert has_head(model)
    assert find_feature_layer(model) == expected


@pytest.mark.parametrize("pooling", ["avg", None])
def test_the_layer_is_found_behind_mobilenet(pooling):
    mobilenet = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling=pooling
    )
    tail = [] if pooling else [layers.GlobalAveragePooling2D(name="gap")]
    model = sequential(
        layers.Rescaling(1 / 127.5, offset=-1),
        mobilenet,
        *tail,
        layers.Dropout(0.2),
        dense(3),
        shape=(32, 32, 3),
    )

    path = find_feature_layer(model)

    assert path == (mobilenet.name if pooling else "gap")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    results = FeatureExtractor(model, [path])(images, training=False)
    assert results[path].shape == (2, 1280)
    assert_same(results[OUTPUTS], model(images))


def two_outputs():
    inputs = keras.Input((8,))
    x = dense(4)(inputs)
    return keras.Model(inputs, [dense(3)(x), dense(2)(x)])


def merged_output():
    inputs = keras.Input((8,))
    x = dense(4)(inputs)
    merged = layers.Add(name="merge")([dense(3)(x), dense(3)(x)])
    return keras.Model(inputs, layers.Softmax()(merged))


REFUSED = {
    "two outputs": (two_outputs, "can't be chosen by itself: it has 2 outputs"),
    "linear": (
        lambda: sequential(layers.Flatten(), dense(3)),
        "no layer with weights comes before its head",
    ),
    "linear behind preprocessing": (
        lambda: sequential(layers.Rescaling(2.0), layers.Dropout(0.5), dense(3)),
        "no layer with weights comes before its head",
    ),
    "linear behind standardised inputs": (
        lambda: sequential(layers.Normalization(), dense(3)),
        "no layer with weights comes before its head",
    ),
    "no weights": (
        lambda: sequential(layers.Softmax()),
        "no layer with weights makes its output",
    ),
    "merge": (merged_output, "'merge' has 2 inputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_layer_is_chosen_where_there_is_no_clear_one(case):
    build, reason = REFUSED[case]
    model = build()
    with pytest.raises(ValueError, match=reason) as error:
        find_feature_layer(model)
    message = str(error.value)
    assert f"'{model.name}'" in message
    assert message.endswith(
        f"Name the layer. There are: {', '.join(layer_paths(model))}."
    )


@pytest.mark.parametrize(
    ("more", "hint"),
    [((), "`teacher_layer=` or `student_layer=`"), (("`layers=`",), "`layers=`")],
)
def test_callers_say_with_what_a_layer_is_named(more, hint):
    with pytest.raises(ValueError) as error:
        default_layer(two_outputs(), None, *more)
    assert str(error.value).endswith(f" Give it as {hint}.")


def test_keys_in_words():
    assert in_words("backbone/conv") == "layer 'backbone/conv'"
    assert in_words(OUTPUTS) == "the outputs"


def test_subclassed_models_are_not_looked_into():
    model = Subclassed()
    model(ROWS)
    message = r"'subclassed' can't be looked into.*\(Subclassed\).*`teacher_features=`"
    with pytest.raises(ValueError, match=message):
        find_feature_layer(model)
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(model, ["hidden"])


# FeatureExtractor: what it gives


BACKBONES = [with_backbone_in_sequential, with_backbone_in_functional]

PATHS = [
    ["rescale"],
    ["hidden"],
    ["head"],
    ["rescale", "hidden", "norm"],
    ["backbone"],
    ["backbone/conv1"],
    ["backbone/conv1", "backbone/norm", "backbone/pool"],
    ["rescale", "backbone", "backbone/conv2", "hidden"],
]


def by_hand(model, path):
    """A plain `keras.Model` from the inputs to the layer."""
    if "/" not in path:
        inputs = model.inputs[0]
        return keras.Model(inputs, model.get_layer(path).output)
    outer, inner = path.split("/")
    nested = model.get_layer(outer)
    inside = keras.Model(nested.inputs[0], nested.get_layer(inner).output)
    inputs = keras.Input(model.inputs[0].shape[1:])
    return keras.Model(inputs, inside(model.get_layer("rescale")(inputs)))


@pytest.mark.parametrize("outputs", [True, False])
@pytest.mark.parametrize("paths", PATHS, ids=", ".join)
@pytest.mark.parametrize("build", BACKBONES)
def test_features_and_outputs_are_those_of_the_model(build, paths, outputs):
    model = build()

    results = FeatureExtractor(model, paths, outputs=outputs)(IMAGES, training=False)

    assert results.keys() == {*paths, *([OUTPUTS] if outputs else [])}
    for path in paths:
        assert_same(results[path], by_hand(model, path)(IMAGES))
        assert results[path].shape == (6, *feature_shape(model, path)[1:])
    if outputs:
        assert_same(results[OUTPUTS], model(IMAGES, training=False))


@pytest.mark.parametrize("paths", PATHS, ids=", ".join)
@pytest.mark.parametrize("build", BACKBONES)
def test_a_training_pass_is_that_of_the_model(build, paths):
    """The same dropout, and batch normalisation's statistics move once."""
    model = build()
    extract = FeatureExtractor(model, paths)
    start = values(model.variables)

    expected, expected_state = run_from(
        start, model.variables, lambda: model(IMAGES, training=True)
    )
    results, state = run_from(
        start, model.variables, lambda: extract(IMAGES, training=True)
    )

    assert_same(results[OUTPUTS], expected)
    assert_same(state, expected_state)
    moved = [not np.array_equal(*pair) for pair in zip(start, state, strict=True)]
    assert sum(moved) == 2 * 2 + 2  # mean and variance twice, two seeds
    inference = np.asarray(model(IMAGES, training=False))
    assert not np.allclose(results[OUTPUTS], inference)


def test_a_frozen_backbone_stays_frozen():
    model = with_backbone_in_functional()
    model.get_layer("backbone").trainable = False
    before = values(model.get_layer("backbone").weights)
    FeatureExtractor(model, ["backbone/conv1"])(IMAGES, training=True)
    assert_same(values(model.get_layer("backbone").weights), before)


def test_without_layers_the_model_is_just_run():
    model = with_backbone_in_sequential()
    results = FeatureExtractor(model)(IMAGES, training=False)
    assert list(results) == [OUTPUTS]
    assert_same(results[OUTPUTS], model(IMAGES))
    subclassed = Subclassed()
    results = FeatureExtractor(subclassed)(ROWS, training=False)
    assert_same(results[OUTPUTS], subclassed(ROWS))


def test_a_layer_asked_for_twice_is_given_once():
    model = classifier()
    extract = FeatureExtractor(model, ["hidden", "hidden"])
    assert extract.layers == ["hidden"]
    assert extract(ROWS, training=False).keys() == {"hidden", OUTPUTS}


def test_layers_two_nestings_deep_are_reached():
    model = twice_nested()
    inner = model.get_layer("outer").get_layer("inner")
    expected = inner.get_layer("hidden")(ROWS)
    for outputs in (True, False):
        for paths in (["outer/inner/hidden"], ["outer/inner/hidden", "outer/inner"]):
            extract = FeatureExtractor(model, paths, outputs=outputs)
            results = extract(ROWS, training=False)
            assert_same(results["outer/inner/hidden"], expected)
            if outputs:
                assert_same(results[OUTPUTS], model(ROWS))


def test_layers_shared_with_another_model_are_followed_in_this_one():
    shared = dense(4, "shared", activation="relu")
    first = sequential(shared, dense(2))
    inputs = keras.Input((8,))
    second = keras.Model(inputs, dense(3)(shared(dense(8, "own")(inputs))))
    third_inputs = keras.Input((8,))
    third = keras.Model(third_inputs, dense(3)(shared(third_inputs)))

    for model, expected in (
        (first, shared(ROWS)),
        (second, shared(second.get_layer("own")(ROWS))),
        (third, shared(ROWS)),
    ):
        assert find_feature_layer(model) == "shared"
        results = FeatureExtractor(model, ["shared"])(ROWS, training=False)
        assert_same(results["shared"], expected)
        assert_same(results[OUTPUTS], model(ROWS))


def test_a_backbone_shared_with_another_model_is_followed_in_this_one():
    shared = sequential(dense(8, "hidden", activation="relu"), name="shared")
    sequential(shared, dense(2))
    inputs = keras.Input((8,))
    second = keras.Model(inputs, dense(3)(shared(dense(8, "own")(inputs))))

    expected = shared(second.get_layer("own")(ROWS))
    for outputs in (True, False):
        extract = FeatureExtractor(second, ["shared/hidden"], outputs=outputs)
        assert_same(extract(ROWS, training=False)["shared/hidden"], expected)


def test_features_come_out_of_models_with_dict_inputs_and_outputs():
    inputs = {name: keras.Input((8,), name=name) for name in ("right", "left")}
    nested = sequential(dense(4, "hidden"), layers.ReLU(), name="nested")
    left = dense(4, "first")(inputs["left"])
    merged = layers.Concatenate(name="merged")([nested(inputs["right"]), left])
    model = keras.Model(inputs, {"a": dense(3)(merged), "b": dense(2)(merged)})
    batch = {"left": ROWS, "right": ROWS + 1}

    hidden = nested.get_layer("hidden")(ROWS + 1)
    first = model.get_layer("first")(ROWS)
    paths = {"first": first, "nested/hidden": hidden, "merged": None}
    for wanted in (["first", "merged"], list(paths)):
        results = FeatureExtractor(model, wanted)(batch, training=False)
        assert_same(results[OUTPUTS], model(batch))
        assert_same(results["merged"][:, 4:], first)
        for path in wanted:
            if paths[path] is not None:
                assert_same(results[path], paths[path])
    for path in ("first", "nested/hidden"):
        extract = FeatureExtractor(model, [path], outputs=False)
        assert_same(extract(batch, training=False), {path: paths[path]})


def test_outputs_in_a_list_of_one_come_as_the_model_gives_them():
    inputs = keras.Input((8,))
    nested = sequential(dense(4, "inside"), name="nested")
    x = dense(4, "hidden")(nested(inputs))
    model = keras.Model(inputs=[inputs], outputs=[dense(3)(x)])
    for path in ("hidden", "nested/inside"):
        results = FeatureExtractor(model, [path])([ROWS], training=False)
        assert_same(results[OUTPUTS], model([ROWS]))


class AddIfThere(layers.Layer):
    def call(self, x, other=None):
        return x if other is None else x + other

    def compute_output_shape(self, x_shape, other_shape=None):
        return x_shape


def test_optional_inputs_stay_optional():
    x = keras.Input((8,), name="x")
    other = keras.Input((4,), name="other", optional=True)
    nested = sequential(dense(4, "hidden"), name="nested")
    model = keras.Model([x, other], dense(3, "head")(AddIfThere()(nested(x), other)))
    expected = model([ROWS, None])
    for path in ("nested", "nested/hidden"):
        results = FeatureExtractor(model, [path])([ROWS, None], training=False)
        assert_same(results[OUTPUTS], expected)


# FeatureExtractor: what it leaves alone


def counted_models():
    """A model with a nested one, and its layers that count, by path."""
    counters = {
        name: Counting(name=name) for name in ("first", "inside", "tail", "end")
    }
    nested = sequential(
        dense(4, "hidden"),
        counters["inside"],
        dense(4, "next"),
        counters["tail"],
        name="nested",
    )
    model = sequential(counters["first"], nested, dense(3), counters["end"])
    return model, counters


# Layers that are asked for: layers that run.
NEEDED = {
    ("first",): {"first"},
    ("nested/hidden",): {"first"},
    ("nested/inside",): {"first", "inside"},
    ("nested/next", "nested/hidden"): {"first", "inside"},
    ("nested",): {"first", "inside", "tail"},
    ("nested/hidden", "nested"): {"first", "inside", "tail"},
}


@pytest.mark.parametrize("paths", NEEDED, ids=", ".join)
def test_without_outputs_nothing_behind_the_features_runs(paths):
    model, counters = counted_models()
    extract = FeatureExtractor(model, paths, outputs=False)
    for counter in counters.values():
        counter.calls = 0

    extract(ROWS, training=False)

    ran = {name: counter.calls for name, counter in counters.items()}
    assert ran == {name: int(name in NEEDED[paths]) for name in counters}


@pytest.mark.parametrize("paths", NEEDED, ids=", ".join)
def test_with_outputs_every_layer_runs_once(paths):
    model, counters = counted_models()
    extract = FeatureExtractor(model, paths)
    for counter in counters.values():
        counter.calls = 0

    extract(ROWS, training=False)

    assert {counter.calls for counter in counters.values()} == {1}


@pytest.mark.parametrize("build", BACKBONES)
def test_extracting_does_not_change_the_model(build, tmp_path):
    model = build()
    expected = np.asarray(model(IMAGES))
    config = model.get_config()
    weights = model.get_weights()

    for paths in PATHS:
        for outputs in (True, False):
            FeatureExtractor(model, paths, outputs=outputs)(IMAGES, training=False)

    assert model.get_config() == config
    assert_same(model.get_weights(), weights)
    assert_same(model(IMAGES), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded(IMAGES), expected)
    assert layer_paths(loaded) == layer_paths(model)
    assert find_feature_layer(loaded) == find_feature_layer(model)


# FeatureExtractor: what it refuses


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("backbone/conv_2", "Did you mean: backbone/conv2, "),
        ("conv2", "Did you mean: backbone/conv2"),
        ("backbone/conv3", "Did you mean: backbone/conv"),
        ("hiden", "Did you mean: hidden"),
        ("hidden/conv1", "Did you mean: "),
        ("qqq", "It has: rescale, backbone, backbone/conv1, "),
        ("", "It has: rescale, backbone, backbone/conv1, "),
        ("backbone/", "Did you mean: backbone"),
    ],
)
def test_unknown_layers_are_refused_with_near_names(path, hint):
    model = with_backbone_in_sequential()
    for function in (feature_shape, lambda m, p: FeatureExtractor(m, ["hidden", p])):
        with pytest.raises(ValueError) as error:
            function(model, path)
        message = str(error.value)
        assert message.startswith(f"Model '{model.name}' has no layer '{path}'. ")
        assert hint in message


def test_a_layer_with_several_outputs_is_refused():
    inputs = keras.Input((5, 2))
    states = layers.LSTM(4, return_state=True, name="lstm")(inputs)
    model = keras.Model(inputs, dense(3)(states[0]))
    message = "Layer 'lstm' of model '.*' has 3 outputs; features are one tensor"
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(model, ["lstm"])


def test_a_nested_model_with_several_outputs_is_refused():
    inputs = keras.Input((8,))
    nested = keras.Model(inputs, [dense(4, "a")(inputs), dense(2)(inputs)], name="two")
    outer = keras.Input((8,))
    model = keras.Model(outer, dense(3)(nested(outer)[0]))
    with pytest.raises(ValueError, match=r"Layer 'two'.*has 2 outputs"):
        FeatureExtractor(model, ["two"])
    for outputs in (True, False):
        extract = FeatureExtractor(model, ["two/a"], outputs=outputs)
        expected = nested.get_layer("a")(ROWS)
        assert_same(extract(ROWS, training=False)["two/a"], expected)


class BatchMean(layers.Layer):
    def call(self, inputs):
        return ops.mean(inputs, axis=0)


class Total(layers.Layer):
    def call(self, inputs):
        return ops.sum(inputs)


@pytest.mark.parametrize(("layer", "shape"), [(BatchMean, r"\(4,\)"), (Total, r"\(\)")])
def test_a_layer_without_batch_axis_is_refused(layer, shape):
    inputs = keras.Input((8,))
    x = dense(4, "hidden")(inputs)
    model = keras.Model(inputs, dense(3)(x - layer(name="flat")(x)))
    message = f"Layer 'flat' of model '.*' gives shape {shape}, without the batch axis"
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(model, ["flat"])


def test_feature_shape_gives_the_static_shape():
    model = with_backbone_in_sequential()
    assert feature_shape(model, "hidden") == (None, 6)
    assert feature_shape(model, "backbone/conv1") == (None, 6, 6, 4)
    assert feature_shape(model, "backbone") == (None, 5)


# Feature functions


def features_of(model, inputs, training):
    hidden = model.hidden(inputs)
    return hidden, model.head(hidden)


def named_features_of(model, inputs, training):
    hidden = model.hidden(inputs)
    outputs = model.head(hidden)
    return {"hidden": hidden, "training": float(training)}, outputs


def test_a_feature_function_may_give_a_tensor():
    model = Subclassed()
    extract = FeatureExtractor(model, ["features"], function=features_of)
    results = extract(ROWS, training=False)
    assert results.keys() == {"features", OUTPUTS}
    assert_same(results["features"], model.hidden(ROWS))
    assert_same(results[OUTPUTS], model(ROWS))


def test_a_feature_function_may_give_a_dict():
    model = Subclassed()
    extract = FeatureExtractor(model, ["hidden"], function=named_features_of)
    for training in (True, False):
        results = extract(ROWS, training=training)
        assert_same(results["hidden"], model.hidden(ROWS))
        assert results["training"] == training
        assert_same(results[OUTPUTS], model(ROWS))


def test_a_feature_function_goes_before_the_graph():
    model = classifier()
    function = lambda model, inputs, training: (inputs, model(inputs))  # noqa: E731
    results = FeatureExtractor(model, function=function)(ROWS, training=False)
    assert_same(results["features"], ROWS)


@pytest.mark.parametrize(
    ("result", "kind"), [([1, 2], "list"), ((1, 2, 3), "tuple"), ({}, "dict")]
)
def test_a_feature_function_must_give_a_pair(result, kind):
    extract = FeatureExtractor(Subclassed(), function=lambda *_: result)
    message = rf"'subclassed' must return \(features, outputs\)\. Received: {kind}"
    with pytest.raises(ValueError, match=message):
        extract(ROWS, training=False)


def test_a_feature_function_must_give_what_the_losses_ask_for():
    extract = FeatureExtractor(Subclassed(), ["conv"], function=named_features_of)
    message = r"no features named \['conv'\], only \['hidden', 'training'\]"
    with pytest.raises(ValueError, match=message):
        extract(ROWS, training=False)


# What else is known about a model


ACTIVATIONS = {
    "none": (lambda: sequential(dense()), None),
    "relu": (lambda: sequential(dense(activation="relu")), None),
    "softmax": (lambda: sequential(dense(activation="softmax")), "softmax"),
    "sigmoid": (lambda: sequential(dense(activation="sigmoid")), "sigmoid"),
    "Softmax": (lambda: sequential(dense(), layers.Softmax()), "softmax"),
    "Activation": (
        lambda: sequential(dense(), layers.Activation("sigmoid")),
        "sigmoid",
    ),
    "linear behind softmax": (
        lambda: sequential(
            dense(activation="softmax"), layers.Activation("linear", dtype="float32")
        ),
        "softmax",
    ),
    "linear": (lambda: sequential(dense(), layers.Activation("linear")), None),
    "relu behind softmax": (
        lambda: sequential(dense(activation="softmax"), layers.Activation("relu")),
        None,
    ),
    "shapes behind softmax": (
        lambda: sequential(
            dense(4, activation="softmax"), layers.Reshape((2, 2)), layers.Flatten()
        ),
        "softmax",
    ),
    "ops.softmax": (
        lambda: functional_with(lambda x: ops.softmax(dense(3)(x))),
        "softmax",
    ),
    "ops.sigmoid": (
        lambda: functional_with(lambda x: ops.sigmoid(dense(1)(x))),
        "sigmoid",
    ),
    "nested": (lambda: sequential(layers.Rescaling(2.0), classifier()), "softmax"),
    "overridden call": (
        lambda: OverridesCall(x := keras.Input((8,)), layers.Softmax()(x)),
        None,
    ),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_output_activation(case):
    build, expected = ACTIVATIONS[case]
    assert output_activation(build()) == expected


def test_layer_paths_list_nested_layers_too():
    model = sequential(twice_nested(), dense(2, "head"), name="all")
    nested = model.layers[0].name
    assert layer_paths(model) == [
        nested,
        f"{nested}/outer",
        f"{nested}/outer/inner",
        f"{nested}/outer/inner/hidden",
        f"{nested}/outer/inner/dropout",
        f"{nested}/outer/flatten",
        f"{nested}/dropout_1",
        f"{nested}/dense",
        "head",
    ]


def test_is_graph_tells_models_that_run_as_their_graph_says():
    class NothingOverridden(keras.Model):
        pass

    inputs = keras.Input((8,))
    outputs = dense()(inputs)
    assert is_graph(classifier())
    assert is_graph(keras.Model(inputs, outputs))
    assert is_graph(NothingOverridden(inputs, outputs))

    assert not is_graph(OverridesCall(inputs, outputs))
    subclassed = Subclassed()
    subclassed(ROWS)
    assert not is_graph(subclassed)
    assert not is_graph(keras.Sequential([dense()]))
    assert not is_graph(dense())
    assert not is_graph(None)
