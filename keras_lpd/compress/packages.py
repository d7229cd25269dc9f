"""The packages of the extra `compress`, imported where they are needed only."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

_DISTRIBUTIONS = {
    "tensorflow_model_optimization": "tensorflow-model-optimization",
    "tf_keras": "tf-keras",
    "ai_edge_litert": "ai-edge-litert",
}
_LEGACY = "TF_USE_LEGACY_KERAS"


def load(name: str) -> Any:
    """Imports a module of the extra, such as `"tf_keras"`.

    Raises:
        ImportError: If it is not installed; names the extra.
    """
    try:
        with _keras_left_alone():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _DISTRIBUTIONS:
            raise
        raise ImportError(
            f"This needs {_DISTRIBUTIONS[missing]}. Install it with "
            "`pip install 'keras-lpd[compress]'`."
        ) from error


@contextlib.contextmanager
def _keras_left_alone() -> Iterator[None]:
    """Lets no import change which Keras TensorFlow hands out, now or later.

    tensorflow-model-optimization sets an environment variable that turns the lazy
    attribute `keras` of TensorFlow into tf_keras, unless it was looked at before.
    """
    import tensorflow as tf

    getattr(tf.keras, "version", None)  # Decides it.
    before = os.environ.get(_LEGACY)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LEGACY, None)
        else:
            os.environ[_LEGACY] = before
