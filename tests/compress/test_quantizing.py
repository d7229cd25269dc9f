"""Quantisation aware training while distilling."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller
from keras_lpd.compress import cluster, quantize_aware
from keras_lpd.compress.packages import load
from keras_lpd.models import Maxout, cnn_teacher
from tests.compress.students import distiller, images, pruned, same, shake, student

L = keras.layers


def accuracy(model, digits):
    found = np.asarray(model(digits.x_test, training=False)).argmax(1)
    return np.mean(found == digits.y_test)


def converted(model, inputs):
    """What an int8 file of the model gives, as far as to the classes, and its types."""
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    interpreter = Interpreter(model_content=converter.convert())
    given, found = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given[0]["index"], inputs.shape)
    interpreter.allocate_tensors()
    scale, zero = given[0]["quantization"]
    rounded = np.clip(np.round(inputs / scale + zero), -128, 127).astype("int8")
    interpreter.set_tensor(given[0]["index"], rounded)
    interpreter.invoke()
    types = {one["dtype"].__name__ for one in interpreter.get_tensor_details()}
    return interpreter.get_tensor(found[0]["index"]).argmax(1), types


def test_it_starts_where_the_student_was(digits, trained):
    """Without ranges it would know nothing; with those of a few samples, all."""
    weights = trained.get_weights()
    result = quantize_aware(LPDistiller(cnn_teacher((8, 8, 1)), trained))
    before = accuracy(trained, digits)
    assert accuracy(result.student, digits) < 0.3 < 0.9 < before
    with pytest.raises(ValueError, match="`fit` first, or `calibrate"):
        result.strip()
    result.calibrate(digits.x_train[:200], batch_size=64)
    assert accuracy(result.student, digits) >= before - 0.01

    result.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    result.fit(digits.x_train, digits.y_train, verbose=0)
    assert accuracy(result.student, digits) >= before - 0.02
    classes, types = converted(result.strip(), digits.x_test)
    expected = np.asarray(result.predict(digits.x_test, verbose=0)).argmax(1)
    assert np.mean(classes == expected) >= 0.98
    assert types <= {"int8", "int32"}
    assert same(trained.get_weights(), weights)


def test_fit_sets_the_ranges_by_its_first_batch():
    """And once; with statistics of batch normalization as they were."""
    model = shake(student())
    x, y = images()
    result = quantize_aware(distiller(model))
    result.compile(keras.optimizers.SGD(0.0), "mse")
    data = ((x[i : i + 32], np.eye(3)[y[i : i + 32]]) for i in (0, 32, 64))
    result.fit(data, verbose=0)  # of which each batch comes only once
    other = quantize_aware(distiller(model))
    other.calibrate(x[:32])
    norm = other.student.inner.get_layer("quant_norm").layer
    assert same(norm.get_weights(), model.get_layer("norm").get_weights())
    assert norm.trainable
    for ours, theirs in zip(ranges(result), ranges(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=0.01)


def ranges(distiller):
    variables = distiller.student.inner.non_trainable_variables
    return [v.numpy() for v in variables if v.name.endswith(("_min:0", "_max:0"))]


def test_ranges_are_those_of_the_results():
    model = shake(student(L.Conv2D(4, 3, activation="relu"), L.Dropout(0.9)))
    result = quantize_aware(distiller(model))
    x, _ = images()
    result.calibrate(x, batch_size=40)
    found = {v.name: float(v) for v in result.student.inner.variables if v.shape == ()}
    features = keras.Model(model.inputs[0], model.get_layer("features").output)(x)
    highest = found["quant_features/post_activation_max:0"]
    assert highest == pytest.approx(float(np.max(features)), rel=0.03)
    logits = model(x)
    for name, value in (("min", np.min(logits)), ("max", np.max(logits))):
        range_end = found[f"quant_logits/post_activation_{name}:0"]
        expected = float(min(0, value) if name == "min" else max(0, value))
        assert range_end == pytest.approx(expected, abs=0.03 * float(np.ptp(logits)))


@pytest.mark.parametrize("clusters", [None, 6])
def test_zeros_stay(clusters):
    """And after both, the values as well."""
    x, y = images()
    given = cluster(pruned(), clusters) if clusters else pruned()
    before = given.kernels()
    result = quantize_aware(given)
    result.compile(keras.optimizers.Adam(0.01, weight_decay=0.1), "mse")
    result.fit(x, np.eye(3)[y], epochs=2, verbose=0)
    for path, kernel in result.kernels().items():
        assert np.all(kernel[before[path] == 0] == 0)
        assert np.mean(kernel == 0) >= 0.5
        assert not np.allclose(kernel, before[path])
        if clusters and path != "conv":
            assert len(np.unique(kernel)) <= clusters
    result.strip()


def test_values_stay():
    x, y = images()
    result = quantize_aware(cluster(distiller(shake(student())), 6))
    result.fit(x, y, epochs=2, verbose=0)
    kernels = result.kernels()
    assert list(kernels) == ["conv", "features", "logits"]
    for path in ("features", "logits"):
        assert 3 <= len(np.unique(kernels[path])) <= 6
    for number in range(8):  # Each filter has a scale of its own.
        assert len(np.unique(kernels["conv"][..., number])) <= 6
    result.strip()


def test_what_is_lost_is_told():
    result = quantize_aware(pruned())
    result.calibrate(images()[0])
    result._expected["features"] = np.zeros_like(result._expected["features"])
    with pytest.raises(ValueError, match="'features' has lost zeros"):
        result.strip()


BODIES = {
    "rescaling": [L.Rescaling(1 / 255.0), L.Conv2D(4, 3, name="conv")],
    "relu": [L.Conv2D(4, 3, name="conv"), L.ReLU()],
    "activation": [L.Conv2D(4, 3, name="conv"), L.Activation("relu")],
    "relu6": [L.Conv2D(4, 3, name="conv"), L.ReLU(6.0)],
    "maxout": [L.Conv2D(4, 3, name="conv"), Maxout(2)],
    "norm_first": [L.BatchNormalization(), L.Conv2D(4, 3, name="conv")],
    "others": [
        L.GaussianNoise(0.1),
        L.Conv2D(4, 3, name="conv"),
        L.Activation("elu"),
        L.SpatialDropout2D(0.5),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.BatchNormalization(),
        L.LeakyReLU(0.2),
    ],
}


@pytest.mark.parametrize("name", BODIES)
def test_layers_that_tfmot_refuses_or_leaves_out(name):
    """All of them are quantised: kernels have no more values than 8 bits give."""
    layers = [type(one).from_config(one.get_config()) for one in BODIES[name]]
    model = shake(student(*layers))
    x, _ = images()
    x = 255 * x if name == "rescaling" else x
    result = quantize_aware(distiller(model))
    result.calibrate(x)
    kernels = result.kernels()
    assert {"conv", "features", "logits"} <= set(kernels)
    assert not np.array_equal(kernels["conv"], model.get_layer("conv").kernel)
    assert np.allclose(kernels["conv"], model.get_layer("conv").kernel, atol=0.02)
    found, expected = result.strip()(x, training=False), model(x, training=False)
    assert np.max(np.abs(found - expected)) < 0.05 * np.max(np.abs(expected))
    if name in ("rescaling", "maxout"):
        classes, _ = converted(result.strip(), x)
        assert np.mean(classes == np.argmax(expected, 1)) > 0.9


def test_features_before_a_relu_are_those_before_it():
    """Though convolution and ReLU are one for tfmot."""
    layers = [L.Conv2D(4, 3, name="conv"), L.ReLU(name="relu")]
    model = shake(student(*layers))
    x, _ = images()
    result = quantize_aware(distiller(model, student_layer="conv"))
    result.calibrate(x)
    found = result.feature_extractor("student")(x, training=False)["conv"]
    expected = keras.Model(model.inputs[0], model.get_layer("conv").output)(x)
    assert float(np.min(found)) < 0
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert "conv" in result.kernels()


def test_training_goes_on_from_saved_weights(tmp_path):
    """Ranges come along, and are not set again."""
    x, y = images()
    first = quantize_aware(distiller(shake(student())))
    first.fit(x, y, verbose=0)
    first.student.save_weights(tmp_path / "student.weights.h5")
    second = quantize_aware(distiller(student(seed=4)))
    assert not second.calibrated
    second.student.load_weights(tmp_path / "student.weights.h5")
    assert second.calibrated
    np.testing.assert_array_equal(second.student(x), first.student(x))


def test_the_result_is_loaded_from_h5(tmp_path):
    """Not from `.keras`, as far as tf_keras can."""
    tfmot, tf_keras = load("tensorflow_model_optimization"), load("tf_keras")
    x, _ = images()
    result = quantize_aware(distiller(shake(student())))
    result.calibrate(x)
    model = result.strip()
    model.save(tmp_path / "model.h5")
    with tfmot.quantization.keras.quantize_scope():
        loaded = tf_keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(loaded(x), model(x))


# Refusals


def test_mixed_precision_is_refused():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = student()
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match="'conv'.*computes in bfloat16"):
        quantize_aware(distiller(model))


def test_activations_before_a_batch_normalization_are_refused():
    model = student(
        L.Conv2D(4, 3, activation="relu", name="conv"),
        L.BatchNormalization(name="norm"),
    )
    with pytest.raises(ValueError, match="'conv'.*'relu', stands before.*'norm'"):
        quantize_aware(distiller(model))


@pytest.mark.parametrize(
    "layer, words",
    [
        (L.LayerNormalization(name="odd"), "no way to"),
        (L.Conv2D(4, 3, activation="elu", name="odd"), "a layer of its own"),
    ],
)
def test_what_cant_be_quantised_is_named(layer, words):
    with pytest.raises(ValueError, match=f"'odd'.*can't be quantised.*{words}"):
        quantize_aware(distiller(student(layer)))
