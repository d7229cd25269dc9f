"""A LiteRT file, held against the model it was made of."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pathlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_lpd.arguments import as_integer
from keras_lpd.compress.litert_cost import measure
from keras_lpd.compress.litert_file import LiteRTFile, check_mark
from keras_lpd.compress.signature import Signature
from keras_lpd.features import own_inputs
from keras_lpd.outputs import accuracy, chosen_classes, known_classes, threshold_of
from keras_lpd.samples import Samples, at_most
from keras_lpd.students import model_of

AGREEMENT = 0.97
"""How often a quantised file should choose the class that the model chooses."""

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Check:
    """What became of a model in a LiteRT file; prints as a table.

    Attributes:
        path: The file.
        kind: What its numbers are, such as `"int8"`.
        input_dtype: What it takes.
        output_dtype: What it gives.
        samples: How many samples it was run on.
        accuracy: How many of them it classified right, as a fraction; `None` without
            labels.
        model_accuracy: The same for the Keras model; `None` without one.
        agreement: How often both chose the same class, as a fraction.
        max_error: The largest absolute difference between their outputs.
        mean_error: The mean absolute difference.
        bytes: Size of the file.
        gzip_bytes: Size of the file when packed by gzip, at level 9.
        latency_ms: Median milliseconds of a sample on one thread.
        latency_ms_2: The same on two threads.
        latency_runs: How many runs the medians are of, after ten that warm up.
        memory_bytes: By how much a process grew that opened the file and ran it
            once, on one thread, over what Python, NumPy and the interpreter's
            package took before: the peak, with what the interpreter needs by itself.
            `None` elsewhere than on Linux.
    """

    path: str
    kind: str
    input_dtype: str
    output_dtype: str
    samples: int
    accuracy: float | None
    model_accuracy: float | None
    agreement: float | None
    max_error: float | None
    mean_error: float | None
    bytes: int
    gzip_bytes: int
    latency_ms: float
    latency_ms_2: float
    latency_runs: int
    memory_bytes: int | None

    def to_json(self) -> str:
        """All of it as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def __str__(self) -> str:
        rows = [(name, text, note) for name, text, note in self._rows() if text]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        lines = [
            f"{name:<{widths[0]}}  {text:>{widths[1]}}  {note}".rstrip()
            for name, text, note in rows
        ]
        types = f"{self.kind} (takes {self.input_dtype}, gives {self.output_dtype})"
        return "\n".join([f"{self.path}: {types}", *lines])

    def _rows(self) -> list[tuple[str, str, str]]:
        of = f"of {self.samples:,} samples"
        if self.model_accuracy is not None:
            of += f"; of the model {_share(self.model_accuracy)}"
        runs = f"median of {self.latency_runs} runs"
        return [
            ("accuracy", _share(self.accuracy), of),
            ("agreement", _share(self.agreement), "same class as the model"),
            ("largest error", _number(self.max_error), "of the outputs"),
            ("mean error", _number(self.mean_error), ""),
            ("size", f"{self.bytes:,}", "bytes"),
            ("size, gzipped", f"{self.gzip_bytes:,}", "bytes"),
            ("latency, 1 thread", f"{self.latency_ms:.3f}", f"ms, {runs}"),
            ("latency, 2 threads", f"{self.latency_ms_2:.3f}", f"ms, {runs}"),
            (
                "peak memory",
                "" if self.memory_bytes is None else f"{self.memory_bytes:,}",
                "bytes, over the idle interpreter",
            ),
        ]


