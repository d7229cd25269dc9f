"""The formulas once more: slow, obvious, in float64, to compare with."""

import numpy as np


def squared_distances(x, y):
    x, y = x.astype("float64"), y.astype("float64")
    result = np.zeros((len(x), len(y)))
    for i in range(len(x)):
        for j in range(len(y)):
            result[i, j] = np.sum((x[i] - y[j]) ** 2)
    return result


def nearest_neighbors(x, k, exclude_self=True):
    """Squared distances and indices of the neighbours, nearest first."""
    squared = squared_distances(x, x)
    distances, indices = [], []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if not (exclude_self and j == i)]
        others = sorted(others, key=lambda j: squared[i, j])[:k]
        distances.append([squared[i, j] for j in others])
        indices.append(others)
    return np.array(distances), np.array(indices)


def as_vectors(features, pooling=None):
    """Of features whose last axis is the channels."""
    features = features.astype("float64")
    space = tuple(range(1, features.ndim - 1))
    if pooling == "avg" and space:
        features = features.mean(axis=space)
    if pooling == "max" and space:
        features = features.max(axis=space)
    return features.reshape(len(features), -1)


def feature_variance(x):
    x = x.astype("float64")
    mean = x.mean(axis=0)
    return sum(np.sum((row - mean) ** 2) for row in x) / len(x)


def locality_preserving_loss(
    teacher, student, k=5, sigma="auto", normalize=None, pooling=None
):
    teacher = as_vectors(teacher, pooling)
    student = as_vectors(student, pooling)
    if normalize == "l2":
        student = np.stack([row / np.sqrt(np.sum(row**2)) for row in student])
    squared, neighbors = nearest_neighbors(teacher, k)
    width = squared.mean() if sigma == "auto" else sigma**2
    total = 0.0
    for i in range(len(teacher)):
        for distance, j in zip(squared[i], neighbors[i], strict=True):
            weight = 1.0 if distance == 0 else np.exp(-distance / width)
            total += weight * np.sum((student[i] - student[j]) ** 2)
    loss = total / (2 * len(teacher))
    if normalize == "spread":
        loss = loss / feature_variance(student)
    return loss
