"""The formulas once more: slow, obvious, in float64, to compare with."""

import numpy as np


def squared_distances(x, y):
    x, y = x.astype("float64"), y.astype("float64")
    result = np.zeros((len(x), len(y)))
    for i in range(len(x)):
        for j in range(len(y)):
            result[i, j] = np.sum((x[i] - y[j]) ** 2)
    return result


def nearest_neighbors(x, k):
    """Squared distances and indices of the neighbours, nearest first."""
    squared = squared_distances(x, x)
    distances, indices = [], []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
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
        student = np.stack([unit(row) for row in student])
    squared, neighbors = nearest_neighbors(teacher, k)
    width = squared.mean() if sigma == "auto" else sigma**2
    total = 0.0
    for i in range(len(teacher)):
        for distance, j in zip(squared[i], neighbors[i], strict=True):
            weight = 1.0 if distance == 0 else np.exp(-distance / width)
            total += weight * np.sum((student[i] - student[j]) ** 2)
    loss = total / (2 * len(teacher))
    if normalize == "spread":
        variance = feature_variance(student)
        loss = loss / variance if variance else 0.0
    return loss


def huber(x):
    return x**2 / 2 if abs(x) <= 1 else abs(x) - 1 / 2


def cosine(a, b):
    """Of the angle between two vectors; 0 where one of them has no direction."""
    lengths = np.sqrt(np.sum(a**2)) * np.sqrt(np.sum(b**2))
    return 0.0 if lengths == 0 else np.sum(a * b) / lengths


def unit(vector):
    length = np.sqrt(np.sum(vector**2))
    return vector if length == 0 else vector / length


def hint_loss(teacher, regressed):
    total, count = 0.0, 0
    for t, r in zip(teacher.flat, regressed.flat, strict=True):
        total += (float(t) - float(r)) ** 2
        count += 1
    return total / count


def convolution(maps, kernel, bias, padded=False):
    """Of maps (m, height, width, channels) with a kernel (height, width, in, out)."""
    maps, kernel = maps.astype("float64"), kernel.astype("float64")
    high, wide, _, channels = kernel.shape
    if padded:
        above, left = (high - 1) // 2, (wide - 1) // 2
        around = ((above, high - 1 - above), (left, wide - 1 - left))
        maps = np.pad(maps, ((0, 0), *around, (0, 0)))
    count, height, width, _ = maps.shape
    result = np.zeros((count, height - high + 1, width - wide + 1, channels))
    for place in np.ndindex(result.shape):
        i, row, column, channel = place
        window = maps[i, row : row + high, column : column + wide]
        result[place] = np.sum(window * kernel[..., channel]) + bias[channel]
    return result


def attention_transfer_loss(teacher, student):
    """Of maps whose last axis is the channels."""
    teacher, student = teacher.astype("float64"), student.astype("float64")
    height = min(teacher.shape[1], student.shape[1])
    width = min(teacher.shape[2], student.shape[2])
    total = 0.0
    for i in range(len(teacher)):
        one, other = (
            unit(averaged_down(np.mean(side[i] ** 2, axis=2), height, width).ravel())
            for side in (teacher, student)
        )
        total += np.sum((one - other) ** 2)
    return total / (len(teacher) * height * width)


def averaged_down(attention, height, width):
    """Each place of the result is the mean of all places that it lies on."""
    rows, columns = attention.shape
    result = np.zeros((height, width))
    for a in range(height):
        for b in range(width):
            result[a, b] = np.mean(
                [
                    attention[i, j]
                    for i in range(rows)
                    for j in range(columns)
                    if overlap(i, rows, a, height) and overlap(j, columns, b, width)
                ]
            )
    return result


def overlap(i, count, a, into):
    """Whether the `i`-th of `count` equal parts meets the `a`-th of `into`."""
    return i * into < (a + 1) * count and a * count < (i + 1) * into


def similarity_preserving_loss(teacher, student):
    teacher, student = as_vectors(teacher), as_vectors(student)
    count = len(teacher)
    total = 0.0
    for i in range(count):
        rows = [
            unit(np.array([np.sum(side[i] * side[j]) for j in range(count)]))
            for side in (teacher, student)
        ]
        total += np.sum((rows[0] - rows[1]) ** 2)
    return total / count**2


def relational_distance_loss(teacher, student):
    teacher, student = as_vectors(teacher), as_vectors(student)
    count = len(teacher)
    relative = []
    for side in (teacher, student):
        distances = np.sqrt(squared_distances(side, side))
        pairs = [distances[i, j] for i in range(count) for j in range(count) if i != j]
        mean = np.mean(pairs) if pairs else 0.0
        relative.append(distances / mean if mean else distances)
    total = 0.0
    for i in range(count):
        for j in range(count):
            total += huber(relative[0][i, j] - relative[1][i, j])
    return total / count**2


def relational_angle_loss(teacher, student):
    teacher, student = as_vectors(teacher), as_vectors(student)
    count = len(teacher)
    total = 0.0
    for i in range(count):
        for j in range(count):
            for k in range(count):
                angles = [
                    np.sum(unit(side[i] - side[j]) * unit(side[k] - side[j]))
                    for side in (teacher, student)
                ]
                total += huber(angles[0] - angles[1])
    return total / count**3


def relational_loss(teacher, student, distance_weight=25.0, angle_weight=50.0):
    distances = relational_distance_loss(teacher, student)
    angles = relational_angle_loss(teacher, student)
    return distance_weight * distances + angle_weight * angles


def probabilistic_transfer_loss(teacher, student):
    count = len(teacher)
    total = 0.0
    for i in range(count):
        others = [j for j in range(count) if j != i]
        p, q = (
            np.array([(cosine(side[i], side[j]) + 1) / 2 for j in others])
            for side in (as_vectors(teacher), as_vectors(student))
        )
        for a, b in zip(p / np.sum(p), q / np.sum(q), strict=True):
            total += a * np.log(a / b)
    return total / count**2


def correlation_congruence_loss(teacher, student, width=0.4, order=2):
    count = len(teacher)
    total = 0.0
    for i in range(count):
        for j in range(count):
            values = []
            for side in (as_vectors(teacher), as_vectors(student)):
                series, term = 1.0, 1.0
                for p in range(1, order + 1):
                    term *= 2 * width * cosine(side[i], side[j]) / p
                    series += term
                values.append(np.exp(-2 * width) * series)
            total += (values[0] - values[1]) ** 2
    return total / count**2


def neighbor_probability_loss(teacher, student, k=10, temperature=0.1, pooling=None):
    teacher, student = as_vectors(teacher, pooling), as_vectors(student, pooling)
    squared, neighbors = nearest_neighbors(teacher, k)
    count = len(teacher)
    total = 0.0
    for i in range(count):
        mean = np.mean(squared[i]) if len(squared[i]) else 0.0
        p = [1.0 if mean == 0 else np.exp(-distance / mean) for distance in squared[i]]
        q = {
            j: np.exp(cosine(student[i], student[j]) / temperature)
            for j in range(count)
            if j != i
        }
        for weight, j in zip(p, neighbors[i], strict=True):
            total -= weight / sum(p) * np.log(q[j] / sum(q.values()))
    return total / count
