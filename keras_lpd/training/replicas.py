"""The batch of all devices, as one of them sees it under a `tf.distribute` strategy.

Under a strategy each device, a "replica", runs the training step on its own part of
the batch. The gradients of all are added up, and so the loss of the whole batch has to
be divided among them: into shares that add up to it.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_lpd.neighbors import Rows, as_vectors
from keras_lpd.training.terms import Term

NEIGHBORHOODS = ("global", "replica")
"""Where losses that compare samples may look: the whole batch, or a replica's part."""

MEANS = {"sum_over_batch_size", "mean"}


class WholeBatch:
    """The batch on a single device: there is nothing to divide."""

    def distillation_loss(self, term: Term, teacher: Any, student: Any) -> Any:
        """The value of a distillation loss, or the share of it that falls here."""
        return term.loss.compute_loss(teacher, student)

    def student_loss(self, loss: Any, compiled: Any, y: Any, y_pred: Any) -> Any:
        """The student's own loss, or the share of it that falls here.

        Args:
            loss: Its value.
            compiled: What the student was compiled with.
            y: The labels it is made of.
            y_pred: The outputs it is made of.
        """
        return loss

    def of_share(self, share: Any) -> Any:
        """For the logs: the value of which the mean over all samples is the loss."""
        return share

    def of_all(self, features: Any, pooling: str | None = None) -> Any:
        """Features of the whole batch, if losses may look at it."""
        return features

    def track_mean(self, tracker: Any, value: Any) -> None:
        """Hands a tracker a value that is a mean over samples."""
        tracker.update_state(value)

    def gradients(self, optimizer: Any, gradients: list[Any]) -> list[Any]:
        """What the optimizer is to be given."""
        return gradients


class PartOfBatch(WholeBatch):
    """The part of the batch that one replica has; made within the training step.

    Args:
        context: The replica's context.
        x: Its inputs.
        neighborhood: One of `NEIGHBORHOODS`.
    """

    def __init__(self, context: Any, x: Any, neighborhood: str):
        self._context = context
        self._looks_at_all = neighborhood == "global"
        self._own = own = rows_of(x)
        counts = context.all_gather(tf.reshape(own, [1]), axis=0)
        total = tf.reduce_sum(counts)
        before = tf.reduce_sum(counts[: context.replica_id_in_sync_group])
        # What has no rows looks at another's last one, and at nothing of it counts: a
        # mean over none would be NaN.
        rows = tf.minimum(before + tf.range(tf.maximum(own, 1)), total - 1)
        self._rows = Rows(rows, lambda x: self._sum(tf.where(own > 0, x, 0)))
        self._share = tf.cast(own, "float32") / tf.cast(total, "float32")
        self._replicas = context.num_replicas_in_sync
        self._gathered: dict[Any, tuple[Any, Any]] = {}

    def _sum(self, tensor: Any) -> Any:
        return self._context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)

    def distillation_loss(self, term: Term, teacher: Any, student: Any) -> Any:
        loss, looks_at_all = term.loss, self._looks_at_all and term.compares_samples
        share = self._share
        if looks_at_all:
            teacher, student = (
                self.of_all(features, term.pooling) for features in (teacher, student)
            )
        else:
            teacher, student = map(self._at_least_a_row, (teacher, student))
        if looks_at_all and term.compares_features:
            value, share = loss.share(teacher, student, self._rows), 1.0
        else:
            value = loss.compute_loss(teacher, student)
        if divides_by_replicas(loss):
            value = value * self._replicas
        value = ops.cast(value, "float32") * share
        return tf.where(self._own > 0, value, 0.0)

    def student_loss(self, loss: Any, compiled: Any, y: Any, y_pred: Any) -> Any:
        _check_student_losses(compiled, y, y_pred)
        # Keras has divided means by the number of replicas, as if all parts of the
        # batch were of one size.
        if reductions(compiled) <= MEANS:
            return tf.where(self._own > 0, loss * self._replicas * self._share, 0.0)
        return loss

    def of_share(self, share: Any) -> Any:
        return tf.math.divide_no_nan(share, self._share)

    def of_all(self, features: Any, pooling: str | None = None) -> Any:
        if not self._looks_at_all:
            return features
        return keras.tree.map_structure(lambda one: self._all(one, pooling), features)

    def _all(self, features: Any, pooling: str | None) -> Any:
        key = id(features), pooling
        if key not in self._gathered:
            # Pooled before they travel: that is less to be moved.
            own = as_vectors(features, pooling) if pooling else features
            if own.dtype == tf.bfloat16:  # TensorFlow does not gather that.
                own = tf.cast(own, "float32")
            # As what the data brought along, it has no device yet, and needs one.
            everywhere = self._context.all_gather(tf.identity(own), axis=0)
            self._gathered[key] = features, everywhere
        return self._gathered[key][1]

    def _at_least_a_row(self, features: Any) -> Any:
        """The replica's own features; one row of zeros where it has none."""
        missing = tf.maximum(1 - self._own, 0)

        def filled(one: Any) -> Any:
            ends = [[0, missing], *([0, 0] for _ in one.shape[1:])]
            return tf.ensure_shape(tf.pad(one, ends), (None, *one.shape[1:]))

        return keras.tree.map_structure(filled, features)

    def track_mean(self, tracker: Any, value: Any) -> None:
        there = tf.cast(self._own > 0, "float32")
        if self._looks_at_all:
            there = tf.ones(())
        tracker.update_state(tf.where(there > 0, value, 0.0), sample_weight=there)

    def gradients(self, optimizer: Any, gradients: list[Any]) -> list[Any]:
        # Keras clips, and looks whether they are finite, before it adds them up: each
        # replica would clip by itself. Done here, what is left to it changes nothing.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if inner is optimizer and not clips(optimizer):
            return gradients
        given = [one is not None for one in gradients]
        totals = iter(self._sum([one for one in gradients if one is not None]))
        summed = [next(totals) if one else None for one in given]
        if clips(inner):
            scale = optimizer.scale_loss(1.0)
            plain = [_times(one, 1.0 / scale) for one in summed]
            summed = [_times(one, scale) for one in inner._clip_gradients(plain)]
        return [_times(one, 1.0 / self._replicas) for one in summed]


