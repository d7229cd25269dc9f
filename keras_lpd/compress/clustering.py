"""Clustering while distilling: a kernel has a few distinct values only."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lpd.arguments import as_integer
from keras_lpd.compress.bridge import Crossing, layer_at
from keras_lpd.compress.packages import load
from keras_lpd.compress.training import (
    CompressingDistiller,
    check_distiller,
    kernel_of,
    wrap_kernels,
)
from keras_lpd.distiller import LPDistiller

_EXPERIMENTAL = (
    "tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster"
)
"""Clusters and keeps zeros, which the public function does not offer."""


def cluster(distiller: LPDistiller, clusters: int = 16) -> ClusteringDistiller:
    """A distiller that clusters its student's weights while it learns.

    Every kernel has at most `clusters` distinct values, which are trained together
    with the choice of each weight among them: the kernels of dense layers and
    convolutions, of separable ones the pointwise kernel. Depthwise kernels and biases
    stay, and so do frozen layers. A file is not smaller for it until it is compressed.

    What `prune` made 0 stays 0.

    Args:
        distiller: An `LPDistiller` with a student that is trained already. Its student
            stays as it is.
        clusters: How many values a kernel may have, at least 2. Defaults to 16.

    Returns:
        A `ClusteringDistiller`: `fit` goes on distilling, and `strip()` gives the
        clustered Keras 3 student.

    Raises:
        TypeError: If it is no `LPDistiller`.
        ValueError: If a layer can't cross to tf_keras, or `clusters` is no integer of
            at least 2 (3 after `prune`).
        ImportError: If the extra `compress` is not installed.

    Example:

    >>> clustering = cluster(LPDistiller(teacher, student), clusters=8)
    >>> history = clustering.fit(x_train, y_train, verbose=0)
    >>> len(np.unique(clustering.strip().get_layer("features").kernel)) <= 8
    True

    Source: Han et al., "Deep Compression", arXiv 1510.00149.
    """
    check_distiller(distiller, "cluster", after=("prune", "cluster"))
    least = 3 if "prune" in distiller.methods else 2
    return ClusteringDistiller(distiller, as_integer("clusters", clusters, least))


class ClusteringDistiller(CompressingDistiller):
    """A distiller that clusters its student's weights; see `cluster`.

    Args:
        distiller: Where teacher, losses and student are taken from.
        clusters: How many values a kernel may have.
    """

    def __init__(self, distiller: LPDistiller, clusters: int):
        self.clusters = clusters
        self._keeps_zeros = "prune" in distiller.methods
        super().__init__(distiller, self._wrap, "cluster")

    def _wrap(self, crossing: Crossing) -> Any:
        module = load("tensorflow_model_optimization").clustering.keras
        settings = {}
        if self._keeps_zeros:
            module, settings = load(_EXPERIMENTAL), {"preserve_sparsity": True}

        def wrap(layer: Any) -> Any:
            if kernel_of(layer).size <= self.clusters:
                return layer  # It has no more values as it is.
            found = module.cluster_weights(layer, self.clusters, **settings)
            if found is None:
                raise RuntimeError(
                    "tensorflow-model-optimization has clustered nothing, without a "
                    f"word: it does not take layer '{layer.name}' for one of tf_keras."
                )
            return found

        return wrap_kernels(crossing, wrap, "clustering")

    @property
    def _kernel_paths(self) -> list[str]:
        names = self.crossing.names
        wrapped = {
            layer.layer.name
            for layer in self.student.inner.layers
            if hasattr(layer, "cluster_centroids")
        }
        return [path for path in names if names[path] in wrapped]

    def _stripped(self) -> Any:
        tfmot = load("tensorflow_model_optimization")
        return tfmot.clustering.keras.strip_clustering(self.student.inner)

    def strip(self) -> Any:
        """The clustered Keras 3 student.

        Raises:
            ValueError: If it does not give what the trained model gives, or a kernel
                has more values than it may have.
        """
        student = super().strip()
        for path in self._kernel_paths:
            found = len(np.unique(kernel_of(layer_at(student, path))))
            if found > self.clusters:
                raise ValueError(
                    f"The kernel of layer '{path}' has {found} values. Expected: at "
                    f"most {self.clusters}."
                )
        return student
