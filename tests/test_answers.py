"""What models make of samples."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lpd.answers import answering
from keras_lpd.features import FeatureExtractor
from tests.subclassed import TwoLayers, body_and_head


def small(*head):
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, activation="relu", name="hidden"), *head]
    )


@pytest.fixture
def x(rng):
    return rng.normal(size=(600, 4)).astype("float32")


@pytest.mark.parametrize("count", [3, 256, 257, 600])
def test_all_samples_in_their_order(x, count):
    model = small(layers.Dense(3, name="logits"))
    answers = answering(FeatureExtractor(model, ["hidden"]))(x[:count])
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    expected = hidden.predict(x[:count], verbose=0)
    np.testing.assert_allclose(answers.features, expected, rtol=1e-5, atol=1e-6)
    scores = model.predict(x[:count], verbose=0)
    np.testing.assert_array_equal(answers.classes, scores.argmax(axis=1))
    assert answers.among == 3


@pytest.mark.parametrize("few", [0, 2, 256, 300])
def test_features_of_the_first_samples(x, few):
    extract = FeatureExtractor(small(layers.Dense(3)), ["hidden"])
    every, some = answering(extract)(x), answering(extract, few=few)(x)
    if few:
        np.testing.assert_array_equal(some.features, every.features[:few])
    else:
        assert some.features is None
    np.testing.assert_array_equal(some.classes, every.classes)


def test_a_batch_is_prepared_outside_of_the_graph(x):
    extract = FeatureExtractor(small(layers.Dense(3)), ["hidden"])
    flipped = answering(extract, prepare=np.negative)(x)
    np.testing.assert_array_equal(flipped.features, answering(extract)(-x).features)


def test_batches_of_one_shape_trace_the_model_once(x):
    traced = []

    def traces(model, inputs, training):
        traced.append(inputs.shape)
        return body_and_head(model, inputs, training)

    model = TwoLayers()
    model(x[:1])
    answers = answering(FeatureExtractor(model, ["features"], function=traces))
    for _ in range(2):
        answers(x)
    assert [shape[0] for shape in traced] == [256]


def test_models_that_score_no_classes(x):
    backbone = answering(FeatureExtractor(small(), ["hidden"]))(x)
    assert (backbone.classes, backbone.among) == (None, 0)
    assert backbone.features.shape == (600, 6)
    inputs = keras.Input((4,))
    two = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    answers = answering(FeatureExtractor(two))(x)
    assert (answers.features, answers.classes, answers.among) == (None, None, 0)