def batch_of(x: Any, neighborhood: str) -> WholeBatch:
    """What a training step has before it: the whole batch, or a part."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return WholeBatch()
    return PartOfBatch(context, x, neighborhood)


def rows_of(x: Any) -> Any:
    """How many samples there are in inputs."""
    return ops.shape(next(t for t in keras.tree.flatten(x) if t is not None))[0]


def clips(optimizer: Any) -> bool:
    """Whether an optimizer clips gradients."""
    names = ("clipnorm", "global_clipnorm", "clipvalue")
    return any(getattr(optimizer, name, None) for name in names)


def _times(gradient: Any, factor: Any) -> Any:
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values * tf.cast(factor, gradient.dtype)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)


def divides_by_replicas(loss: Any) -> bool:
    """Whether a distillation loss divides its value by the number of replicas itself.

    It says so, as `divides_by_replicas`; or it holds a `keras.losses.Loss`, which does.
    """
    held = keras.tree.flatten([*vars(loss).values()])
    guess = any(isinstance(one, keras.losses.Loss) for one in held)
    return getattr(loss, "divides_by_replicas", guess)


def reductions(compiled: Any) -> set[str]:
    """How the losses that a model was compiled with make one value of many."""
    losses = [one for one in keras.tree.flatten(compiled) if one is not None]
    return {getattr(one, "reduction", "sum_over_batch_size") for one in losses}


def _check_student_losses(compiled: Any, y: Any, y_pred: Any) -> None:
    """Refuses losses of the user's that give one value for all samples.

    Keras would not know how to divide that among the devices.

    Args:
        compiled: What the student was compiled with.
        y: The labels of a batch.
        y_pred: The outputs for it.
    """
    losses = [one for one in keras.tree.flatten(compiled) if callable(one)]
    pairs = list(zip(keras.tree.flatten(y), keras.tree.flatten(y_pred)))
    if len(losses) != len(pairs):
        return
    for loss, pair in zip(losses, pairs):
        value = getattr(loss, "call", loss)(*pair)
        if len(value.shape) == 0:
            name = getattr(loss, "__name__", type(loss).__name__)
            raise ValueError(
                f"The student's loss '{name}' gives one value for a batch. On several "
                "devices it has to give one for each sample: leave the mean over the "
                "samples to Keras."
            )


def check_neighborhood(neighborhood: str) -> str:
    """The argument as it is, if it is one of `NEIGHBORHOODS`."""
    if neighborhood not in NEIGHBORHOODS:
        raise ValueError(
            "`neighborhood` must be 'global' (neighbours are sought in the batch of "
            "all devices together) or 'replica' (in each device's part of it). "
            f"Received: neighborhood={neighborhood!r}"
        )
    return neighborhood
