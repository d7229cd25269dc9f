"""Projections to fewer dimensions that keep distances, by scikit-learn."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

NAMES = ("pca", "gaussian")


@dataclasses.dataclass(frozen=True)
class Projection:
    """`(features - offset) @ matrix`, in float32.

    Args:
        name: One of `NAMES`.
        offset: Vector of shape `(width,)`.
        matrix: Matrix of shape `(width, dimensions)`.
    """

    name: str
    offset: np.ndarray
    matrix: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.offset) @ self.matrix

    @property
    def mark(self) -> str:
        """Tells this projection from others, those of its kind included."""
        digest = hashlib.sha256(self.offset.tobytes() + self.matrix.tobytes())
        return f"{self.name}-{self.matrix.shape[1]}-{digest.hexdigest()[:8]}"


def fit_projection(name: str, features: np.ndarray, dimensions: int) -> Projection:
    """Fits a projection to features.

    Args:
        name: `"pca"` keeps the directions in which the features vary most.
            `"gaussian"` is a random projection: it needs no data, and is the
            same for all features of one width.
        features: Array of shape `(samples, width)`.
        dimensions: Width of what comes out, below `width`; for PCA at most
            the number of samples.

    Raises:
        ValueError: If `dimensions` is too many.
    """
    from sklearn.decomposition import PCA
    from sklearn.random_projection import GaussianRandomProjection

    samples, width = features.shape
    check_dimensions(dimensions, width)
    if name == "gaussian":
        random = GaussianRandomProjection(dimensions, random_state=0)
        random.fit(np.zeros((1, width), "float32"))
        offset, components = np.zeros(width), random.components_
    else:
        if dimensions > samples:
            raise ValueError(
                f"PCA to {dimensions} dimensions needs as many samples. Received: "
                f"{samples}. Use a smaller `project` or `projection='gaussian'`."
            )
        pca = PCA(dimensions, random_state=0).fit(features)
        offset, components = pca.mean_, pca.components_
    return Projection(
        name,
        np.asarray(offset, "float32"),
        np.ascontiguousarray(components.T, "float32"),
    )


def check_dimensions(dimensions: int, width: int) -> None:
    """Refuses to project features to more dimensions than they have."""
    if dimensions >= width:
        raise ValueError(
            f"`project` must be below the width of the features, {width}. "
            f"Received: project={dimensions}. Leave it out to keep them as they are."
        )