def evaluate_litert(
    path: str | os.PathLike[str],
    dataset: Any,
    model: Any = None,
    *,
    max_samples: int | None = None,
    runs: int = 100,
) -> Check:
    """Scores a LiteRT file, and holds it against the model it was made of.

    It is the file that is run, one sample at a time, by the interpreter that phones
    have too: that of ai-edge-litert, or else TensorFlow's older and slower one. What
    goes into and comes out of a file of integers is turned from and into floats by the
    file's own scales. Latency and memory are those of this machine, measured in a
    process of its own, with zeros for a sample.

    Args:
        path: The file, of `to_litert` or anyone else; it has one output.
        dataset: What to run it on: arrays `(x, y)`, or batches in a
            `tf.data.Dataset` or a `keras.utils.PyDataset`. Labels are classes, or
            one-hot rows of them; without such there is no accuracy. It is held in
            memory.
        model: The model to hold it against, of Keras 3 or tf_keras, or an
            `LPDistiller`, whose student it is then. With `None` there is no
            agreement and no error.
        max_samples: How many samples are used, the first ones. Defaults to `None`:
            all.
        runs: How many runs the medians of the latency are taken of; fewer where they
            would take more than three seconds. Defaults to 100.

    Returns:
        A `Check`, to be printed or asked.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If the data set is of another kind.
        ValueError: If it is no LiteRT file, a broken one, or does not fit the data or
            the model.

    Warns:
        UserWarning: If a quantised file and the model agree on fewer than 0.97 of
            the samples.

    Example:

    >>> from keras_lpd.compress import to_litert
    >>> path = to_litert(student, "student.tflite")
    >>> check = evaluate_litert(path, (x_train, y_train), student)
    >>> check.agreement, check.max_error < 1e-5
    (1.0, True)
    """
    runs = as_integer("runs", runs, least=1)
    most = at_most(max_samples, dataset)
    model = model_of(model)
    check_mark(pathlib.Path(path))
    cost = measure(path, runs)  # A file that crashes does so over there.
    file = LiteRTFile(path)
    inputs, labels, _ = Samples.take(dataset, most)
    outputs = file.predict(_as_the_file_takes(inputs, model))
    threshold = threshold_of(model, outputs)
    classes = chosen_classes(outputs, threshold)

    def right(classes: np.ndarray | None) -> float | None:
        if classes is None or labels is None:
            return None
        return accuracy(classes, known_classes(outputs), labels)

    file_accuracy = right(classes)
    model_accuracy = agreement = max_error = mean_error = None
    if model is not None:
        expected = _run(model, inputs)
        errors = _errors(outputs, expected, path, model)
        max_error, mean_error = float(errors.max()), float(errors.mean())
        chosen = chosen_classes(expected, threshold)
        model_accuracy = right(chosen)
        if classes is not None and chosen is not None:
            agreement = float(np.mean(classes == chosen))
    content = pathlib.Path(path).read_bytes()
    check = Check(
        path=os.fspath(path),
        kind=file.kind,
        input_dtype=", ".join(file.input_dtypes.values()),
        output_dtype=file.output_dtype,
        samples=len(outputs),
        accuracy=file_accuracy,
        model_accuracy=model_accuracy,
        agreement=agreement,
        max_error=max_error,
        mean_error=mean_error,
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, compresslevel=9, mtime=0)),
        latency_ms=cost.latencies[1],
        latency_ms_2=cost.latencies[2],
        latency_runs=cost.runs,
        memory_bytes=cost.memory,
    )
    if file.quantized and agreement is not None and agreement < AGREEMENT:
        warnings.warn(
            f"{path} chooses the class that '{model.name}' chooses for {agreement:.4f} "
            f"of {len(outputs):,} samples only. Expected: at least {AGREEMENT}. Give "
            "`to_litert` representative data that is like this data, quantise while "
            "distilling (`quantize_aware`), or hold the file against the model that "
            "it was made of.",
            stacklevel=2,
        )
    return check


def _as_the_file_takes(inputs: Any, model: Any) -> Any:
    """Inputs by the names that they have in the file, as far as the model tells."""
    if model is None or not keras.tree.is_nested(inputs):
        return inputs
    first = keras.tree.map_structure(lambda rows: rows[:1], inputs)
    return Signature.of(model, first).by_name(inputs)


def _run(model: Any, inputs: Any) -> np.ndarray:
    """What the model makes of the inputs."""
    inputs = own_inputs(model, inputs)
    found = []
    for start in range(0, len(keras.tree.flatten(inputs)[0]), _BATCH):
        end = start + _BATCH
        batch = keras.tree.map_structure(lambda rows: rows[start:end], inputs)  # noqa: B023
        found.append(keras.tree.flatten(model(batch, training=False)))
    if len(found[0]) != 1:
        raise ValueError(
            f"'{model.name}' has {len(found[0])} outputs. Expected: one, as the file."
        )
    return np.concatenate([np.asarray(one, np.float32) for (one,) in found])


def _errors(outputs: np.ndarray, expected: np.ndarray, path: Any, model: Any) -> Any:
    if outputs.shape != expected.shape:
        raise ValueError(
            f"{path} is not made of '{model.name}': it gives outputs of shape "
            f"{outputs.shape[1:]}, the model {expected.shape[1:]}."
        )
    return np.abs(outputs - expected)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
