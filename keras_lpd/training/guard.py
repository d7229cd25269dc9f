"""What `LPDistiller.fit` keeps an eye on while it trains."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras

SPREAD = "feature_spread"
"""The log entry that tells how far the student's features lie apart."""

COLLAPSED = 0.1
"""The share of the largest spread under which the features count as collapsed."""


class MovingAverage(keras.metrics.Metric):
    """The exponential moving average of a value, from the first batch on.

    Unlike a mean over the epoch it tells where training has come to.
    """

    decay = 0.7

    def __init__(self, name: str):
        super().__init__(name=name)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, value: Any, sample_weight: Any = None) -> None:
        # A device without a sample has no value to add, and nothing decays by it.
        weight = 1.0 if sample_weight is None else sample_weight
        decay = 1.0 - (1.0 - self.decay) * weight
        self.total.assign(decay * self.total + weight * value)
        self.count.assign(decay * self.count + weight)

    def result(self) -> Any:
        return keras.ops.divide_no_nan(self.total, self.count)


class Guard(keras.callbacks.Callback):
    """Warns when the student's features collapse; refuses a NaN loss at the start.

    Args:
        loss_names: The log entries of the distillation losses.
    """

    def __init__(self, loss_names: list[str]):
        super().__init__()
        self.loss_names = loss_names
        self.largest_spread = 0.0
        self.first_batch = True
        self.warned = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.first_batch = True

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if not self.first_batch:
            return
        self.first_batch = False
        logs = logs or {}
        self._see(logs)
        for name in self.loss_names:
            value = float(logs.get(name, 0.0))
            if not math.isfinite(value):
                raise ValueError(
                    f"`{name}` is {value} at the first batch. Either the teacher's "
                    "features or the student's have NaN or infinite values: look at "
                    "both on that batch, and check that the inputs are preprocessed "
                    "as each model expects. The student has made one step with it: "
                    "load its weights again."
                )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        spread = self._see(logs or {})
        if self.warned or not spread < COLLAPSED * self.largest_spread:
            return
        self.warned = True
        warnings.warn(
            f"The student's features have collapsed: `feature_spread` is {spread:.3g}, "
            f"under {COLLAPSED:.0%} of the {self.largest_spread:.3g} it was before. A "
            "loss that pulls samples together outweighs the cross-entropy: use a "
            "smaller `gamma` (or `distillation_loss_weights`), a tenth of it, say.",
            stacklevel=2,
        )

    def _see(self, logs: dict[str, Any]) -> float:
        spread = float(logs.get(SPREAD, math.inf))  # Without losses on features: none.
        if math.isfinite(spread):
            self.largest_spread = max(self.largest_spread, spread)
        return spread
