"""Pruning while distilling: most of the weights become 0."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_lpd.arguments import is_number
from keras_lpd.compress.bridge import Crossing
from keras_lpd.compress.packages import load
from keras_lpd.compress.training import (
    CompressingDistiller,
    check_distiller,
    kernel_of,
    wrap_kernels,
)
from keras_lpd.distiller import LPDistiller

_UPDATES = 100
"""How often the weights to keep are chosen anew, at most, while sparsity rises."""


def prune(
    distiller: LPDistiller, sparsity: float = 0.75, schedule: Any = "polynomial"
) -> PruningDistiller:
    """A distiller that prunes its student while it learns.

    In every kernel the smallest weights become 0, until `sparsity` of them are: those
    of dense layers and convolutions, of separable ones the pointwise kernel. Depthwise
    kernels and biases stay, and so do frozen layers. A file is not smaller for it
    until it is compressed.

    Args:
        distiller: An `LPDistiller` with a student that is trained already, best of
            all. Its student stays as it is.
        sparsity: The share of every kernel that becomes 0, at least 0 and under 1.
            Defaults to 0.75.
        schedule: When it does. `"polynomial"`: the share rises over the first half of
            the first `fit`, fast in the beginning, and stays (Zhu and Gupta).
            `"constant"`: it is there from the first step on. Or a `PruningSchedule` of
            tensorflow-model-optimization, which takes the place of `sparsity` too.
            Defaults to `"polynomial"`.

    Returns:
        A `PruningDistiller`: `fit` goes on distilling, and `strip()` gives the pruned
        Keras 3 student.

    Raises:
        TypeError: If it is no `LPDistiller`, or `schedule` no schedule.
        ValueError: If a layer can't cross to tf_keras, or an argument is out of its
            range.
        ImportError: If the extra `compress` is not installed.

    Example:

    >>> pruning = prune(LPDistiller(teacher, student), sparsity=0.5)
    >>> history = pruning.fit(x_train, y_train, epochs=2, verbose=0)
    >>> kernel = pruning.strip().get_layer("features").kernel
    >>> float(np.mean(kernel == 0))
    0.5

    Source: Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878.
    """
    check_distiller(distiller, "prune", after=("prune",))
    if not is_number(sparsity) or not 0 <= sparsity < 1:
        raise ValueError(
            "`sparsity` must be a number of at least 0 and under 1. "
            f"Received: sparsity={sparsity!r}"
        )
    if isinstance(schedule, str) and schedule not in ("polynomial", "constant"):
        raise ValueError(
            "`schedule` must be 'polynomial', 'constant', or a `PruningSchedule` of "
            f"tensorflow-model-optimization. Received: schedule={schedule!r}"
        )
    tfmot = load("tensorflow_model_optimization")
    behind = schedule
    if schedule == "polynomial":
        behind = _Rising(float(sparsity))
    elif schedule == "constant":
        behind = tfmot.sparsity.keras.ConstantSparsity(float(sparsity), begin_step=1)
    elif not isinstance(schedule, tfmot.sparsity.keras.PruningSchedule):
        raise TypeError(
            "`schedule` must be 'polynomial', 'constant', or a `PruningSchedule` of "
            f"tensorflow-model-optimization. Received: schedule={schedule!r}"
        )
    return PruningDistiller(distiller, behind)


class PruningDistiller(CompressingDistiller):
    """A distiller that prunes its student; see `prune`.

    Args:
        distiller: Where teacher, losses and student are taken from.
        schedule: When the share of zeros rises.
    """

    def __init__(self, distiller: LPDistiller, schedule: Any):
        self._schedule_of_zeros = schedule
        super().__init__(distiller, self._wrap, "prune")
        self._wrappers = {
            layer.layer.name: layer
            for layer in self.student.inner.layers
            if hasattr(layer, "pruning_vars")
        }

    def _wrap(self, crossing: Crossing) -> Any:
        tfmot = load("tensorflow_model_optimization")
        schedule = self._schedule_of_zeros
        return wrap_kernels(
            crossing,
            lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, schedule),
            "pruning",
        )

    @property
    def sparsity(self) -> float:
        """The share of zeros in the kernels that are pruned, as of now."""
        masks = [wrapper.pruning_vars[0][1] for wrapper in self._wrappers.values()]
        kept = sum(float(np.sum(mask)) for mask in masks)
        return 1.0 - kept / sum(int(np.prod(mask.shape)) for mask in masks)

    @property
    def _kernel_paths(self) -> list[str]:
        names = self.crossing.names
        return [path for path in names if names[path] in self._wrappers]

    def _stripped(self) -> Any:
        for wrapper in self._wrappers.values():
            wrapper.pruning_obj.weight_mask_op()
        return self.crossing.model  # It has the layers that are wrapped.

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        return [_PruningStep(self._schedule_of_zeros)]


class _PruningStep(keras.callbacks.Callback):
    """Does in Keras 3 what tfmot's `UpdatePruningStep` does in tf_keras.

    That one looks for layers to prune in the model of the training, and would find
    none in a Keras 3 model; here it is given the tf_keras model within.

    Args:
        schedule: When the share of zeros rises.
    """

    def __init__(self, schedule: Any):
        super().__init__()
        self.schedule = schedule

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        tfmot = load("tensorflow_model_optimization")
        if isinstance(self.schedule, _Rising):
            self.schedule.begin(self.params or {}, self.model)
        self.behind = tfmot.sparsity.keras.UpdatePruningStep()
        self.behind.set_model(self.model.student.inner)
        self.behind.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.behind.on_epoch_end(epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.behind.on_epoch_end(0)  # An epoch may have been cut off.
        wanted = _target(self.schedule)
        reached = self.model.sparsity
        if wanted is not None and reached < wanted - 0.01:
            warnings.warn(
                f"`fit` has ended before the student was pruned as far as wanted: "
                f"{reached:.1%} of the kernels are zeros, not {wanted:.1%}. Fit "
                "longer, or with `schedule='constant'`.",
                stacklevel=2,
            )


class _Rising:
    """tfmot's polynomial schedule over the first half of the first `fit`.

    Args:
        sparsity: The share of zeros at its end.
    """

    def __init__(self, sparsity: float):
        self.final_sparsity = sparsity
        self.behind: Any = None

    def begin(self, params: dict[str, Any], distiller: PruningDistiller) -> None:
        """Called when a training begins, with what its callbacks know of it."""
        if self.behind is not None:
            return
        steps, epochs = params.get("steps"), params.get("epochs")
        if not steps or not epochs:
            raise ValueError(
                "The sparsity rises over the first half of the training, whose length "
                "is unknown. Give `steps_per_epoch=` in `fit`, or a `PruningSchedule` "
                "of tensorflow-model-optimization with its own steps as `schedule=`."
            )
        tfmot = load("tensorflow_model_optimization")
        half = max(1, steps * epochs // 2)
        every = max(1, half // _UPDATES)
        kernels = [kernel_of(one.layer) for one in distiller._wrappers.values()]
        already = min(float(np.mean(kernel == 0)) for kernel in kernels)
        self.behind = tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=min(already, self.final_sparsity),
            final_sparsity=self.final_sparsity,
            begin_step=0,
            end_step=half // every * every,  # It is reached in a step that prunes.
            frequency=every,
        )

    def __call__(self, step: Any) -> tuple[Any, Any]:
        return self.behind(step)

    def get_config(self) -> dict[str, Any]:
        return {} if self.behind is None else self.behind.get_config()


def _target(schedule: Any) -> float | None:
    """The share of zeros that a schedule leads to, where it tells."""
    found = getattr(schedule, "final_sparsity", None)
    return getattr(schedule, "target_sparsity", None) if found is None else found
