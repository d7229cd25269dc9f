"""From Keras 3 to tf_keras and back."""

import keras
import numpy as np
import pytest

from keras_lpd.compress.bridge import TOLERANCE, cross, difference, layer_at, probe
from keras_lpd.features import FeatureExtractor, layer_paths
from keras_lpd.models import Maxout, cnn_student, fitnet, mnist_student, resnet
from tests.compress.students import same, shake, student
from tests.subclassed import TwoLayers

L = keras.layers
applications = keras.applications

MODELS = {
    "cnn": cnn_student,
    "resnet": lambda: resnet(8, input_shape=(16, 16, 3)),
    "fitnet": lambda: fitnet(1, (8, 8, 3)),
    "mnist": mnist_student,
    "mobilenet_v2": lambda: applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=10
    ),
    "resnet50": lambda: applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_give_the_same_and_come_back(name):
    keras.utils.set_random_seed(0)
    model = shake(MODELS[name]())
    before = model.get_weights()
    crossing = cross(model)
    (inputs,) = probe(crossing)
    ours = model(inputs, training=False)
    theirs = crossing.model(inputs, training=False)
    assert difference(ours, theirs) <= 5e-6
    back = crossing.back(crossing.model)
    assert same(back.get_weights(), before)
    assert np.array_equal(back(inputs, training=False), ours)
    assert same(model.get_weights(), before)
    assert set(crossing.names) <= set(layer_paths(back))


def test_weights_that_were_trained_come_back():
    model = shake(student())
    before = model.get_weights()
    crossing = cross(model)
    crossing.model.set_weights([2 * w for w in crossing.model.get_weights()])
    assert same(crossing.back(crossing.model).get_weights(), [2 * w for w in before])
    assert same(model.get_weights(), before)


ON_MAPS = [
    L.Conv2D(4, 3, padding="same", strides=2, activation="silu"),
    L.Conv2D(4, 3, dilation_rate=2, groups=2, activation="leaky_relu"),
    L.Conv2D(4, 3, activation="relu6"),
    L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
    L.DepthwiseConv2D(3, depth_multiplier=2, activation="elu"),
    L.SeparableConv2D(5, 3, padding="same", activation="gelu"),
    L.BatchNormalization(epsilon=0.1),
    L.BatchNormalization(center=False, scale=False),
    L.LayerNormalization(epsilon=0.1),
    L.GroupNormalization(2),
    L.UnitNormalization(),
    L.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]),
    L.Normalization(mean=0.5, variance=4.0, axis=None),
    L.Rescaling(1 / 255.0, offset=-0.5),
    L.Activation("relu6"),
    L.Activation("softplus"),
    L.Activation("mish"),
    L.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.2),
    L.LeakyReLU(negative_slope=0.17),
    L.ELU(0.7),
    L.PReLU(shared_axes=[1, 2]),
    L.Softmax(axis=-1),
    L.MaxPooling2D(3, strides=2, padding="same"),
    L.AveragePooling2D(2, padding="same"),
    L.GlobalAveragePooling2D(keepdims=True),
    L.GlobalMaxPooling2D(),
    L.ZeroPadding2D(((1, 2), (0, 3))),
    L.Cropping2D(((1, 0), (0, 1))),
    L.UpSampling2D(2, interpolation="bilinear"),
    L.Flatten(),
    L.Reshape((-1, 8)),
    L.Permute((3, 1, 2)),
    L.Dropout(0.5),
    L.SpatialDropout2D(0.5),
    L.GaussianNoise(0.5),
    L.GaussianDropout(0.5),
    L.AlphaDropout(0.5),
    L.Identity(),
    L.ActivityRegularization(l2=0.1),
    Maxout(2),
]


@pytest.mark.parametrize("layer", ON_MAPS, ids=lambda layer: layer.name)
def test_layers_on_maps(layer):
    check_layers([layer], (6, 5, 4))


ON_SEQUENCES = [
    L.Conv1D(4, 3, padding="causal", activation="tanh"),
    L.Conv1DTranspose(4, 3),
    L.SeparableConv1D(4, 3),
    L.DepthwiseConv1D(3),
    L.MaxPooling1D(2),
    L.AveragePooling1D(2),
    L.GlobalAveragePooling1D(),
    L.GlobalMaxPooling1D(),
    L.ZeroPadding1D(2),
    L.Cropping1D(1),
    L.UpSampling1D(2),
    L.SpatialDropout1D(0.5),
    L.Dense(4, use_bias=False, activation="sigmoid"),
    Maxout(2),
]


