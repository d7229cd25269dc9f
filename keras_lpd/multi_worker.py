"""`fit`, `evaluate` and `predict` under `tf.distribute.MultiWorkerMirroredStrategy`.

Stock Keras 3 fails there, at two places of its TensorFlow trainer:

- before the first step, where it averages a batch to learn its shapes:
  `Attempt to convert a value (PerReplica:{...}) with an unsupported type`;
- after the first step, where it averages the logs along an axis that they lack:
  `Invalid reduction dimension 0 for input with 0 dimensions`.

The first also fails with several devices of one process (`MirroredStrategy`), where
the first batch does not divide among them.

`MultiWorkerFit` replaces what fails. Both are private methods of Keras, the same in
all versions from `TESTED[0]` to `TESTED[1]`. The tests tell when Keras has mended them;
then this file has had its day.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

TESTED = ((3, 12), (3, 15))
"""The first and the last version of Keras that this was tested with."""

REPLACED = ("_maybe_symbolic_build", "_make_function")
"""The methods of Keras that `MultiWorkerFit` replaces."""

_WHY = (
    "`fit` and `evaluate` of Keras 3 fail by themselves under "
    "MultiWorkerMirroredStrategy ('Attempt to convert a value (PerReplica:{...}) with "
    "an unsupported type', then 'Invalid reduction dimension 0 for input with 0 "
    "dimensions'), so that keras-lpd replaces the private methods "
    f"{' and '.join(f'`keras.Model.{name}`' for name in REPLACED)}"
)


def has_several_workers(strategy: Any) -> bool:
    """Whether a `tf.distribute` strategy trains in several processes, all alike."""
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        # More replicas in all than there are devices here.
        and strategy.num_replicas_in_sync > len(strategy.extended.worker_devices)
    )


# No `keras.Model` itself: Keras replaces that base in all classes above a functional
# model, and so a functional model of one user would change `LPDistiller`.
if TYPE_CHECKING:
    from keras import Model as _Base
else:
    _Base = object


class MultiWorkerFit(_Base):
    """Lets a `keras.Model` be fitted by several workers together: derive from both.

    Made under the `scope()` of a `tf.distribute.MultiWorkerMirroredStrategy`, it takes
    `fit`, `evaluate` and `predict` as it does in one process: all workers call the same
    with the same data, of which each takes its part, and get the same results. With
    several devices in one process it takes first batches that don't divide among them,
    too; on one device it is a plain `keras.Model`.

    A data set is divided among the workers by `tf.data`; `batch_size`, or the batches
    of a data set, are those of all workers together. Where data are shuffled, all
    workers need the same seed, or some samples come twice and others not at all:
    `keras.utils.set_random_seed(0)`.

    Raises:
        RuntimeError: In `fit` and `evaluate` under several workers, if this version of
            Keras lacks the methods that this class replaces.
        ValueError: There too, if the batches of a data set have a `None` in them.

    Example:

    >>> class Classifier(MultiWorkerFit, keras.Sequential):
    ...     pass
    >>> with tf.distribute.get_strategy().scope():  # a MultiWorkerMirroredStrategy
    ...     model = Classifier([keras.layers.Flatten(), keras.layers.Dense(10)])
    ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ...     model.compile("adam", loss)
    >>> history = model.fit(x_train, y_train, verbose=0)
    """

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model; see `keras.Model.fit`."""
        if has_several_workers(self.distribute_strategy):
            check_keras()
        return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Scores the model; see `keras.Model.evaluate`."""
        if has_several_workers(self.distribute_strategy):
            check_keras()
        return super().evaluate(*args, **kwargs)

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> Any:
        """Builds what is not built yet, from the shapes of this worker's own rows."""
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1 and iterator is not None:
            _, _, batches = next(iter(iterator))
            try:
                batch = next(batches)
            except StopIteration:  # Nothing to train on, or nothing more.
                return None
            data_batch = keras.tree.map_structure(
                lambda part: strategy.experimental_local_results(part)[0], batch
            )
            if has_several_workers(strategy) and any(
                part is None for part in keras.tree.flatten(data_batch)
            ):
                raise ValueError(
                    "The batches of the data set have a `None` in them, which "
                    "TensorFlow can't divide among workers. Leave it out: (x, y) in "
                    "place of (x, y, None)."
                )
            iterator = None
        return super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function: Callable[[Any], Any]) -> Any:
        """Makes Keras's train and test function of a step; gives its logs an axis."""
        if has_several_workers(self.distribute_strategy):
            step_function = _with_axis(step_function)
        return super()._make_function(step_function)


def check_keras() -> None:
    """Asks whether this version of Keras is one that `MultiWorkerFit` fits.

    Raises:
        RuntimeError: If the methods that it replaces are gone.
    """
    gone = [name for name in REPLACED if not hasattr(keras.Model, name)]
    first, last = (".".join(map(str, version)) for version in TESTED)
    if gone:
        raise RuntimeError(
            f"{_WHY}. Keras {keras.__version__} has no "
            f"{' and no '.join(f'`{name}`' for name in gone)}. Expected: Keras {first} "
            f"to {last}. Install one of these, or train in one process."
        )
    if tuple(map(int, keras.__version__.split(".")[:2])) > TESTED[1]:
        _warn_once(
            f"{_WHY}. That was tested with Keras {first} to {last}; this is Keras "
            f"{keras.__version__}. If training under several workers fails or differs "
            f"from that in one process, install Keras {last}."
        )


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)  # where `fit` was called


def _with_axis(step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same step, whose results have an axis more in front, for replicas.

    Keras averages along it, over all replicas of all workers, and so it goes.
    """

    @functools.wraps(step_function)
    def step(data: Any) -> Any:
        return keras.tree.map_structure(
            lambda x: tf.expand_dims(x, 0), step_function(data)
        )

    return step
