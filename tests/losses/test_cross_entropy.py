import keras
import numpy as np
import pytest

from keras_lpd.losses import CrossEntropy

CLASSES = np.array([2, 0, 1, 2, 2, 0])
YES_OR_NO = np.array([1, 0, 0, 1, 1, 0])
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 3.0, 1.0])

SPARSE = keras.losses.SparseCategoricalCrossentropy
ONE_HOT = keras.losses.CategoricalCrossentropy
BINARY = keras.losses.BinaryCrossentropy

# labels, shape of the outputs, the Keras loss chosen by hand, in words
CASES = {
    "indices (n,)": (CLASSES, (6, 3), SPARSE, "sparse categorical"),
    "indices (n, 1)": (CLASSES[:, None], (6, 3), SPARSE, "sparse categorical"),
    "indices of float": (CLASSES.astype("float32"), (6, 3), SPARSE, "sparse"),
    "one-hot": (np.eye(3)[CLASSES], (6, 3), ONE_HOT, "categorical (one-hot"),
    "indices of sequences": (
        np.stack([CLASSES, CLASSES[::-1]]),
        (2, 6, 3),
        SPARSE,
        "sparse categorical",
    ),
    "one-hot of sequences": (
        np.eye(3)[np.stack([CLASSES, CLASSES[::-1]])],
        (2, 6, 3),
        ONE_HOT,
        "categorical (one-hot",
    ),
    "binary (n,) of (n, 1)": (YES_OR_NO, (6, 1), BINARY, "binary"),
    "binary (n, 1) of (n, 1)": (YES_OR_NO[:, None], (6, 1), BINARY, "binary"),
    "binary (n,) of (n,)": (YES_OR_NO, (6,), BINARY, "binary"),
    "binary (n, 1) of (n,)": (YES_OR_NO[:, None], (6,), BINARY, "binary"),
    "binary bool": (YES_OR_NO.astype(bool), (6, 1), BINARY, "binary"),
    "multi-label": (1 - np.eye(3)[CLASSES], (6, 3), BINARY, "binary"),
}


def predictions(shape, binary, from_logits):
    logits = np.random.default_rng(0).normal(size=shape).astype("float32") * 2
    if from_logits:
        return logits
    function = keras.ops.sigmoid if binary else keras.ops.softmax
    return keras.ops.convert_to_numpy(function(logits))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_loss_equals_the_keras_loss_chosen_by_hand(case, from_logits):
    labels, shape, by_hand, words = CASES[case]
    binary = by_hand is BINARY
    outputs = predictions(shape, binary, from_logits)
    loss = CrossEntropy(from_logits=from_logits, binary=binary)

    value = loss(labels, outputs)

    expected = by_hand(from_logits=from_logits)(labels, outputs)
    assert expected > 0.1
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    source = "logits" if from_logits else "probabilities"
    assert loss.chosen.startswith(words)
    assert loss.chosen.endswith(f"cross-entropy from {source}")


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(
    "case",
    [case for case, (labels, shape, *_) in CASES.items() if shape in ((6, 3), (6, 1))],
)
def test_sample_weights_count_as_in_keras(case, from_logits):
    labels, shape, by_hand, _ = CASES[case]
    binary = by_hand is BINARY
    outputs = predictions(shape, binary, from_logits)
    loss = CrossEntropy(from_logits=from_logits, binary=binary)

    value = loss(labels, outputs, sample_weight=WEIGHTS)

    expected = by_hand(from_logits=from_logits)(labels, outputs, sample_weight=WEIGHTS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert value != loss(labels, outputs)


def test_nothing_is_chosen_before_the_first_labels():
    assert CrossEntropy().chosen is None


def test_logits_and_probabilities_are_told_apart():
    labels, shape, *_ = CASES["indices (n,)"]
    logits = predictions(shape, binary=False, from_logits=True)
    probabilities = predictions(shape, binary=False, from_logits=False)
    np.testing.assert_allclose(
        CrossEntropy(from_logits=True)(labels, logits),
        CrossEntropy(from_logits=False)(labels, probabilities),
        rtol=1e-5,
    )


def test_a_model_can_be_compiled_with_it():
    labels = CASES["indices (n,)"][0]
    x = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    expected = SPARSE(from_logits=True)(labels, model(x))

    model.compile(optimizer="sgd", loss=CrossEntropy(from_logits=True))

    value = model.evaluate(x, labels, verbose=0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    history = model.fit(x, labels, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_serialization_round_trip(from_logits, binary):
    loss = CrossEntropy(from_logits, binary, name="labels", reduction="sum")
    serialized = keras.saving.serialize_keras_object(loss)
    assert serialized["registered_name"] == "keras_lpd>CrossEntropy"

    again = keras.saving.deserialize_keras_object(serialized)

    assert type(again) is CrossEntropy
    assert again.get_config() == loss.get_config()
    assert (again.name, again.reduction) == ("labels", "sum")
    assert (again.from_logits, again.binary) == (from_logits, binary)
    case = CASES["multi-label" if binary else "indices (n,)"]
    outputs = predictions(case[1], binary, from_logits)
    np.testing.assert_array_equal(again(case[0], outputs), loss(case[0], outputs))
