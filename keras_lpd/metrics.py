"""How much of the teacher's neighbourhoods the student kept.

For notebooks and callbacks, on samples that a model has seen or not: NumPy in float64,
whatever came in (NumPy arrays, tensors of TensorFlow or JAX, lists), in blocks of rows,
so that no matrix of all samples by all samples is ever held.

Every function takes `Neighborhoods` in place of features. Where many students are
compared with one teacher, its neighbours are then searched only once:

>>> features, learned = np.random.rand(100, 50), np.random.rand(100, 8)
>>> teacher = Neighborhoods.of(features, k=10)
>>> student = Neighborhoods.of(learned, k=10)
>>> kept = neighbor_overlap(teacher, student, k=10)
>>> trusted = trustworthiness(teacher, student, k=5)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_lpd.arguments import as_integer

BLOCK = 2**20
"""How many numbers a block may have: 8 MB, of which some are held at a time."""

LARGEST = 1e150
"""What features must stay below, so that their squares are finite."""


@dataclasses.dataclass(frozen=True, eq=False)
class Neighborhoods:
    """Samples, and the nearest others of each; made by `Neighborhoods.of`.

    Args:
        vectors: The features, float64, of shape `(n, width)`.
        distances: Euclidean distances to the nearest others, nearest first, of
            shape `(n, k)`.
        indices: Which samples they are, of the same shape.
    """

    vectors: np.ndarray
    distances: np.ndarray
    indices: np.ndarray

    @classmethod
    def of(cls, features: Any, k: int = 10) -> Neighborhoods:
        """Searches the `k` nearest others of each sample, see `nearest`.

        Args:
            features: Array of shape `(n, ...)`, or `Neighborhoods` to be cut to `k`.
            k: How many, below `n`. What was searched with a large `k` serves for
                all smaller ones. Defaults to 10.

        Raises:
            ValueError: If the features are not finite, or `k` is out of its range.

        Example:

        >>> Neighborhoods.of([[0.0], [1.0], [5.0]], k=1).indices.tolist()
        [[1], [0], [1]]
        """
        vectors = _vectors(features)
        k = as_integer("k", k, least=1)
        if k >= len(vectors):
            raise ValueError(
                f"`k` must be below the number of samples, {len(vectors)}. Received: "
                f"k={k}. Use a smaller `k` or more samples."
            )
        if not isinstance(features, Neighborhoods):
            return cls(vectors, *_search(vectors, k))
        known = features.indices.shape[1]
        if k > known:
            raise ValueError(
                f"`k` must be at most {known}, for which these `Neighborhoods` were "
                f"made. Received: k={k}. Make them anew: "
                f"`Neighborhoods.of(features, k={k})`."
            )
        return cls(vectors, features.distances[:, :k], features.indices[:, :k])


def nearest(features: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest other samples of each, nearest first.

    Of samples that are equally far the first ones count. An exact duplicate is at a
    distance of exactly 0.

    Args:
        features: Array of shape `(n, ...)`; feature maps are flattened. Or
            `Neighborhoods`.
        k: How many, below `n`.

    Returns:
        A tuple `(distances, indices)` of shape `(n, k)` each: Euclidean distances in
        float64, and the numbers of the samples.

    Raises:
        ValueError: If the features are not finite, or `k` is out of its range.

    Example:

    >>> distances, indices = nearest([[0.0], [1.0], [5.0]], k=2)
    >>> distances.tolist()
    [[1.0, 5.0], [1.0, 4.0], [4.0, 5.0]]
    >>> indices.tolist()
    [[1, 2], [0, 2], [1, 0]]
    """
    found = Neighborhoods.of(features, k)
    return found.distances, found.indices


def neighbor_overlap(
    teacher: Any, student: Any, k: int = 10, reduction: str | None = "mean"
) -> Any:
    """The share of the teacher's nearest neighbours that the student kept.

    Of the `k` samples nearest in the teacher's features, the share that is among the
    `k` nearest in the student's. A student that knows nothing gets `k / (n - 1)`.

    Args:
        teacher: The teacher's features, of shape `(n, ...)`, or `Neighborhoods`.
        student: The student's of the same samples, of any width, likewise.
        k: How many neighbours, below `n`. Defaults to 10.
        reduction: `"mean"` gives the mean over the samples, `None` one value a
            sample. Defaults to `"mean"`.

    Returns:
        A float between 0 and 1, or with `reduction=None` an array of shape `(n,)`.

    Raises:
        ValueError: If the features are not of the same number of samples, or not
            finite, or if an argument is out of its range.

    Example:

    >>> neighbor_overlap([[0], [1], [3], [7]], [[0], [1], [5], [7]], k=1)
    0.75
    """
    if reduction not in ("mean", None):
        raise ValueError(
            f"`reduction` must be 'mean' or None. Received: reduction={reduction!r}"
        )
    teacher, student = _both(teacher, student, k)
    shares = _are_among(teacher.indices, student.indices).mean(axis=1)
    return shares if reduction is None else float(shares.mean())


