"""By what a model is known again."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from keras_lpd.fingerprint import fingerprint

layers = keras.layers

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")


def make_model(seed=0, names=("a", "b", "c"), name=None):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    one = layers.Dense(4, name=names[0])(inputs)
    other = layers.Dense(4, name=names[1])(inputs)
    hidden = layers.BatchNormalization()(layers.Add()([one, other]))
    outputs = layers.Dense(3, name=names[2])(layers.Dropout(0.5)(hidden))
    return keras.Model(inputs, outputs, name=name)


@pytest.fixture
def model():
    return make_model()


def assign(variable, change):
    value = np.array(keras.ops.convert_to_numpy(variable))
    variable.assign(change(value))


def test_a_fingerprint_is_of_the_weights_alone(model):
    one = fingerprint(model)
    assert one == fingerprint(make_model(names=("x", "y", "z")))
    clone = keras.models.clone_model(model)
    assert fingerprint(clone) != one  # other random weights
    clone.set_weights(model.get_weights())
    assert fingerprint(clone) == one
    assert fingerprint(make_model(seed=1)) != one


def test_use_leaves_the_fingerprint_as_it_is(model):
    before = fingerprint(model)
    model(X, training=False)
    model.compile("adam", "mse", metrics=["mae"])
    model.predict(X, verbose=0)
    model.evaluate(X, X[:, :3], verbose=0)
    model.trainable = False
    assert fingerprint(model) == before


def test_training_changes_the_fingerprint(model):
    before = fingerprint(model)
    model.compile("sgd", "mse")
    model.fit(X, X[:, :3], verbose=0)
    assert fingerprint(model) != before


def test_a_saved_model_has_the_same_fingerprint_elsewhere(model, tmp_path):
    model.compile("adam", "mse")
    model.fit(X, X[:, :3], verbose=0)
    model.save(tmp_path / "model.keras")
    assert fingerprint(keras.models.load_model(tmp_path / "model.keras")) == (
        fingerprint(model)
    )
    code = """
        import sys, keras
        from keras_lpd.fingerprint import fingerprint
        keras.Sequential([keras.Input((9,)), keras.layers.Dense(7)])
        print(fingerprint(keras.models.load_model(sys.argv[1])))
    """
    there = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "model.keras"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split()[-1] == fingerprint(model)


@pytest.mark.parametrize("index", range(10))
def test_the_smallest_change_of_any_weight_is_another_model(model, index):
    """Averages of batch normalization included."""

    def nudge(value):
        value.flat[-1] = np.nextafter(value.flat[-1], np.float32(9))
        return value

    before = fingerprint(model)
    assert len(model.weights) == 10
    assign(model.weights[index], nudge)
    assert fingerprint(model) != before


def test_the_same_numbers_in_other_places_are_another_model(model):
    before = fingerprint(model)
    one, other = model.get_layer("a"), model.get_layer("b")
    first, second = one.get_weights(), other.get_weights()
    one.set_weights(second)
    other.set_weights(first)
    assert fingerprint(model) != before


def test_the_same_bytes_in_another_shape_or_type_are_another_model():
    def ones(shape, units, dtype="float32"):
        dense = layers.Dense(units, use_bias=False, kernel_initializer="zeros")
        return keras.Sequential([keras.Input((shape,)), dense], name=dtype)

    keras.config.set_dtype_policy("float16")
    try:
        half = ones(2, 6)
    finally:
        keras.config.set_dtype_policy("float32")
    models = [ones(2, 3), ones(3, 2), ones(6, 1), half]
    assert len({fingerprint(model) for model in models}) == len(models)


def two_layers(activation="relu", scale=0.5, mean=0.0, skip=True):
    inputs = keras.Input((4,))
    x = layers.Rescaling(scale)(layers.Normalization(mean=mean, variance=1.0)(inputs))
    hidden = layers.Dense(4, activation=activation)(x)
    return keras.Model(inputs, layers.Dense(3)(hidden + x if skip else hidden))


@pytest.mark.parametrize(
    "change",
    [{"activation": "tanh"}, {"scale": 0.25}, {"mean": 1.0}, {"skip": False}],
    ids=str,
)
def test_the_same_weights_in_other_layers_are_another_model(change):
    one, same, other = two_layers(), two_layers(), two_layers(**change)
    for model in (same, other):
        model.set_weights(one.get_weights())
    assert fingerprint(same) == fingerprint(one)
    assert fingerprint(other) != fingerprint(one)


def test_a_nested_model_by_another_name_is_the_same():
    def nested(name):
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(5)], name=name)
        return keras.Sequential([keras.Input((4,)), inner, layers.Dense(3)])

    one, other = nested("backbone"), nested("body")
    other.set_weights(one.get_weights())
    assert fingerprint(other) == fingerprint(one)


def test_a_model_may_be_named_as_a_layer_in_it(model):
    assert fingerprint(make_model(name="a")) == fingerprint(model)


def test_names_that_come_again_in_a_nested_model_are_no_matter():
    def nested(inner, outer):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        hidden = layers.Dense(4, name=inner)(inputs)
        body = keras.Model(inputs, layers.Add()([hidden, inputs]))
        inputs = keras.Input((4,))
        hidden = layers.Dense(4, name=outer)(inputs)
        return keras.Model(inputs, layers.Add()([body(hidden), hidden]))

    assert fingerprint(nested("same", "same")) == fingerprint(nested("one", "other"))


def test_layers_of_the_same_weights_wired_otherwise_are_another_model():
    def wired(turn):
        inputs = keras.Input((4,))
        one = layers.Dense(4, kernel_initializer="identity")(inputs)
        other = layers.Dense(4, kernel_initializer="ones")(inputs)
        ends = [inputs, one, other]
        outputs = layers.Concatenate()([ends[i] for i in turn])
        return keras.Model(inputs, outputs)

    prints = {fingerprint(wired(turn)) for turn in ((0, 1, 2), (1, 0, 2), (1, 2, 0))}
    assert len(prints) == 3
    assert fingerprint(wired((0, 1, 2))) in prints


def test_another_precision_is_another_model():
    def model(dtype):
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype=dtype)])

    one, half = model("float32"), model("mixed_float16")
    assert one.weights[0].dtype == half.weights[0].dtype
    np.testing.assert_array_equal(one.get_weights()[0], half.get_weights()[0])
    assert fingerprint(half) != fingerprint(one)


class Configured(layers.Layer):
    """A layer of somebody's, with settings by any name."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def call(self, inputs):
        return 1.0 * inputs

    def get_config(self):
        return {**super().get_config(), **self.settings}


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("units", 3, 4),
        ("layers", 3, 4),
        ("layers", [64, 32], [64, 16]),
        ("layers", ["conv", "dense"], ["conv", "conv"]),
        ("layers", [{"units": 3}], [{"units": 4}]),
        ("shape", 3, 4),
        ("shape", (3, 4), (2, 4)),
        ("shape", {"a": 1}, {"a": 2}),
        ("class_name", 3, 4),
        ("config", [3], [4]),
    ],
    ids=str,
)
def test_layers_may_have_settings_by_any_name(key, one, other):
    def model(value):
        layer = Configured({key: value})
        return keras.Sequential([keras.Input((4,)), layer])

    assert fingerprint(model(one)) == fingerprint(model(one))
    assert fingerprint(model(one)) != fingerprint(model(other))


def test_a_part_that_was_compiled_is_no_matter():
    part = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), part, layers.Dense(2)])
    before = fingerprint(model)
    part.compile("adam", "mse")
    part.trainable = False
    assert fingerprint(model) == before


def test_a_saved_model_with_a_lambda_is_the_same(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.Lambda(lambda x: 2.0 * x + 1.0)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert fingerprint(loaded) == fingerprint(model)


def test_the_batch_that_built_a_model_is_no_matter():
    def built_by(batch):
        model = keras.Sequential([layers.Dense(5), layers.Dense(3)])
        model(batch)
        return model

    one, other = built_by(X), built_by(X[:3])
    other.set_weights(one.get_weights())
    assert fingerprint(other) == fingerprint(one)
