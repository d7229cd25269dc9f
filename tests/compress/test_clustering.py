"""Clustering while distilling."""

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller
from keras_lpd.compress import cluster
from keras_lpd.compress.packages import load
from keras_lpd.models import cnn_teacher
from tests.compress.students import distiller, images, pruned, same, shake, student

L = keras.layers


def values(kernels):
    return {path: len(np.unique(kernel)) for path, kernel in kernels.items()}


def test_kernels_have_few_values(digits, trained):
    """Of a student that knows the digits, and goes on knowing them."""
    before = trained.get_weights()
    given = LPDistiller(cnn_teacher((8, 8, 1)), trained)
    result = cluster(given, 16)
    start = result.kernels()
    assert max(values(start).values()) <= 16
    result.fit(digits.x_train, digits.y_train, verbose=0)
    kernels = result.kernels()
    assert list(kernels) == ["conv_1", "conv_2", "conv_3", "features", "logits"]
    assert 8 <= min(values(kernels).values()) <= max(values(kernels).values()) <= 16
    assert not np.array_equal(start["features"], kernels["features"])
    found = result.strip().predict(digits.x_test, verbose=0)
    np.testing.assert_allclose(
        found, result.predict(digits.x_test, verbose=0), atol=1e-4
    )
    assert same(trained.get_weights(), before)


def test_what_was_pruned_stays_zero():
    x, y = images()
    before = pruned().kernels()
    result = cluster(pruned(), 8)
    assert result.methods == ("prune", "cluster")
    result.fit(x, y, epochs=2, verbose=0)
    kernels = result.kernels()
    assert max(values(kernels).values()) <= 8
    for path, kernel in kernels.items():
        assert np.all(kernel[before[path] == 0] == 0)
        assert np.mean(kernel == 0) < 0.8


def test_layers_around_train_as_ever():
    """tfmot's wrapper would run them in inference mode, if it were around them too."""
    model = shake(student())
    before = model.get_layer("norm").get_weights()
    result = cluster(distiller(model))
    result.fit(*images(), verbose=0)
    after = result.strip().get_layer("norm").get_weights()
    assert not any(map(np.array_equal, before, after))


def test_what_is_not_clustered_is_told(caplog):
    model = student(
        L.Rescaling(1 / 255.0),
        L.Conv2D(1, 3, name="tiny"),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.Conv2D(8, 3, name="conv"),
    )
    with caplog.at_level("INFO", "keras_lpd"):
        result = cluster(distiller(model), 10)
    assert "Clustering: conv, features, logits." in caplog.text
    assert "tiny (Conv2D), depthwise (DepthwiseConv2D)" in caplog.text
    assert list(result.kernels()) == ["conv", "features", "logits"]


def test_a_silent_nothing_is_found(monkeypatch):
    """What tfmot gives for a layer or model of Keras 3."""
    tfmot = load("tensorflow_model_optimization")
    assert tfmot.clustering.keras.cluster_weights(student(), 8) is None
    monkeypatch.setattr(
        tfmot.clustering.keras, "cluster_weights", lambda layer, clusters: None
    )
    with pytest.raises(RuntimeError, match="clustered nothing"):
        cluster(distiller())


@pytest.mark.parametrize("clusters", [1, 0, 2.5, True])
def test_impossible_numbers_of_clusters_are_refused(clusters):
    with pytest.raises(ValueError, match="`clusters` must be an integer"):
        cluster(distiller(), clusters)