def trustworthiness(teacher: Any, student: Any, k: int = 5) -> float:
    """Whether those near each other in the student are so in the teacher as well.

    Each of a sample's `k` nearest in the student's features costs as much as its rank
    among the sample's nearest in the teacher's lies beyond `k`: the student is not to
    bring together what is far apart. The same value as
    `sklearn.manifold.trustworthiness(teacher, student, n_neighbors=k)`, but samples
    equally far (duplicates, above all) rank in their order, and not in any.

    Args:
        teacher: The teacher's features, of shape `(n, ...)`, or `Neighborhoods`.
        student: The student's of the same samples, of any width, likewise.
        k: How many neighbours, below `n / 2`. Defaults to 5.

    Returns:
        A float between 0 and 1; about 0.5 where the student knows nothing.

    Raises:
        ValueError: If the features are not of the same number of samples, or not
            finite, or if `k` is out of its range.

    Example:

    >>> teacher = np.random.rand(100, 50)
    >>> trustworthiness(teacher, 3 * teacher)
    1.0

    Source: Venna and Kaski, "Neighborhood Preservation in Nonlinear Projection
    Methods: An Experimental Study", ICANN 2001.
    """
    teacher, student = _both(teacher, student, k, below_half=True)
    n = len(teacher.vectors)
    missed = ~_are_among(student.indices, teacher.indices)
    beyond = 0
    for rows, squared in _Distances(teacher.vectors).blocks():
        for i, row in enumerate(squared, rows.start):
            for j in student.indices[i, missed[i]]:
                nearer = np.count_nonzero(row[:j] <= row[j])
                nearer += np.count_nonzero(row[j + 1 :] < row[j])
                # None of these is among the `k` nearest; of those that all but tie
                # with the last of them, rounding may count one less.
                beyond += max(nearer + 1 - k, 1)
    return float(1 - beyond * 2 / (n * k * (2 * n - 3 * k - 1)))


def continuity(teacher: Any, student: Any, k: int = 5) -> float:
    """Whether those near each other in the teacher are so in the student as well.

    `trustworthiness` with the two sides exchanged: the student is not to tear apart
    what is near.

    Args:
        teacher: The teacher's features, of shape `(n, ...)`, or `Neighborhoods`.
        student: The student's of the same samples, of any width, likewise.
        k: How many neighbours, below `n / 2`. Defaults to 5.

    Returns:
        A float between 0 and 1; about 0.5 where the student knows nothing.

    Raises:
        ValueError: As `trustworthiness` does.

    Example:

    >>> line = np.arange(20.0)
    >>> folded = np.abs(line - 10)  # brings together, and tears nothing apart
    >>> continuity(line, folded) > 0.8 > trustworthiness(line, folded)
    True
    """
    teacher, student = _both(teacher, student, k, below_half=True)
    return trustworthiness(student, teacher, k)


def knn_accuracy(features: Any, labels: Any, k: int = 10) -> float:
    """How often the `k` nearest other samples, by majority, have the right label.

    Each sample is left out when its own neighbours vote. Of labels with as many votes
    the smallest wins, as in scikit-learn's `KNeighborsClassifier`.

    Args:
        features: Array of shape `(n, ...)`, or `Neighborhoods`.
        labels: Their classes, of shape `(n,)` or `(n, 1)`; integers or strings.
        k: How many neighbours vote, below `n`. Defaults to 10.

    Returns:
        A float between 0 and 1.

    Raises:
        ValueError: If the labels are not one a sample, the features not finite, or
            `k` is out of its range.

    Example:

    >>> knn_accuracy([[0.0], [1.0], [5.0], [6.0]], ["a", "a", "b", "a"], k=1)
    0.5
    """
    found = Neighborhoods.of(features, k)
    n = len(found.vectors)
    labels = np.asarray(labels)
    if labels.shape not in ((n,), (n, 1)):
        raise ValueError(
            f"`labels` must be one a sample, of shape ({n},). Received: shape "
            f"{labels.shape}. Of one-hot labels give `np.argmax(labels, axis=1)`."
        )
    classes, labels = np.unique(labels.reshape(n), return_inverse=True)
    right = 0
    for rows in _blocks(n, len(classes)):
        votes = labels[found.indices[rows]]
        boxes = np.arange(len(votes))[:, None] * len(classes) + votes
        counts = np.bincount(boxes.ravel(), minlength=len(votes) * len(classes))
        elected = counts.reshape(len(votes), len(classes)).argmax(axis=1)
        right += np.count_nonzero(elected == labels[rows])
    return float(right / n)


def feature_spread(features: Any) -> float:
    """How far the samples lie apart: 0 where they have collapsed to one point.

    The root of their mean squared distance to their mean, which is what the log of
    training calls `feature_spread`.

    Args:
        features: Array of shape `(n, ...)`, or `Neighborhoods`.

    Returns:
        A float, in the features' own unit.

    Raises:
        ValueError: If the features are not finite, or there are none.

    Example:

    >>> feature_spread([[1.0, 2.0], [3.0, 2.0]])
    1.0
    """
    vectors = _vectors(features)
    vectors = vectors - vectors[0]  # Of equal samples nothing is left.
    vectors -= vectors.mean(axis=0)
    return math.sqrt(np.vdot(vectors, vectors) / len(vectors))


