"""What is told of a model in a comparison."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """What one model costs, and what it can do.

    Attributes:
        name: What it was called.
        parameters: All its weights, those that are not trained included.
        macs: Multiply-accumulates of its inference for one sample; `None` where the
            profiler can't count them.
        bytes: Size of its `.keras` file without optimizer.
        accuracy: How many samples it classifies right, as a fraction; `None` where it
            is no classifier of these classes.
        overlap: Which share of the teacher's nearest neighbours is among its own;
            `None` without a teacher, or without features.
        latency_ms: Median milliseconds for one sample.
        feature_layer: Where its features were taken, or `None`.
    """

    name: str
    parameters: int
    macs: int | None
    bytes: int
    accuracy: float | None
    overlap: float | None
    latency_ms: float
    feature_layer: str | None
