"""A Keras 3 model around a tf_keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.compress.adapter import Adapter
from keras_lpd.compress.bridge import cross
from tests.compress.students import images, same, shake, student

L = keras.layers
REGULARIZED = [
    L.Conv2D(
        4,
        3,
        kernel_regularizer="l2",
        kernel_constraint=keras.constraints.MaxNorm(0.1, axis=[0, 1, 2]),
        activity_regularizer="l1",
    ),
    L.Dense(3, bias_regularizer="l1", activity_regularizer=keras.regularizers.L2(0.1)),
]


def adapted(model=None, features=()):
    model = model or shake(student())
    crossing = cross(model, features)
    return model, Adapter(crossing, crossing.model)


def cloned(layers):
    return [type(layer).from_config(layer.get_config()) for layer in layers]


def inner_weights(adapter):
    """The weights of the tf_keras model in the order of Keras 3."""
    inner = adapter.inner
    return [np.array(x) for x in inner.trainable_weights + inner.non_trainable_weights]


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_both_sides_share_their_variables():
    _, adapter = adapted()
    assert len(adapter.weights) == len(adapter.inner.weights) == 9
    shared = [weight.value for weight in adapter.weights]
    assert {id(one) for one in shared} == {id(one) for one in adapter.inner.weights}
    adapter.weights[0].assign(7 * np.ones(adapter.weights[0].shape))
    assert np.all(np.asarray(adapter.inner.weights[0]) == 7)
    assert len(adapter.trainable_weights) == len(adapter.inner.trainable_weights) == 7


def test_it_gives_outputs_and_features():
    model, adapter = adapted(features=["relu", "features"])
    x, _ = images()
    np.testing.assert_allclose(adapter(x), model(x), atol=1e-5)
    features, outputs = adapter(x, training=False, with_features=True)
    extract = keras.Model(
        model.inputs[0], [model.get_layer(name).output for name in ("relu", "features")]
    )
    assert list(features) == ["relu", "features"]
    for found, expected in zip(features.values(), extract(x)):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(outputs, model(x), atol=1e-5)


def test_gradients_and_losses_are_the_models_own():
    """With regularized kernels, biases and activities."""
    model, adapter = adapted(student(*cloned(REGULARIZED)))
    x, y = images(32)
    found = []
    for one in (model, adapter):
        with tf.GradientTape() as tape:
            total = loss()(y, one(x, training=True)) + sum(one.losses)
        found.append([total, *tape.gradient(total, one.trainable_weights)])
        assert float(sum(one.losses)) > 0.1
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


def test_it_trains_as_the_model_does():
    """Constraints and losses and all; batch normalization aside, where they differ."""
    model, adapter = adapted(student(*cloned(REGULARIZED)))
    x, y = images()
    logs = []
    for one in (model, adapter):
        one.compile(keras.optimizers.SGD(0.01), loss())
        logs.append(one.fit(x, y, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*logs, rtol=1e-4)
    for ours, theirs in zip(model.weights, adapter.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    norms = np.linalg.norm(np.asarray(adapter.weights[0]).reshape(-1, 4), axis=0)
    assert 0.05 < norms.max() < 0.1 + 1e-5


def test_weights_are_saved_and_loaded(tmp_path):
    _, adapter = adapted()
    adapter.save_weights(tmp_path / "weights.weights.h5")
    _, other = adapted(shake(student(seed=5), seed=5))
    assert not same(other.get_weights(), adapter.get_weights())
    other.load_weights(tmp_path / "weights.weights.h5")
    assert same(other.get_weights(), adapter.get_weights())
    assert same(inner_weights(other), adapter.get_weights())


def test_callbacks_save_and_restore(tmp_path):
    _, adapter = adapted()
    x, y = images()
    kept, path = [], tmp_path / "best.weights.h5"
    adapter.compile(keras.optimizers.Adam(0.5), loss())
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: kept.append(adapter.get_weights())
        ),
        keras.callbacks.EarlyStopping(
            "loss", mode="max", patience=2, restore_best_weights=True
        ),
        keras.callbacks.ModelCheckpoint(
            path, "loss", mode="max", save_best_only=True, save_weights_only=True
        ),
    ]
    logs = adapter.fit(x, y, epochs=9, callbacks=callbacks, verbose=0).history
    best = int(np.argmax(logs["loss"]))
    assert len(kept) == best + 3
    assert same(inner_weights(adapter), kept[best])
    adapter.set_weights(kept[-1])
    adapter.load_weights(path)
    assert same(inner_weights(adapter), kept[best])


def test_inputs_and_outputs_keep_their_structure():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    outputs = {"sum": L.Dense(2)(inputs["a"]), "other": L.Dense(1)(inputs["b"])}
    model, adapter = adapted(keras.Model(inputs, outputs))
    given = {"a": np.ones((2, 3)), "b": np.ones((2, 4)), "unused": np.ones(2)}
    found = adapter(given)
    assert set(found) == {"sum", "other"}
    expected = model({name: given[name] for name in "ab"})
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_it_cant_be_saved_as_a_whole(tmp_path):
    _, adapter = adapted()
    with pytest.raises(NotImplementedError, match="`save_weights`, or save what"):
        adapter.save(tmp_path / "student.keras")