@pytest.mark.parametrize("layer", ON_SEQUENCES, ids=lambda layer: layer.name)
def test_layers_on_sequences(layer):
    check_layers([layer], (6, 4))


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv3D(2, 2),
        L.MaxPooling3D(2),
        L.GlobalAveragePooling3D(),
        L.ZeroPadding3D(1),
        L.UpSampling3D(2),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_on_volumes(layer):
    check_layers([layer], (4, 4, 4, 2))


def test_layers_on_vectors():
    check_layers([L.RepeatVector(3), L.Flatten(), L.Dense(6), Maxout(3)], (4,))


def check_layers(layers, shape):
    model = shake(keras.Sequential([keras.Input(shape), *layers]))
    crossing = cross(model)
    (inputs,) = probe(crossing)
    theirs = crossing.model(inputs, training=False)
    assert difference(model(inputs, training=False), theirs) <= 1e-6
    assert same(crossing.back(crossing.model).get_weights(), model.get_weights())


@pytest.mark.parametrize(
    "merge",
    [
        L.Add(), L.Subtract(), L.Multiply(), L.Average(), L.Maximum(), L.Minimum(),
        L.Concatenate(axis=1), L.Dot(axes=1, normalize=True),
    ],
    ids=lambda layer: layer.name,
)  # fmt: skip
def test_several_inputs_and_outputs(merge):
    """In a dict and in a list; each in its own order on the other side."""
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    a, b = L.Dense(5, name="of_a")(inputs["a"]), L.Dense(5, name="of_b")(inputs["b"])
    model = keras.Model(inputs, [merge([b, a]), a])
    crossing = cross(model, ["of_b"])
    given = dict(zip("ab", probe(crossing)))
    assert given["a"].shape == (8, 3)
    ours = [*model(given), FeatureExtractor(model, ["of_b"])(given, False)["of_b"]]
    theirs = crossing.model(list(given.values()), training=False)
    for one, other in zip(ours, theirs, strict=True):
        assert difference(one, other) <= 1e-6


def nested(**kwargs):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((8,)), L.Dense(6, name="inside"), L.ReLU(name="end")], name="inner"
    )
    inputs = keras.Input((8,))
    middle = L.BatchNormalization(name="norm")(inner(inputs))
    block = keras.Model(inputs, L.Dropout(0.5)(middle), name="block")
    inputs = keras.Input((8,))
    outputs = L.Dense(3, name="inside")(block(inputs, **kwargs))
    return shake(keras.Model(inputs, outputs, name="outer"))


def test_nested_models_are_flattened():
    model = nested()
    crossing = cross(model, ["block/inner/end", "block", "block/inner/inside"])
    assert crossing.names["block/inner/inside"] != crossing.names["inside"]
    assert not any(isinstance(x, type(crossing.model)) for x in crossing.model.layers)
    (inputs,) = probe(crossing)
    ours = FeatureExtractor(model, crossing.features)(inputs, training=False)
    outputs, *features = crossing.model(inputs, training=False)
    assert difference(ours[""], outputs) <= 1e-6
    for path, found in zip(crossing.features, features, strict=True):
        assert difference(ours[path], found) <= 1e-6
    assert same(crossing.back(crossing.model).get_weights(), model.get_weights())


def test_what_is_called_for_inference_stays_so():
    """As in Keras's guide to transfer learning: `backbone(x, training=False)`."""
    crossing = cross(nested(training=False))
    (inputs,) = probe(crossing)
    calm = crossing.model(inputs, training=False)
    before = crossing.model.get_weights()
    assert difference(calm, crossing.model(inputs, training=True)) <= 1e-6
    assert same(before, crossing.model.get_weights())
    trained = cross(nested())
    assert difference(calm, trained.model(inputs, training=True)) > 0.01


def test_frozen_layers_stay_frozen():
    model = student()
    model.get_layer("conv").trainable = False
    crossing = cross(model)
    assert len(crossing.model.trainable_weights) == len(model.trainable_weights) == 6
    assert not layer_at(crossing.back(crossing.model), "conv").trainable


def test_mixed_precision_crosses_in_float32_and_comes_back():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = student()
    finally:
        keras.config.set_dtype_policy("float32")
    crossing = cross(model)
    (inputs,) = probe(crossing)
    assert crossing.model(inputs).dtype == "float32"
    back = crossing.back(crossing.model)
    assert layer_at(back, "conv").compute_dtype == "bfloat16"
    assert same(back.get_weights(), model.get_weights())


