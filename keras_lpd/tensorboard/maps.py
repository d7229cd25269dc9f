"""Maps of features: two dimensions of many."""

from __future__ import annotations

import numpy as np


def flat_map(features: np.ndarray, beside: np.ndarray | None = None) -> np.ndarray:
    """The features along the two directions in which they differ most.

    Args:
        features: Array of shape `(n, width)`.
        beside: Another map of the same samples. The new one is turned and mirrored
            until it lies as close to that as it can: what is left of the
            difference between the two is a difference of features.

    Returns:
        Float32 array of shape `(n, 2)`.
    """
    from scipy.linalg import orthogonal_procrustes
    from sklearn.decomposition import PCA

    features = np.asarray(features, "float64")
    count = min(2, *features.shape)
    points = np.zeros((len(features), 2))
    if np.ptp(features, axis=0).any():  # Otherwise all of them are one point.
        points[:, :count] = PCA(count, random_state=0).fit_transform(features)
    if beside is not None:
        turn, _ = orthogonal_procrustes(points, beside - beside.mean(axis=0))
        points = points @ turn
    return points.astype("float32")
