"""Projections against scikit-learn's own."""

import dataclasses

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.random_projection import GaussianRandomProjection

from keras_lpd.caching.projection import NAMES, Projection, fit_projection
from tests import oracles


@pytest.fixture
def features():
    """Rows which vary in some directions more than in others, away from 0."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(40, 9)) @ random.normal(size=(9, 9))
    return (mixed + 5 * random.normal(size=9)).astype("float32")


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_pca_is_that_of_scikit_learn(features, dimensions):
    fitted = PCA(dimensions, random_state=0).fit(features[:30])
    project = fit_projection("pca", features[:30], dimensions)
    for rows in (features[:30], features[30:]):
        found = project(rows)
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, fitted.transform(rows), atol=2e-5)


def test_pca_far_from_the_origin(features):
    far = features + np.float32(1000)
    fitted = PCA(3, random_state=0).fit(far.astype("float64"))
    found = fit_projection("pca", far, 3)(far)
    np.testing.assert_allclose(
        np.abs(found), np.abs(fitted.transform(far)), rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_gaussian_is_that_of_scikit_learn(features, dimensions):
    sklearn = GaussianRandomProjection(dimensions, random_state=0).fit(features)
    found = fit_projection("gaussian", features, dimensions)(features)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, sklearn.transform(features), rtol=1e-4, atol=1e-4)


def test_gaussian_is_the_same_whatever_the_data(features):
    one = fit_projection("gaussian", features, 3)
    other = fit_projection("gaussian", features[:1] * 7, 3)
    assert one.mark == other.mark
    np.testing.assert_array_equal(one(features), other(features))


def test_pca_keeps_the_distances_within_a_plane(features):
    random = np.random.default_rng(1)
    plane = (features[:, :3] @ random.normal(size=(3, 12)) + 4).astype("float32")
    found = fit_projection("pca", plane, 3)(plane)
    np.testing.assert_allclose(
        oracles.squared_distances(found, found),
        oracles.squared_distances(plane, plane),
        rtol=1e-4,
        atol=1e-3,
    )


def test_gaussian_keeps_distances_nearly():
    wide = np.random.default_rng(0).normal(size=(12, 900)).astype("float32")
    found = fit_projection("gaussian", wide, 400)(wide)
    pairs = np.triu_indices(12, k=1)
    ratio = (
        oracles.squared_distances(found, found)[pairs]
        / oracles.squared_distances(wide, wide)[pairs]
    )
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert 0.75 < ratio.min() < ratio.max() < 1.25


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dimensions", [9, 10])
def test_as_many_dimensions_as_there_are_already(features, name, dimensions):
    with pytest.raises(ValueError, match=f"below the width.*9.*project={dimensions}"):
        fit_projection(name, features, dimensions)


def test_pca_needs_samples_and_gaussian_none(features):
    assert fit_projection("pca", features[:4], 4)(features).shape == (40, 4)
    with pytest.raises(ValueError, match="5 dimensions.*Received: 4.*'gaussian'"):
        fit_projection("pca", features[:4], 5)
    assert fit_projection("gaussian", features[:1], 5)(features).shape == (40, 5)


def test_the_mark_tells_projections_apart(features):
    project = fit_projection("pca", features, 3)
    assert project.mark.startswith("pca-3-")
    copied = Projection("pca", project.offset.copy(), project.matrix.copy())
    assert copied.mark == project.mark

    turned = project.matrix.copy()
    turned[8, 2] = np.nextafter(turned[8, 2], np.float32(9))
    moved = project.offset.copy()
    moved[0] = np.nextafter(moved[0], np.float32(99))
    others = [
        dataclasses.replace(project, matrix=turned),
        dataclasses.replace(project, offset=moved),
        dataclasses.replace(project, name="gaussian"),
        fit_projection("pca", features, 2),
        fit_projection("pca", features[1:], 3),
        fit_projection("gaussian", features, 3),
    ]
    marks = {one.mark for one in others}
    assert len(marks) == len(others)
    assert project.mark not in marks
