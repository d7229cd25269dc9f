"""Models from `.keras` files, without running code that comes in them."""

from __future__ import annotations

import pathlib
import re
import zipfile
from typing import Any

import keras

from keras_lpd.datasets import Arrays


def load_model(file: str) -> keras.Model:
    """Loads a `.keras` file in Keras's safe mode, uncompiled."""
    import keras_lpd.models  # noqa: F401  # Registers the layers of its own.

    path = pathlib.Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {file}. Expected: a .keras file.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        # Other formats have no safe mode, or another one.
        raise ValueError(
            f"{file} is no .keras file. Save the model with `model.save('x.keras')`."
        )
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        text = str(error)
        if unsafe := re.search(r"Requested the deserialization of [^.]*", text):
            what = "a lambda" if "lambda" in unsafe[0] else "a layer of another kind"
            raise ValueError(
                f"{file} has {what} in it: code that would be run, and isn't. Put a "
                "registered layer in its place and save the model again; or, if you "
                "trust the file, load it in Python with `safe_mode=False`."
            ) from error
        if unknown := re.search(r"Could not locate \w+ '([^']+)'", text):
            raise ValueError(
                f"{file} needs {unknown[1]}, which is not of Keras and not of "
                "keras_lpd. The command can't know it: use `keras_lpd.LPDistiller` in "
                "Python, where it is imported."
            ) from error
        raise ValueError(f"{file} can't be loaded: {text}") from error


def input_shape(model: keras.Model) -> tuple[int | None, ...] | None:
    """The shape of one sample, where the model tells."""
    shape: Any = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape):
        return shape[1:]
    return None


def check_fits(
    file: str, model: keras.Model, data: Arrays, classifies: bool = True
) -> None:
    """Refuses a model of other images, and a classifier of fewer classes."""
    shape, given = input_shape(model), data.x_train.shape[1:]
    if shape is not None and (
        len(shape) != len(given)
        or any(n not in (None, m) for n, m in zip(shape, given))
    ):
        raise ValueError(
            f"{file} takes inputs of shape {shape}. Those of the data set are {given}: "
            "give another --dataset or, for other heights and widths, --image-size."
        )
    outputs: Any = getattr(model, "output_shape", None)
    units = outputs[-1] if isinstance(outputs, tuple) and len(outputs) == 2 else None
    classes = 1 + int(max(data.y_train.max(), data.y_test.max()))
    if classifies and isinstance(units, int) and max(units, 2) < classes:
        raise ValueError(
            f"{file} knows {units} classes, and the data set has {classes}."
        )
