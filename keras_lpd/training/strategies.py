"""What can be trained under a `tf.distribute` strategy, asked before training."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_lpd.training.replicas import MEANS, reductions


def check_strategy(model: keras.Model) -> None:
    """Refuses what can't be trained under a strategy, or would not be the same.

    Args:
        model: A compiled model, with its `student`.
    """
    strategy = model.distribute_strategy
    _check_optimizer(model.optimizer, strategy)
    if strategy.num_replicas_in_sync == 1:
        return
    _check_kind(strategy)
    _check_made_inside(model, strategy)
    _check_settings(model)
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


def _check_optimizer(optimizer: Any, strategy: Any) -> None:
    for one in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        made_under = getattr(one, "_distribution_strategy", strategy)
        several = strategy.num_replicas_in_sync, made_under.num_replicas_in_sync
        if made_under is not strategy and max(several) > 1:
            raise ValueError(
                f"The optimizer {type(one).__name__} and the distiller were not made "
                "under the same strategy. Make both inside of `strategy.scope()`, and "
                "call `compile` there too."
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
        "run_eagerly=True": model.run_eagerly,
    }
    for setting, given in broken.items():
        if given:
            raise ValueError(
                f"Keras can't train with {setting} on several devices: it fails, or "
                "gives other weights. Leave it out."
            )
    found = reductions(model.loss)
    if not (found <= MEANS or found <= {"sum"}):
        raise ValueError(
            "On several devices the student's losses must all be means over the batch "
            "('sum_over_batch_size'), or all be sums: others can't be put together "
            "again from the parts. Received: reduction "
            f"{', '.join(map(str, found))}."
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
            "learns something else than on one device, the statistics of several "
            "workers drift apart, and become NaN where one has no sample left. Make "
            "them `BatchNormalization(synchronized=True)`.",
            stacklevel=3,
        )
