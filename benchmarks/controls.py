"""Controls: what is left of a gain when the teacher's geometry is taken away.

They are losses like any other; no teacher's features have a part in their values.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_lpd.losses import FeatureLoss, LocalityPreserving
from keras_lpd.neighbors import as_vectors


class RandomPairs(FeatureLoss):
    """The locality preserving loss on pairs drawn at random."""

    only_attracts = True

    def __init__(self, k: int = 5):
        super().__init__(name="random")
        self.k = k
        self.seeds = keras.random.SeedGenerator()  # follows the global seed

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        student = as_vectors(student_outputs)
        count = ops.shape(student)[0]
        total = 0.0
        for _ in range(self.k):
            order = keras.random.shuffle(ops.arange(count), seed=self.seeds)
            total += ops.sum(ops.square(student - ops.take(student, order, axis=0)))
        # The heat kernel's mean weight over the teacher's neighbours is about 0.4.
        return 0.4 * total / (2.0 * ops.cast(count, "float32"))


class OwnNeighbors(LocalityPreserving):
    """The student is pulled to its own neighbours, not the teacher's."""

    def __init__(self):
        super().__init__(name="own")

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return super().compute_loss(student_outputs, student_outputs)


class FeatureSize(FeatureLoss):
    """A plain penalty on the length of the features."""

    only_attracts = True

    def __init__(self):
        super().__init__(name="size")

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return ops.mean(ops.sum(ops.square(as_vectors(student_outputs)), axis=1))
