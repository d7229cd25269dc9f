"""LiteRT files: what is in them, and what is refused."""

import importlib.util
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller
from keras_lpd.compress import to_litert
from keras_lpd.compress.litert_file import LiteRTFile
from keras_lpd.compress.representative import take_samples
from keras_lpd.compress.signature import Signature
from keras_lpd.models import cnn_student, cnn_teacher
from tests.subclassed import TwoLayers

L = keras.layers


def model_of(*layers, shape=(6,), dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def parity(model, path, inputs, atol=1e-5):
    """The file gives what the model gives."""
    expected = model(inputs, training=False)
    np.testing.assert_allclose(LiteRTFile(path).predict(inputs), expected, atol=atol)


# What is in the files


@pytest.mark.parametrize(
    "kind, of_the_range", [("float32", 1e-6), ("float16", 1e-3), ("int8", 0.03)]
)
def test_files_give_what_the_model_gives(files, trained, digits, kind, of_the_range):
    expected = trained.predict(digits.x_test, verbose=0)
    found = LiteRTFile(files[kind]).predict(digits.x_test)
    assert np.abs(found - expected).max() <= of_the_range * np.ptp(expected)
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.985


def test_int16x8_is_closer_than_int8(files, trained, digits):
    expected = trained.predict(digits.x_test, verbose=0)
    errors = {
        kind: np.abs(LiteRTFile(files[kind]).predict(digits.x_test) - expected).mean()
        for kind in ("int8", "int16x8")
    }
    assert errors["int16x8"] < errors["int8"]


@pytest.mark.parametrize(
    "kind, dtype",
    [
        ("float32", "float32"),
        ("float16", "float32"),
        ("int8", "int8"),
        ("int16x8", "int16"),
    ],
)
def test_what_files_are_made_of(files, kind, dtype):
    file = LiteRTFile(files[kind])
    assert file.kind == kind
    assert list(file.input_dtypes.values()) == [dtype]
    assert file.output_dtype == dtype
    assert file.quantized == kind.startswith("int")


@pytest.mark.parametrize("kind", ["int8", "int16x8"])
def test_files_of_integers_may_take_floats(trained, digits, files, tmp_path, kind):
    path = to_litert(trained, tmp_path / "s", kind, digits.x_train, float_io=True)
    file = LiteRTFile(path)
    assert file.kind == kind
    assert list(file.input_dtypes.values()) == [file.output_dtype] == ["float32"]
    found = file.predict(digits.x_test)
    np.testing.assert_allclose(
        found.argmax(1), LiteRTFile(files[kind]).predict(digits.x_test).argmax(1)
    )


def test_sizes_of_a_realistic_student(tmp_path):
    student = cnn_student((28, 28, 1))
    data = np.random.default_rng(0).random((60, 28, 28, 1), "float32")
    sizes = {
        kind: to_litert(student, tmp_path / "s", kind, data).stat().st_size
        for kind in (None, "float16", "int8")
    }
    assert sizes[None] < 4 * student.count_params() + 4096
    assert sizes["float16"] < 0.56 * sizes[None]
    assert sizes["int8"] < 0.34 * sizes[None]


@needs("ai_edge_litert")
def test_a_fresh_process_needs_no_tensorflow(files, trained, digits, tmp_path):
    np.save(tmp_path / "x.npy", digits.x_test[:5])
    code = f"""
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path={str(files["float32"])!r})
run = interpreter.get_signature_runner()
(name,) = run.get_input_details()
x = np.load({str(tmp_path / "x.npy")!r})
found = [run(**{{name: x[i : i + 1]}})["logits"][0] for i in range(5)]
assert not {{"tensorflow", "keras", "keras_lpd"}} & set(sys.modules)
np.save({str(tmp_path / "found.npy")!r}, found)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    expected = trained.predict(digits.x_test[:5], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


def test_nothing_is_printed(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = np.random.default_rng(0).random((60, 6))
        to_litert(model_of(L.Dense(2)), tmp_path / "s", "int8", data)
    assert capfd.readouterr() == ("", "")


# What can be converted


def test_inputs_have_their_names(tmp_path):
    a, b = keras.Input((3,), name="b"), keras.Input((4,), name="a")
    model = keras.Model([a, b], L.Dense(2)(L.Concatenate()([b, a])))
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 3)), rng.random((60, 4))
    file = LiteRTFile(to_litert(model, tmp_path / "s", "int8", ([x, y],)))
    assert file.input_dtypes == {"a": "int8", "b": "int8"}
    found = file.predict({"a": y, "b": x})
    np.testing.assert_allclose(found, model([x, y]), atol=0.05)


def test_a_dict_of_inputs(tmp_path):
    inputs = {n: keras.Input((3 + i,), name=n) for i, n in enumerate(["x 2", "x 1"])}
    hidden = L.Concatenate()([inputs["x 2"], inputs["x 1"]])
    model = keras.Model(inputs, L.Dense(2)(hidden))
    rng = np.random.default_rng(0)
    data = {"x 1": rng.random((60, 4)), "x 2": rng.random((60, 3))}
    file = LiteRTFile(to_litert(model, tmp_path / "s", "int8", data))
    found = file.predict({"x_1": data["x 1"], "x_2": data["x 2"]})
    np.testing.assert_allclose(found, model(data), atol=0.05)


def test_numbers_of_words(tmp_path):
    model = model_of(
        L.Embedding(10, 4), L.GlobalAveragePooling1D(), L.Dense(3),
        shape=(5,), dtype="int32",
    )  # fmt: skip
    data = np.random.default_rng(0).integers(0, 10, (100, 5))
    file = LiteRTFile(to_litert(model, tmp_path / "s", "int8", data))
    assert list(file.input_dtypes.values()) == ["int32"]
    np.testing.assert_allclose(file.predict(data), model(data), atol=0.01)


def test_subclassed_models(tmp_path):
    x = np.random.default_rng(0).random((60, 4), "float32")
    model = TwoLayers()
    model(x[:7])
    parity(model, to_litert(model, tmp_path / "s"), x)
    parity(model, to_litert(model, tmp_path / "s", "int8", x), x, atol=0.05)


def test_shapes_that_a_model_leaves_open(tmp_path):
    model = model_of(L.Conv2D(3, 3), L.GlobalMaxPooling2D(), shape=(None, None, 1))
    x = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
    with pytest.raises(ValueError, match="representative_data"):
        to_litert(model, tmp_path / "s")
    parity(model, to_litert(model, tmp_path / "s", representative_data=x), x)


def test_models_that_do_not_tell(tmp_path):
    class Several(TwoLayers):
        def call(self, inputs):
            return super().call(inputs["a"])

    model = Several()
    x = {"a": np.ones((3, 4), "float32")}
    model(x)
    with pytest.raises(ValueError, match="does not tell what it takes"):
        to_litert(model, tmp_path / "s")
    path = to_litert(model, tmp_path / "s", representative_data=x)
    np.testing.assert_allclose(LiteRTFile(path).predict(x), model(x), atol=1e-5)


def test_mixed_precision_and_dropout(tmp_path):
    half = L.Dense(4, dtype="mixed_float16")
    model = model_of(half, L.Dropout(0.5), L.Dense(2))
    path = to_litert(model, tmp_path / "s")
    assert half.compute_dtype == "float16"
    parity(model, path, np.ones((2, 6), "float32"), atol=1e-2)


def test_a_distiller_gives_its_student(tmp_path):
    distiller = LPDistiller(cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1)))
    path = to_litert(distiller, tmp_path / "s")
    parity(distiller.student, path, np.ones((1, 8, 8, 1), "float32"))


def test_loops_have_to_be_unrolled_for_integers(tmp_path):
    x = np.random.default_rng(0).random((60, 5, 3), "float32")
    model = model_of(L.LSTM(4), shape=(5, 3))
    parity(model, to_litert(model, tmp_path / "s"), x)
    with pytest.raises(ValueError, match="unroll=True"):
        to_litert(model, tmp_path / "s", "int8", x)
    model = model_of(L.LSTM(4, unroll=True), shape=(5, 3))
    parity(model, to_litert(model, tmp_path / "s", "int8", x), x, atol=0.1)


def test_floats_among_integers_are_told_of(tmp_path):
    model = model_of(L.LayerNormalization(name="norm"), L.Dense(2))
    data = np.random.default_rng(0).random((60, 6))
    with pytest.warns(UserWarning, match="not of integers throughout.*norm"):
        path = to_litert(model, tmp_path / "s", "int8", data)
    assert LiteRTFile(path).kind == "int8 and float32"


class Bessel(keras.layers.Layer):
    def call(self, x):
        return tf.math.special.bessel_i0(x)


@pytest.mark.parametrize(
    "layer, quantize, message",
    [
        (Bessel(name="odd"), None, "no operation for BesselI0.*odd"),
        (L.Activation("hard_silu"), "int16x8", "can't quantise HARD_SWISH"),
    ],
)
def test_operations_that_are_missing(tmp_path, layer, quantize, message):
    data = np.random.default_rng(0).random((60, 6))
    with pytest.raises(ValueError, match=message):
        to_litert(model_of(layer, L.Dense(2)), tmp_path / "s", quantize, data)
    assert not list(tmp_path.iterdir())


# Representative data


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(40 * index, 40 * index + 40)
        return self.x[rows], self.y[rows]


@pytest.mark.parametrize("form", ["array", "pair", "batches", "endless", "PyDataset"])
def test_representative_data_comes_in_any_form(digits, form):
    x, y = digits.x_train[:120], digits.y_train[:120]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(33)
    data = {
        "array": x,
        "pair": (x, y),
        "batches": batches,
        "endless": batches.repeat(),
        "PyDataset": Batches(x, y),
    }[form]
    signature = Signature.of(model_of(L.Flatten(), L.Dense(2), shape=(8, 8, 1)))
    (found,) = take_samples(data, signature, 100).values()
    np.testing.assert_array_equal(found, x[:100])
    assert found.dtype == np.float32


def test_bytes_become_floats():
    data = np.random.default_rng(0).integers(0, 255, (60, 6), "uint8")
    (found,) = take_samples(data, Signature.of(model_of(L.Dense(2))), 500).values()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, data)


def spoiled(value):
    data = np.random.default_rng(0).random((60, 6))
    data[7, 2] = value
    return data


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "Give `representative_data=`.*x_train"),
        (np.random.default_rng(0).random((49, 6)), "49 samples, 49 of them different"),
        (np.ones((200, 6)), "200 samples, 1 of them different"),
        (spoiled(np.nan), "1 of 60 samples .the first is number 7."),
        (spoiled(np.inf), "NaN or infinite"),
        (np.ones((60, 5)), r"shape \(6,\) and dtype float32.*shape \(5,\)"),
        (np.ones((60, 6, 1)), r"Received: shape \(6, 1\)"),
        (np.full((60, 6), "a"), "Received: shape .* dtype <U1"),
        ([np.ones((60, 6)), np.ones((60, 6))], "what the model takes. .*Received: 2"),
        (np.ones((0, 6)), "`representative_data` is empty"),
        ("x_train", "`representative_data` must be arrays"),
        (tf.data.Dataset.from_tensor_slices(np.ones(6)), "batch"),
    ],
)
def test_representative_data_that_is_refused(tmp_path, data, message):
    with pytest.raises((ValueError, TypeError), match=message):
        to_litert(model_of(L.Dense(2)), tmp_path / "s", "int8", data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["array", "batches", "PyDataset"])
def test_a_distiller_is_quantised_by_what_it_was_fitted_on(tmp_path, digits, form):
    x, y = digits.x_train[:120], digits.y_train[:120]
    teacher, student = cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1))
    distiller = LPDistiller(teacher, student)
    given = {
        "array": (x, y),
        "batches": (tf.data.Dataset.from_tensor_slices((x, y)).batch(40),),
        "PyDataset": (Batches(x, y),),
    }[form]
    distiller.fit(*given, verbose=0)
    count = {"representative_samples": 60}
    by_itself = to_litert(distiller, tmp_path / "one", "int8", **count)
    looked_at = x[::2] if form == "array" else x[:60]  # arrays may be sorted
    told = to_litert(student, tmp_path / "other", "int8", looked_at, **count)
    np.testing.assert_array_equal(
        LiteRTFile(by_itself).predict(x), LiteRTFile(told).predict(x)
    )


def test_a_distiller_that_knows_no_data_asks_for_them(tmp_path, digits):
    x, y = digits.x_train[:120], digits.y_train[:120]
    distiller = LPDistiller(cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1)))
    for _ in range(2):
        with pytest.raises(ValueError, match="Give `representative_data=`"):
            to_litert(distiller, tmp_path / "s", "int8")
        # What comes out of a generator is gone.
        distiller.fit(((x, y) for _ in range(2)), steps_per_epoch=2, verbose=0)
    assert not list(tmp_path.iterdir())


def test_floats_are_no_numbers_of_words(tmp_path):
    model = model_of(L.Embedding(9, 2), L.Flatten(), shape=(6,), dtype="int32")
    with pytest.raises(ValueError, match="dtype int32.*dtype float64"):
        to_litert(model, tmp_path / "s", "int8", np.ones((60, 6)))


# Other refusals


class Wrapped(LPDistiller):
    methods = ("prune",)

    def strip(self):
        raise AssertionError("Whoever wrapped it has to say so.")


@pytest.mark.parametrize(
    "student, message",
    [
        ("student.keras", "must be a `keras.Model`"),
        (keras.Sequential([L.Dense(2)]), "not built"),
        (Wrapped(None, model_of(L.Dense(3), L.Dense(2))), "distiller.strip"),
    ],
)
def test_what_is_no_student(tmp_path, student, message):
    with pytest.raises((TypeError, ValueError), match=message):
        to_litert(student, tmp_path / "s")


@pytest.mark.parametrize("quantize", ["int4", "INT8", True, tf.int8])
def test_unknown_kinds(tmp_path, quantize):
    with pytest.raises(ValueError, match="None or one of float16, int8, int16x8"):
        to_litert(model_of(L.Dense(2)), tmp_path / "s", quantize)


def test_places_that_can_not_be_written_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        to_litert(model_of(L.Dense(2)), tmp_path / "none" / "s")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        to_litert(model_of(L.Dense(2)), tmp_path)


# Failures


class Converter:
    """What stands in for TensorFlow's converter."""

    def __init__(self, outcome):
        self.outcome = outcome

    def convert(self):
        if isinstance(self.outcome, bytes):
            return self.outcome
        raise self.outcome


@pytest.mark.parametrize(
    "outcome, error",
    [
        (RuntimeError("out of luck"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (b"no file", ValueError),
    ],
)
def test_failures_leave_the_old_file(tmp_path, monkeypatch, outcome, error):
    path = tmp_path / "s.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr(
        tf.lite.TFLiteConverter, "from_saved_model", lambda folder: Converter(outcome)
    )
    with pytest.raises(error):
        to_litert(model_of(L.Dense(2)), path)
    assert [one.name for one in tmp_path.iterdir()] == ["s.tflite"]
    assert path.read_bytes() == b"old"


def test_a_file_is_replaced(tmp_path):
    path = to_litert(model_of(L.Dense(2)), str(tmp_path / "s.tflite"))
    before = path.read_bytes()
    assert to_litert(model_of(L.Dense(99)), path) == path
    assert len(path.read_bytes()) > len(before)
    assert [one.name for one in tmp_path.iterdir()] == ["s.tflite"]


# Quantization-aware training


@pytest.fixture(scope="module")
def aware(digits):
    """A tf_keras model, trained and trained again aware of its quantisation."""
    from keras_lpd.compress.packages import load

    tfmot, tf_keras = load("tensorflow_model_optimization"), load("tf_keras")
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    plain = tf_keras.Sequential(
        [
            layers.InputLayer((8, 8, 1)),
            layers.Conv2D(12, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(tf_keras.optimizers.Adam(0.01), loss)
    plain.fit(digits.x_train, digits.y_train, batch_size=64, epochs=8, verbose=0)
    return plain, tfmot.quantization.keras.quantize_model(plain)


@needs("tensorflow_model_optimization")
def test_a_model_of_quantization_aware_training(aware, digits, tmp_path):
    model = aware[1]
    with pytest.raises(ValueError, match="it was not trained"):
        to_litert(model, tmp_path / "s", "int8")
    model(digits.x_train[:200], training=True)
    for quantize in (None, "float16", "int16x8"):
        with pytest.raises(ValueError, match='Expected: quantize="int8"'):
            to_litert(model, tmp_path / "s", quantize)
    file = LiteRTFile(to_litert(model, tmp_path / "s", "int8"))
    assert (file.kind, file.output_dtype) == ("int8", "int8")
    found, expected = file.predict(digits.x_test), model(digits.x_test).numpy()
    assert np.mean(found.argmax(1) == expected.argmax(1)) > 0.99
    assert np.mean(found.argmax(1) == digits.y_test) > 0.9
    assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)
    assert keras.__version__.startswith("3")


@needs("tensorflow_model_optimization")
def test_plain_models_of_tf_keras(aware, digits, tmp_path):
    plain = aware[0]
    for quantize, atol in ((None, 1e-5), ("int8", 1.0)):
        path = to_litert(plain, tmp_path / "s", quantize, digits.x_train)
        found = LiteRTFile(path).predict(digits.x_test)
        np.testing.assert_allclose(found, plain(digits.x_test), atol=atol)


@needs("tensorflow_model_optimization")
def test_wrappers_for_pruning_have_to_go(aware, tmp_path):
    from keras_lpd.compress.packages import load

    tfmot = load("tensorflow_model_optimization")
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(aware[0])
    with pytest.raises(ValueError, match="Strip it first"):
        to_litert(wrapped, tmp_path / "s")