def test_inputs_are_as_wide_as_a_rescaling_expects():
    """A model of bytes is compared on bytes."""
    model = student(L.Rescaling(1 / 255.0), L.Conv2D(4, 3))
    (inputs,) = probe(cross(model))
    assert inputs[:4].max() > 200 and inputs[:4].min() >= 0
    (inputs,) = probe(cross(keras.Sequential([keras.Input((8,)), model_of_bytes()])))
    assert inputs[:4].max() > 200


def model_of_bytes():
    return keras.Sequential([keras.Input((8,)), L.Rescaling(1 / 255.0), L.Dense(2)])


# Refusals


@keras.saving.register_keras_serializable(package="tests")
class Doubled(L.Layer):
    def call(self, inputs):
        return 2 * inputs


class Wider(L.Dense):
    pass


@pytest.mark.parametrize(
    "layer, words",
    [
        (L.Lambda(lambda x: 2 * x, name="odd"), "Lambda"),
        (Doubled(name="odd"), "custom layer"),
        (Wider(3, name="odd"), "custom layer"),
        (L.RandomFlip(name="odd"), "data pipeline"),
        (L.RandomRotation(0.1, name="odd"), "data pipeline"),
        (L.Resizing(4, 4, name="odd"), "data pipeline"),
        (L.Activation("hard_silu", name="odd"), "no activation 'hard_silu'"),
        (L.Conv2D(2, 3, activation="celu", name="odd"), "no activation 'celu'"),
        (L.Dense(2, activation=lambda x: x + 1, name="odd"), "no activation"),
        (
            L.EinsumDense("abcd,de->abce", (8, 8, 5), name="odd"),
            "needs: it isn't provided for here. Use another",
        ),
        (L.Pipeline([L.ReLU()], name="odd"), "needs: tf_keras has none. Use another"),
        (L.LayerNormalization(rms_scaling=True, name="odd"), "rms_scaling"),
        (TwoLayers(name="odd"), "subclassed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)
def test_layers_that_cant_cross_are_named(layer, words):
    inner = keras.Sequential([keras.Input((8, 8, 1)), layer], name="inner")
    model = keras.Sequential([keras.Input((8, 8, 1)), inner, L.Flatten(), L.Dense(2)])
    with pytest.raises(ValueError, match=f"Layer 'inner/odd'.*{words}"):
        cross(model)


def test_operations_are_refused_with_what_to_do():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(keras.ops.sin(inputs) * 2))
    with pytest.raises(ValueError, match="operation of `keras.ops`.*Use a layer"):
        cross(model)


def test_shared_layers_are_refused():
    shared, inputs = L.Dense(4, name="shared"), keras.Input((4,))
    with pytest.raises(ValueError, match="'shared'.*more than once"):
        cross(keras.Model(inputs, shared(shared(inputs))))
    block = keras.Sequential([keras.Input((4,)), shared], name="block")
    with pytest.raises(ValueError, match="'block/shared'.*more than once"):
        cross(keras.Model(inputs, block(block(inputs))))


def test_calls_with_arguments_are_refused():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dropout(0.5, name="drop")(inputs, training=True))
    with pytest.raises(ValueError, match="'drop'.*arguments of its own"):
        cross(model)


def test_subclassed_and_unbuilt_models_are_refused():
    model = TwoLayers()
    with pytest.raises(ValueError, match="not built"):
        cross(model)
    model(np.zeros((1, 4), "float32"))
    with pytest.raises(ValueError, match="subclassed model"):
        cross(model)


def test_unknown_feature_layers_are_refused():
    with pytest.raises(ValueError, match="no layer 'flaten'. Did you mean: flatten"):
        cross(student(), ["flaten"])


@pytest.mark.parametrize(
    "layer", [L.Activation("hard_sigmoid"), L.Dense(4, activation="hard_sigmoid")]
)
def test_another_formula_is_found_by_numbers(layer):
    """`hard_sigmoid` is x / 6 + 0.5 here and x / 5 + 0.5 there."""
    layer.name = "hard"
    model = student(L.Conv2D(3, 3), L.ReLU(), layer, L.Conv2D(3, 3))
    with pytest.raises(ValueError, match=r"e-0\d of the.*'hard' .*hard_sigmoid"):
        cross(model)


def test_difference():
    assert difference([1.0, 4.0], [1.0, 3.0]) == 0.25
    assert difference([0.0], [0.0]) == 0.0
    assert difference([0.0], [1e-9]) > TOLERANCE
    assert difference([], []) == 0.0
    assert not difference([1.0], [np.nan]) <= TOLERANCE
