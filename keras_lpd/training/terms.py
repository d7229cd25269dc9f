"""The distillation losses that `LPDistiller` adds up, each with its weight."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import keras

from keras_lpd.arguments import as_nonnegative
from keras_lpd.features import FEATURES, OUTPUTS
from keras_lpd.losses.feature_loss import FeatureLoss, snake_case
from keras_lpd.losses.locality import LocalityPreserving
from keras_lpd.losses.neighbor_probability import NeighborProbability

AUTO = "auto"
"""Stands for neighbour probability, beside the locality preserving loss."""

PROBABILITY_FACTOR = 120.0
"""How much more neighbour probability weighs there: 0.6 beside 0.005."""


@dataclasses.dataclass(frozen=True)
class Term:
    """A distillation loss in the sum.

    Args:
        loss: The loss.
        weight: Its weight.
        name: Its name in the logs: what it calls itself, made unique.
    """

    loss: keras.distillation.DistillationLoss
    weight: float
    name: str

    @property
    def compares_features(self) -> bool:
        return isinstance(self.loss, FeatureLoss)

    @property
    def compares_samples(self) -> bool:
        return getattr(self.loss, "compares_samples", False)

    @property
    def compares_outputs(self) -> bool:
        named = self.layer("teacher") or self.layer("student")
        return not self.compares_features and not named

    @property
    def only_attracts(self) -> bool:
        return getattr(self.loss, "only_attracts", False)

    @property
    def pooling(self) -> str | None:
        """How the loss makes vectors of feature maps."""
        return getattr(self.loss, "pooling", None)

    @property
    def needs_maps(self) -> bool:
        compares_maps = getattr(self.loss, "compares_maps", False)
        return compares_maps or self.pooling is not None

    @property
    def layers(self) -> list[keras.Layer]:
        """What the loss trains itself."""
        return list(getattr(self.loss, "layers", ()))

    def layer(self, role: str) -> str | None:
        """The layer that the loss itself names."""
        return getattr(self.loss, f"{role}_layer_name", None)

    def key(self, role: str, default: str | None) -> str:
        """Where a `FeatureExtractor`'s results hold what the loss compares."""
        if self.compares_features:
            return self.layer(role) or default or FEATURES
        return self.layer(role) or OUTPUTS


def make_terms(
    losses: list[keras.distillation.DistillationLoss],
    weights: list[float],
    gamma: float | None,
    locality: LocalityPreserving,
) -> tuple[Term, ...]:
    """What is added up: `locality` at weight `gamma`, and the losses.

    A `LocalityPreserving` among the losses takes the place of `locality`, whose
    settings must be the defaults then: they would be ignored.
    """
    pairs = list(zip(losses, weights))
    if any(isinstance(loss, LocalityPreserving) for loss in losses):
        default = LocalityPreserving()
        untouched = gamma in (None, default.default_weight)
        if not untouched or locality.get_config() != default.get_config():
            raise ValueError(
                "`distillation_losses` has its own LocalityPreserving, which takes "
                "the place of the one that `gamma`, `k`, `sigma`, `normalize` and "
                "`pooling` set. Set them on that one, and give its weight in "
                f"`distillation_loss_weights`. Received: gamma={gamma!r}, "
                f"{locality.get_config()}"
            )
    elif gamma is not None:
        pairs.insert(0, (locality, as_nonnegative("gamma", gamma)))
    if not pairs:
        raise ValueError(
            "There is nothing to distil: `gamma` is None and there are no "
            "`distillation_losses`. Give one of them."
        )
    terms: list[Term] = []
    for loss, weight in pairs:
        name = getattr(loss, "name", None) or snake_case(type(loss).__name__)
        taken = {term.name for term in terms}
        names = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
        terms.append(Term(loss, weight, next(n for n in names if n not in taken)))
    return tuple(terms)


def automatic_losses(
    gamma: float | None, pooling: str | None, weights: Any
) -> tuple[list[keras.distillation.DistillationLoss], list[float]]:
    """What `AUTO` stands for, and its weight, which goes with `gamma`."""
    if gamma is None:
        return [], as_weights(weights, [])
    losses = [NeighborProbability(pooling=pooling)]
    if weights is None:
        weights = PROBABILITY_FACTOR * as_nonnegative("gamma", gamma)
    return losses, as_weights(weights, losses)


def as_losses(losses: Any) -> list[keras.distillation.DistillationLoss]:
    """One loss, several or none as a list."""
    if losses is None:
        return []
    losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    for loss in losses:
        if not isinstance(loss, keras.distillation.DistillationLoss):
            raise TypeError(
                "`distillation_losses` takes instances of "
                "`keras.distillation.DistillationLoss`, one or a list, or "
                f"{AUTO!r}. "
                f"Received: {loss!r}"
            )
    return losses


def as_weights(weights: Any, losses: list[Any]) -> list[float]:
    """A weight for each loss: its default, where none are given."""
    if weights is None:
        return [float(getattr(loss, "default_weight", 1.0)) for loss in losses]
    weights = list(weights) if isinstance(weights, (list, tuple)) else [weights]
    if len(weights) != len(losses):
        raise ValueError(
            "`distillation_loss_weights` needs one weight for each of the "
            f"{len(losses)} `distillation_losses`. Received: {weights!r}"
        )
    return [as_nonnegative("distillation_loss_weights", weight) for weight in weights]
