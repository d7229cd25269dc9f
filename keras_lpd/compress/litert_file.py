"""A LiteRT file, run sample by sample."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from keras_lpd.compress.litert_cost import broken, open_interpreter
from keras_lpd.compress.signature import by_name
from keras_lpd.quiet import quietly

_MARK = slice(4, 8)


class LiteRTFile:
    """A LiteRT file in its interpreter.

    Samples are run one by one, as a phone does: larger batches turned out to be no
    faster, and most files don't take any.

    Args:
        path: The file.

    Attributes:
        kind: What its numbers are: `"float32"`, `"float16"`, `"int8"` or
            `"int16x8"`; with `" and float32"` where some are floats still.
        floats: Names of the tensors inside that are float32.
        input_dtypes: The dtypes of its inputs, by their names.
        output_dtype: The dtype of its output.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no LiteRT file, or a broken one. (TensorFlow's older
            interpreter ends the process at one that was cut off; `measure` has a
            process of its own for that.)

    Example:

    >>> from keras_lpd.compress import to_litert
    >>> file = LiteRTFile(to_litert(student, "student.tflite", "int8", x_train))
    >>> file.kind, file.output_dtype
    ('int8', 'int8')
    >>> file.predict(x_train).shape
    (64, 10)
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        check_mark(self.path)
        try:
            with quietly():
                self._interpreter = open_interpreter(os.fspath(path))
        except (ValueError, RuntimeError) as error:
            raise broken(path, " ".join(str(error).split())) from error
        self._inputs = _named_inputs(self._interpreter)
        self._outputs = self._interpreter.get_output_details()
        tensors = self._interpreter.get_tensor_details()
        outer = {one["index"] for one in (*self._inputs.values(), *self._outputs)}
        inner = [one for one in tensors if one["index"] not in outer]
        dtypes = {np.dtype(one["dtype"]).name for one in inner}
        self.floats = [
            one["name"].split(";")[0]
            for one in inner
            if np.dtype(one["dtype"]).name == "float32"
        ]
        self.kind = _kind(dtypes)
        self.input_dtypes = {
            name: np.dtype(one["dtype"]).name for name, one in self._inputs.items()
        }
        self.output_dtype = np.dtype(self._outputs[0]["dtype"]).name

    @property
    def quantized(self) -> bool:
        """Whether there are integers where there were floats."""
        return self.kind.startswith("int")

    def predict(self, inputs: Any) -> np.ndarray:
        """The outputs as floats, for inputs as the model took them.

        Args:
            inputs: An array, or for several inputs a dict by their names.

        Raises:
            ValueError: If the inputs don't fit, or there are several outputs.
        """
        if len(self._outputs) != 1:
            raise ValueError(
                f"{self.path} has {len(self._outputs)} outputs. Expected: one, "
                "such as the logits. Write a file of the model up to that output."
            )
        if len(self._inputs) > 1 and not isinstance(inputs, dict):
            raise ValueError(
                f"{self.path} has several inputs, in an order of its own. Expected: a "
                f"dict by their names, of {', '.join(self._inputs)}."
            )
        inputs = by_name(list(self._inputs), inputs)
        given = [
            (self._inputs[name]["index"], self._taken(name, rows))
            for name, rows in inputs.items()
        ]
        output = self._outputs[0]
        found = []
        for row in range(len(given[0][1])):
            for index, rows in given:
                self._interpreter.set_tensor(index, rows[row : row + 1])
            self._interpreter.invoke()
            found.append(self._interpreter.get_tensor(output["index"]))
        return _as_floats(np.concatenate(found), output)

    def _taken(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows as an input takes them."""
        details = self._inputs[name]
        shape = tuple(details["shape"].tolist())
        if (1, *rows.shape[1:]) != shape:
            raise ValueError(
                f"{self.path} takes {shape} for input '{name}', and samples are run "
                f"one at a time. Received: samples of {rows.shape[1:]}."
            )
        dtype = np.dtype(details["dtype"])
        scale, zero_point = details["quantization"]
        if not scale or dtype.kind == "f":
            return rows.astype(dtype, copy=False)
        numbers = np.round(rows.astype(np.float32) / np.float32(scale)) + zero_point
        limits = np.iinfo(dtype)
        return np.clip(numbers, limits.min, limits.max).astype(dtype)


def _as_floats(rows: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if not scale or rows.dtype.kind == "f":
        return rows.astype(np.float32)
    return (rows.astype(np.float32) - zero_point) * np.float32(scale)


def check_mark(path: pathlib.Path) -> None:
    """Refuses what is no LiteRT file at first sight."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    with path.open("rb") as file:
        if file.read(_MARK.stop)[_MARK] != b"TFL3":
            raise ValueError(
                f"{path} is no LiteRT file. Expected: what `to_litert` writes, or "
                "another `.tflite` file."
            )


def _named_inputs(interpreter: Any) -> dict[str, dict[str, Any]]:
    """What is known of each input, by the name it has in the model."""
    if len(interpreter.get_signature_list()) == 1:
        return interpreter.get_signature_runner().get_input_details()
    return {one["name"]: one for one in interpreter.get_input_details()}


def _kind(dtypes: set[str]) -> str:
    floats = " and float32" if "float32" in dtypes else ""
    if "int16" in dtypes:
        return f"int16x8{floats}"
    if "int8" in dtypes:
        return f"int8{floats}"
    return "float16" if "float16" in dtypes else "float32"
