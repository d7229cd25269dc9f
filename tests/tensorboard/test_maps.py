"""Maps of features."""

import numpy as np
import pytest

from keras_lpd.tensorboard.maps import flat_map


def test_the_two_directions_of_the_largest_differences(rng):
    wide = rng.normal(size=(200, 2)) * [9.0, 4.0]
    features = np.concatenate([wide, 0.01 * rng.normal(size=(200, 5))], axis=1)
    turn, _ = np.linalg.qr(rng.normal(size=(7, 7)))
    found = flat_map(features @ turn + 3.0)
    centered = wide - wide.mean(axis=0)
    distances = np.linalg.norm(centered[:, None] - centered, axis=-1)
    np.testing.assert_allclose(
        np.linalg.norm(found[:, None] - found, axis=-1), distances, atol=0.2
    )
    assert found.dtype == np.float32
    assert found[:, 0].std() > found[:, 1].std()


def test_a_map_beside_another_is_turned_to_it(rng):
    features = rng.normal(size=(100, 2)) * [3.0, 1.0]
    teacher = flat_map(features)
    turned = features @ [[0.0, 1.0], [-1.0, 0.0]] * [1.0, -1.0]
    np.testing.assert_allclose(flat_map(turned, beside=teacher), teacher, atol=1e-4)


@pytest.mark.parametrize("shape", [(50, 1), (50, 3)])
def test_of_equal_samples_nothing_is_left(shape):
    found = flat_map(np.ones(shape), beside=flat_map(np.eye(50)))
    np.testing.assert_array_equal(found, np.zeros((50, 2)))


def test_one_dimension(rng):
    features = rng.normal(size=(50, 1))
    found = flat_map(features)
    np.testing.assert_allclose(
        np.abs(found[:, 0]), np.abs(features[:, 0] - features.mean()), rtol=1e-5
    )
    np.testing.assert_array_equal(found[:, 1], 0)