# What the functions above are made of


def _vectors(features: Any) -> np.ndarray:
    """The features, one vector of float64 a sample, which are checked."""
    if isinstance(features, Neighborhoods):
        return features.vectors
    array = np.asarray(features)
    if array.ndim == 0 or array.size == 0:
        raise ValueError(
            "Features must have a batch axis and some width, shape (n, ...). "
            f"Received: shape {array.shape}"
        )
    vectors = array.astype("float64").reshape(len(array), math.prod(array.shape[1:]))
    usable = (np.abs(vectors) < LARGEST).all(axis=1)
    if not usable.all():
        raise ValueError(
            f"Features must be finite, and below {LARGEST:g}. Received: NaN, infinite "
            f"or larger ones in {np.count_nonzero(~usable)} of {len(usable)} samples, "
            f"first in sample {np.argmin(usable)}. Check the model, or leave them out."
        )
    return vectors


def _both(
    teacher: Any, student: Any, k: int, below_half: bool = False
) -> tuple[Neighborhoods, Neighborhoods]:
    """The neighbourhoods of the same samples on both sides."""
    n, others = (len(_vectors(side)) for side in (teacher, student))
    if n != others:
        raise ValueError(
            "Teacher and student must have features of the same samples. Received: "
            f"{n} samples of the teacher, {others} of the student."
        )
    if below_half and as_integer("k", k, least=1) >= n / 2:
        raise ValueError(
            f"`k` must be below half the number of samples, {n}. Received: k={k}. "
            "Use a smaller `k` or more samples."
        )
    return Neighborhoods.of(teacher, k), Neighborhoods.of(student, k)


def _are_among(indices: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the indices in a row are in the same row of the others."""
    n = len(indices)
    rows = np.arange(n)[:, None] * n
    return np.isin(rows + indices, rows + others)


def _blocks(n: int, width: int) -> Iterator[slice]:
    """Cuts `n` rows of some width into blocks of at most `BLOCK` numbers."""
    step = max(BLOCK // width, 1)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _search(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of the `k` nearest others of each sample.

    The expanded square finds who may be among them, given how far rounding may have
    moved it; the differences then tell who is.
    """
    n = len(vectors)
    distances, indices = np.empty((n, k)), np.empty((n, k), "int64")
    all_pairs = _Distances(vectors)
    # Of equal samples only the first can be among anyone's nearest: `k`, and itself.
    eligible = all_pairs.copy <= k
    for rows, squared in all_pairs.blocks():
        kth = np.partition(squared, k - 1, axis=1)[:, k - 1]
        within = kth + 2 * all_pairs.error[rows]
        candidates = (squared <= within[:, None]) & eligible
        i, j = np.nonzero(candidates)
        exact = _squared_between(vectors, rows.start + i, j)
        order = np.lexsort((exact, i))  # Equally far ones stay in their order.
        counts = np.count_nonzero(candidates, axis=1)
        chosen = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
        distances[rows], indices[rows] = np.sqrt(exact[chosen]), j[chosen]
    return distances, indices


def _squared_between(vectors: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of samples, out of their differences."""
    squared = np.empty(len(i))
    for pairs in _blocks(len(i), vectors.shape[1]):
        difference = vectors[i[pairs]] - vectors[j[pairs]]
        squared[pairs] = np.einsum("ij,ij->i", difference, difference)
    return squared


class _Distances:
    """Squared distances of all samples to all others, by the expanded square.

    Attributes:
        error: How far rounding may move the distances of each sample.
        copy: How many of the samples before each are equal to it.
    """

    def __init__(self, vectors: np.ndarray):
        # Near their mean the squares are small. Rounded, that has few digits, so that
        # the distances of whole numbers are exact, and as many of them equal.
        center = vectors.mean(axis=0)
        spread = math.sqrt(np.mean(np.square(vectors - center)))
        if spread:
            unit = 2.0 ** math.floor(math.log2(spread))
            center = np.round(center / unit) * unit
        self.vectors = vectors - center
        self.squares = np.einsum("ij,ij->i", self.vectors, self.vectors)
        rounding = 2 * (vectors.shape[1] + 8) * np.finfo("float64").eps
        self.error = rounding * (self.squares + self.squares.max())

        # Which sample is the first that is equal to each, and the so many-th of those.
        self.first, self.copy = np.empty((2, len(vectors)), "int64")
        equal: dict[bytes, list[int]] = {}
        for i, vector in enumerate(vectors):
            group = equal.setdefault(vector.tobytes(), [])
            group.append(i)
            self.first[i], self.copy[i] = group[0], len(group) - 1

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows, and their distances to all; a sample's to itself is infinite."""
        n = len(self.vectors)
        for rows in _blocks(n, n):
            squared = -2 * self.vectors[rows] @ self.vectors.T
            squared += self.squares[rows, None]
            squared += self.squares
            if self.copy.any():  # What is equal must not differ by rounding.
                squared = squared[:, self.first]
            squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
            yield rows, squared
