"""The batch of all devices, as one of them sees it under a `tf.distribute` strategy.

Under a strategy each device, a "replica", runs the training step on its own part of
the batch. The gradients of all are added up, and so the loss of the whole batch has to
be divided among them: into shares that add up to it.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_lpd.neighbors import Rows, as_vectors
from keras_lpd.terms import Term

NEIGHBORHOODS = ("global", "replica")
"""Where losses that compare samples may look: the whole batch, or a replica's part."""

_MEANS = {"sum_over_batch_size", "mean"}


class WholeBatch:
    """The batch on a single device: there is nothing to divide."""

    def distillation_loss(self, term: Term, teacher: Any, student: Any) -> Any:
        """The value of a distillation loss, or the share of it that falls here."""
        return term.loss.compute_loss(teacher, student)

    def student_loss(self, loss: Any, compiled: Any) -> Any:
        """The student's own loss, or the share of it that falls here."""
        return loss

    def of_share(self, share: Any) -> Any:
        """For the logs: the value of which the mean over all samples is the loss."""
        return share

    def features(self, term: Term, features: Any) -> Any:
        """What a loss compares, of all the samples it compares."""
        return features

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
        own = rows_of(x)
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
        if not (self._looks_at_all and term.compares_samples):
            value = term.loss.compute_loss(teacher, student)
            if _divides_by_itself(term.loss):
                value = value * self._replicas
            return self._weighed(value)
        teacher = self.features(term, teacher)
        student = self.features(term, student)
        if not term.compares_features:
            return self._share * term.loss.compute_loss(teacher, student)
        share = term.loss.share(teacher, student, self._rows)
        return tf.where(self._share > 0, share, 0.0)

    def student_loss(self, loss: Any, compiled: Any) -> Any:
        # Keras has divided means by the number of replicas, as if all parts of the
        # batch were of one size.
        if _reductions(compiled) <= _MEANS:
            return self._weighed(loss * self._replicas)
        return loss

    def of_share(self, share: Any) -> Any:
        return tf.math.divide_no_nan(share, self._share)

    def features(self, term: Term, features: Any) -> Any:
        if not (self._looks_at_all and term.compares_samples):
            return features
        pooling = getattr(term.loss, "pooling", None)
        key = id(features), pooling
        if key not in self._gathered:
            # Pooled before they travel: that is less to be moved.
            own = as_vectors(features, pooling) if pooling else features
            if own.dtype == tf.bfloat16:  # TensorFlow does not gather that.
                own = tf.cast(own, "float32")
            everywhere = self._context.all_gather(own, axis=0)
            self._gathered[key] = features, everywhere
        return self._gathered[key][1]

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

    def _weighed(self, mean: Any) -> Any:
        """The share of a mean over samples, of which this is the mean over the own."""
        # A part of no samples has no mean.
        return tf.where(self._share > 0, mean * self._share, 0.0)


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


def _divides_by_itself(loss: Any) -> bool:
    """Whether it goes through a `keras.losses.Loss`, which divides by the replicas."""
    held = keras.tree.flatten([*vars(loss).values()])
    return any(isinstance(one, keras.losses.Loss) for one in held)


def _reductions(compiled: Any) -> set[str]:
    """How the losses that a model was compiled with make one value of many."""
    losses = [one for one in keras.tree.flatten(compiled) if one is not None]
    return {getattr(one, "reduction", "sum_over_batch_size") for one in losses}


# Checks, before training


def check_neighborhood(neighborhood: str) -> str:
    """The argument as it is, if it is one of `NEIGHBORHOODS`."""
    if neighborhood not in NEIGHBORHOODS:
        raise ValueError(
            "`neighborhood` must be 'global' (neighbours are sought in the batch of "
            "all devices together) or 'replica' (in each device's part of it). "
            f"Received: neighborhood={neighborhood!r}"
        )
    return neighborhood


def check_strategy(model: keras.Model) -> None:
    """Refuses what can't be trained under a strategy, or would not be the same.

    Args:
        model: A compiled model, with its `student`.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    _check_kind(strategy)
    _check_made_inside(model, strategy)
    _check_settings(model)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        _warn_of_batch_statistics(model.student)


def _check_kind(strategy: Any) -> None:
    known = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    if not isinstance(strategy, known):
        raise ValueError(
            "Several devices train together under `tf.distribute.MirroredStrategy` or "
            "`MultiWorkerMirroredStrategy`. Received: "
            f"{type(strategy).__name__}, which Keras or this distiller was not made "
            "for."
        )


def _check_made_inside(model: keras.Model, strategy: Any) -> None:
    outside = [
        variable.path
        for variable in model.variables
        if not strategy.extended.variable_created_in_scope(variable.value)
    ]
    if outside:
        raise ValueError(
            f"{len(outside)} variables of '{model.name}' were not made inside of "
            f"`strategy.scope()`, such as '{outside[0]}'. Make the student, the "
            "distiller and what it is compiled with inside of it; a student that is "
            "there already: `keras.models.clone_model(student)` there, and "
            "`set_weights`."
        )
    made_under = getattr(model.optimizer, "_distribution_strategy", strategy)
    if made_under is not strategy:
        raise ValueError(
            f"The optimizer {type(model.optimizer).__name__} was made outside of "
            "`strategy.scope()`. Make it inside, or give `compile` its name."
        )


def _check_settings(model: keras.Model) -> None:
    """Refuses what Keras does wrong, or not at all, under a strategy."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    broken = {
        f"steps_per_execution={model.steps_per_execution}": (
            model.steps_per_execution != 1
        ),
        "gradient_accumulation_steps="
        f"{optimizer.gradient_accumulation_steps}, of the optimizer": bool(
            optimizer.gradient_accumulation_steps
        ),
        "ema_overwrite_frequency="
        f"{optimizer.ema_overwrite_frequency}, of the optimizer": bool(
            optimizer.use_ema and optimizer.ema_overwrite_frequency
        ),
        "jit_compile=True": model.jit_compile,
    }
    for setting, given in broken.items():
        if given:
            raise ValueError(
                f"Keras can't train with {setting} on several devices: it fails, or "
                "gives other weights. Leave it out."
            )
    reductions = _reductions(model.loss)
    if not (reductions <= _MEANS or reductions <= {"sum"}):
        raise ValueError(
            "On several devices the student's losses must all be means over the batch "
            "('sum_over_batch_size'), or all be sums: others can't be put together "
            "again from the parts. Received: reduction "
            f"{', '.join(map(str, reductions))}."
        )


def _warn_of_batch_statistics(student: keras.Model) -> None:
    plain = [
        layer.name
        for layer in student._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and not layer.synchronized
    ]
    if plain:
        warnings.warn(
            f"Student '{student.name}' has {len(plain)} layers such as '{plain[0]}' "
            "that normalise by what their own device has of the batch: the student "
            "learns something else than on one device, and the workers' statistics "
            "drift apart. Make them `BatchNormalization(synchronized=True)`.",
            stacklevel=3,
        )
