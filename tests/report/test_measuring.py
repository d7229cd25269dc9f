import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_lpd.report.measuring import file_bytes, latency


def small(units=40):
    return keras.Sequential([keras.Input((4,)), layers.Dense(units), layers.Dense(1)])


class Unsaveable(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)

    def get_config(self):
        raise NotImplementedError


class Unloadable(Unsaveable):
    def get_config(self):
        return {"forgotten": 1}


def test_bytes_are_those_of_the_saved_file(tmp_path):
    model = small()
    model.save(tmp_path / "model.keras")
    size, instead = file_bytes(model)
    assert abs(size - (tmp_path / "model.keras").stat().st_size) < 500
    assert instead == ""


def test_bytes_leave_the_optimizer_out():
    model = small(2000)
    before = file_bytes(model)
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
    steps = model.optimizer.iterations.numpy()
    assert file_bytes(model) == before
    assert model.compiled and model.optimizer.iterations.numpy() == steps


def test_bytes_of_models_with_lambdas():
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)])
    model.compile("sgd", "mse")
    size, instead = file_bytes(model)
    assert size > 0 and instead == ""


def test_bytes_of_models_that_cannot_be_saved_or_loaded(tmp_path):
    weights = 4 * (4 * 3 + 3)
    unloadable, unsaveable = Unloadable(), Unsaveable()
    for model in (unloadable, unsaveable):
        model(np.ones((1, 4)))
    unloadable.save(tmp_path / "model.keras")
    plain = (tmp_path / "model.keras").stat().st_size
    assert file_bytes(unloadable) == (plain, "")  # It has no optimizer to leave out.
    unloadable.compile("adam", "mse")
    for model, why in ((unloadable, "loaded"), (unsaveable, "saved")):
        size, instead = file_bytes(model)
        assert size == weights
        assert f"its weights alone, as it can't be {why}: " in instead


def test_latency_is_that_of_compiled_inference():
    class Counting(layers.Layer):
        python, runs, trained = 0, 0, False

        def call(self, inputs, training=False):
            Counting.python += 1
            Counting.trained |= bool(training)

            def count(x):
                Counting.runs += 1
                return x

            return tf.ensure_shape(
                tf.numpy_function(count, [inputs], inputs.dtype), inputs.shape
            )

        def compute_output_shape(self, shape):
            return shape

    model = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(2)])
    Counting.python = Counting.runs = 0
    found = latency(model, tf.ones((1, 4)), 7)
    assert found.device in ("CPU", "GPU")
    assert 0 < found.milliseconds < 10_000
    assert Counting.python == 1  # traced once, and never run layer by layer
    assert Counting.runs >= 7 + 10  # some that warm up
    assert not Counting.trained


def test_latency_of_models_with_several_inputs_and_outputs():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    model = keras.Model(inputs, [layers.Dense(1)(one) for one in inputs.values()])
    sample = {"b": tf.ones((1, 3)), "a": tf.ones((1, 4))}
    assert latency(model, sample, 2).milliseconds > 0
