"""How a batch of samples becomes rows on disk."""

from __future__ import annotations

import math
import pathlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lpd import neighbors
from keras_lpd.arguments import as_integer
from keras_lpd.beside import written_beside
from keras_lpd.caching.projection import (
    NAMES,
    Projection,
    check_dimensions,
    fit_projection,
)
from keras_lpd.checks import check_finite, check_model
from keras_lpd.features import (
    OUTPUTS,
    FeatureExtractor,
    FeatureFunction,
    Preprocessing,
    default_layer,
    in_words,
)
from keras_lpd.fingerprint import fingerprint
from keras_lpd.taught import Mark

DTYPES = ("float16", "float32")

Spread = Callable[[int], Iterable[Any]]

FIT_ROWS = 8192
"""How many samples PCA is fitted to, at most."""

_FIT_BYTES = 1 << 28
_CHANGED = 1e-2
"""Share of the neighbours' weights that rounding may change, in sum.

The changes nearly cancel in the loss: it is off by a tenth of that, or less.
"""


class Recipe:
    """Runs the teacher, projects its features, and rounds them.

    Args:
        teacher: A trained, built `keras.Model`.
        layers: Names of the layers to keep; `None` finds the one.
        outputs: Whether the outputs are kept too.
        dtype: One of `DTYPES`.
        project: To how many dimensions features are projected, or `None`.
        projection: One of `projection.NAMES`.
        function: Gives the features of a teacher that is no graph.
        preprocessing: Makes of a batch what the teacher takes.

    Attributes:
        keys: Of what is kept: names of layers, and `OUTPUTS`.
        feature_layer: The layer of losses that name none, if one is clear.
        shapes: Of a sample's features as the teacher makes them, once it ran.
    """

    def __init__(
        self,
        teacher: keras.Model,
        layers: Sequence[str] | str | None,
        outputs: bool,
        dtype: str,
        project: int | None,
        projection: str,
        function: FeatureFunction | None,
        preprocessing: Preprocessing | None,
    ):
        check_model("teacher", teacher)
        check_finite(teacher)
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {DTYPES}. Received: {dtype!r}")
        if project is not None:
            project = as_integer("project", project, least=1)
        if projection not in NAMES:
            raise ValueError(
                f"`projection` must be one of {NAMES}. Received: {projection!r}"
            )
        if layers is None:
            layers = default_layer(teacher, function, "`layers=`")
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        if not self.layers and not outputs:
            raise ValueError(
                "There is nothing to keep: `layers` is empty and `outputs` is False."
            )
        self.teacher = teacher
        self.feature_layer = self.layers[0] if len(self.layers) == 1 else None
        self.keys = [*self.layers, *([OUTPUTS] if outputs else [])]
        self.shapes: dict[str, list[int]] = {}
        self._dtype, self._dimensions, self._kind = dtype, project, projection
        self._projections: dict[str, Projection] = {}
        self._fingerprint = fingerprint(teacher)
        self._extract = FeatureExtractor(
            teacher,
            self.layers,
            outputs=bool(outputs),
            function=function,
            preprocessing=preprocessing,
        )
        self._compiled: Callable[[Any], dict[str, tf.Tensor]] | None = None
        self._changed: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self._batches = 0

    @property
    def about(self) -> dict[str, Any]:
        """What has to be the same for rows to be the same, as JSON data."""
        return {
            "teacher": self._fingerprint,
            "layers": self.layers,
            "outputs": OUTPUTS in self.keys,
            "dtype": self._dtype,
            "project": self._dimensions,
            "projection": self._kind if self._dimensions else None,
        }

    @property
    def mark(self) -> Mark:
        """Goes with the features wherever they are attached."""
        marks = [one.mark for one in self._projections.values()]
        flattened = any(len(self.shapes[key]) > 1 for key in self._projections)
        return Mark.of(self._fingerprint, "+".join(marks), flattened)

    def features(self, inputs: Any) -> dict[str, np.ndarray]:
        """What the teacher makes of a batch, in float32, found to be finite."""
        count = int(tf.shape(tf.nest.flatten(inputs)[0])[0])
        if count == 1:  # By itself it would be computed in another way than in company.
            inputs = tf.nest.map_structure(lambda one: tf.repeat(one, 2, 0), inputs)
        if self._compiled is None:
            self._compiled = tf.function(self._run).get_concrete_function(
                tf.nest.map_structure(_any_batch, inputs)
            )
        found = {}
        for key, value in self._compiled(inputs).items():
            if value.shape[:1] != (max(count, 2),):
                raise ValueError(
                    f"Features must have one row a sample. {self._name(key)} gave "
                    f"shape {tuple(value.shape)} for {max(count, 2)} samples."
                )
            found[key] = value.numpy()[:count]
            if not np.isfinite(found[key]).all():
                raise ValueError(
                    f"The teacher's features have NaN or infinite values: "
                    f"{self._name(key)}. Check that its weights are sound, and that "
                    "the inputs are preprocessed as it expects."
                )
        self.shapes = {key: list(value.shape[1:]) for key, value in found.items()}
        return found

    def summary(self, inputs: Any) -> dict[str, list[float]]:
        """Mean, mean square and mean square step of the features of a few samples.

        It tells teachers apart which have the same weights, and do something
        else with them.
        """
        return {
            key: [
                float(one.mean()),
                float(np.square(one).mean()),
                float(np.square(one - one[::-1]).mean()),
            ]
            for key, one in self.features(inputs).items()
        }

    def rows(self, inputs: Any) -> dict[str, np.ndarray]:
        """What is kept of a batch."""
        rows = {}
        for key, exact in self.features(inputs).items():
            if key in self._projections:
                exact = self._projections[key](_vectors(exact))
            with np.errstate(over="ignore"):
                rows[key] = exact.astype(self._dtype)
            if not np.isfinite(rows[key]).all():
                raise ValueError(
                    f"{self._name(key)} reaches {np.abs(exact).max():.3g}, and "
                    f"{self._dtype} ends at {np.finfo(self._dtype).max:,.0f}. Pass "
                    "dtype='float32'."
                )
            if key != OUTPUTS and self._dtype != "float32":
                self._check_rounding(key, _vectors(exact), _vectors(rows[key]))
        self._batches += 1
        return rows

    def _check_rounding(self, key: str, exact: np.ndarray, rounded: np.ndarray) -> None:
        """Refuses a dtype that changes the weights of neighbours, over all so far."""
        if len(exact) < 2 or (self._batches > 8 and self._batches % 8):
            return
        so_far = self._changed[key]
        so_far += _changed_weights(exact, rounded.astype("float32"))
        changed, whole = so_far
        if not changed <= _CHANGED * whole:
            raise ValueError(
                f"{self._dtype} is too coarse for {self._name(key)}: its samples lie "
                "close together and far from 0, and the weights of neighbours in a "
                f"batch would be {changed / whole:.1%} off. Pass dtype='float32'."
            )

    @property
    def files(self) -> list[str]:
        """What `fit_projections` leaves in the folder."""
        return [f"projection-{index}.npz" for index in range(len(self.layers))]

    def fit_projections(self, folder: pathlib.Path, spread: Spread) -> None:
        """Makes the projections, or takes those found in `folder`.

        Args:
            folder: Where they are kept, so that an interruption can't change them.
            spread: Gives as many inputs from all over the data set, in batches.
        """
        if self._dimensions is None:
            return
        for name, key in zip(self.files, self.layers):
            file = folder / name
            if not file.exists():
                self._fit_projection(file, key, self._dimensions, spread)
            with np.load(file, allow_pickle=False) as arrays:
                self._projections[key] = Projection(
                    self._kind, arrays["offset"], arrays["matrix"]
                )

    def _fit_projection(
        self, file: pathlib.Path, key: str, dimensions: int, spread: Spread
    ) -> None:
        width = math.prod(self.shapes[key])
        check_dimensions(dimensions, width)
        found = np.zeros((1, width), "float32")
        if self._kind == "pca":
            affordable = min(FIT_ROWS, _FIT_BYTES // found.nbytes)
            batches = spread(max(affordable, 2 * dimensions))
            found = np.concatenate(
                [_vectors(self.features(inputs)[key]) for inputs in batches]
            )
        fitted = fit_projection(self._kind, found, dimensions)
        with written_beside(file) as part:
            np.savez(part, offset=fitted.offset, matrix=fitted.matrix)

    def _run(self, inputs: Any) -> dict[str, tf.Tensor]:
        found = self._extract(inputs, training=False)
        return {key: self._as_float32(key, found[key]) for key in self.keys}

    def _as_float32(self, key: str, value: Any) -> tf.Tensor:
        nested = keras.tree.is_nested(value)
        if nested or not tf.as_dtype(value.dtype).is_floating:
            raise ValueError(
                f"A cache keeps tensors of floats. {self._name(key)} gave "
                f"{type(value).__name__ if nested else value.dtype}."
            )
        return tf.cast(value, tf.float32)

    def _name(self, key: str) -> str:
        return f"{in_words(key)} of model '{self.teacher.name}'"


def _any_batch(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def _changed_weights(exact: np.ndarray, rounded: np.ndarray) -> tuple[float, float]:
    """How much rounding changes the weights of neighbours, and their sum.

    A neighbour taken for another at the same distance is no change.
    """
    squared, _ = map(np.asarray, neighbors.nearest_neighbors(exact, k=5))
    found, indices = map(np.asarray, neighbors.nearest_neighbors(rounded, k=5))
    truly = np.square(exact[:, None] - exact[indices]).sum(axis=2)
    scale = squared.mean() or 1.0
    weights, of_found, of_truly = (
        np.exp(-one / scale) for one in (squared, found, truly)
    )
    changed = np.abs(of_found - of_truly) + np.abs(np.sort(of_truly)[:, ::-1] - weights)
    return float(changed.sum()), float(weights.sum())


def _vectors(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(features), -1)
