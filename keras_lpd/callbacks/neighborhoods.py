"""`NeighborhoodMetrics`: in the logs, how well the student keeps neighbours."""

from __future__ import annotations

from typing import Any

from keras_lpd import metrics
from keras_lpd.callbacks.watched import View, WatchingCallback
from keras_lpd.metrics import Neighborhoods


class NeighborhoodMetrics(WatchingCallback):
    """Adds to the logs of each epoch how well the student keeps the neighbourhoods.

    - `val_neighbor_overlap`: which share of the teacher's `k` nearest neighbours are
      among the student's `k` nearest.
    - `val_trustworthiness`: whether the student's neighbours are near in the teacher's
      features as well; 1 if they all are.
    - `val_continuity`: the same the other way round.
    - `val_knn_accuracy`: how often a vote among a sample's `k` nearest in the student's
      features finds its class; of data with labels.
    - `val_feature_spread`: how far the student's features lie from their mean.

    They are there for the callbacks that come after this one in the list, such as
    `EarlyStopping`, `ModelCheckpoint` or `TensorBoard`. Such that monitor one of these
    want it in each epoch: `every=1`.

    The teacher is run once, when training starts. The training itself is not disturbed:
    the weights are those it would have given without this callback.

    Args:
        dataset: The samples, such as the validation data: arrays `(x, y)`, or
            batches in a `tf.data.Dataset` or a `keras.utils.PyDataset`. Those that are
            used are held in memory. If the distiller's teacher is a `TeacherCache`,
            what its `attach` gives, batched.
        k: How many neighbours. Defaults to 10.
        max_samples: How many samples are used, the first ones: at least one more
            than twice `k`. Defaults to 2,000.
        every: After how many epochs; after the first in any case, and after the last
            unless a callback that comes later in the list stops the training there.
            Defaults to 1.
        **models: Where the model that is fitted is no `LPDistiller`, but the student
            itself: `teacher`, and `teacher_layer`, `student_layer`,
            `teacher_features`, `student_features`, `teacher_preprocessing`,
            `pooling`, as for `LPDistiller`.

    Raises:
        TypeError: If `dataset` is of another kind.
        ValueError: If there is no teacher, if there are too few samples, if an argument
            is out of its range, or if the teacher's features have NaN values.

    Example:

    >>> kept = NeighborhoodMetrics((x_train, y_train), k=5)
    >>> history = LPDistiller(teacher, student).fit(
    ...     x_train, y_train, epochs=2, callbacks=[kept], verbose=0
    ... )
    >>> len(history.history["val_neighbor_overlap"])
    2
    """

    def __init__(
        self,
        dataset: Any,
        k: int = 10,
        max_samples: int = 2000,
        every: int = 1,
        **models: Any,
    ):
        super().__init__(dataset, k, max_samples, every, **models)

    def on_view(self, epoch: int, student: View, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs.update({f"val_{name}": x for name, x in self._values(student).items()})

    def _values(self, student: View) -> dict[str, float]:
        taught = self.teacher_neighborhoods
        learned = Neighborhoods.of(student.features, self.k)
        values = {
            "neighbor_overlap": metrics.neighbor_overlap(taught, learned, self.k),
            "trustworthiness": metrics.trustworthiness(taught, learned, self.k),
            "continuity": metrics.continuity(taught, learned, self.k),
            "feature_spread": metrics.feature_spread(learned),
        }
        if self.samples.labels is not None:
            values["knn_accuracy"] = metrics.knn_accuracy(
                learned, self.samples.labels, self.k
            )
        return values
