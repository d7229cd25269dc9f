"""A model, or the student of a distiller: what is meant where either may be given."""

from __future__ import annotations

from typing import Any

import keras

from keras_lpd.distiller import LPDistiller


def model_of(value: Any) -> Any:
    """The student of a distiller, ours or Keras's; anything else as it is."""
    if isinstance(value, (LPDistiller, keras.distillation.Distiller)):
        return value.student
    return value


def is_being_compressed(value: Any) -> bool:
    """Whether it is a distiller whose student is wrapped, and has to be stripped."""
    return isinstance(value, LPDistiller) and bool(value.methods)
