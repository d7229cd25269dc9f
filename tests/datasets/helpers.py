"""What several test files of this folder ask for."""

import collections
import pathlib

import numpy as np

PREPARED = pathlib.Path("~/tensorflow_datasets/fashion_mnist").expanduser()


def arrays_of(dataset):
    images, labels = zip(*dataset.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def counted(images, labels):
    return collections.Counter(
        (x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)
    )


def all_views(image, padding):
    """Every crop of the padded image, and every one flipped, one after another."""
    height, width, _ = image.shape
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[top : top + height, left : left + width]
            yield crop
            yield crop[:, ::-1]
