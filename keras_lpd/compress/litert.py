"""From a student to a LiteRT file."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_lpd.arguments import as_integer
from keras_lpd.beside import written_beside
from keras_lpd.checks import check_model
from keras_lpd.compress.adapter import Adapter
from keras_lpd.compress.litert_file import LiteRTFile
from keras_lpd.compress.representative import take_evenly, take_inputs, take_samples
from keras_lpd.compress.signature import Signature, identifiers, is_tf_keras
from keras_lpd.quiet import quietly
from keras_lpd.students import is_being_compressed, model_of

KINDS = ("float16", "int8", "int16x8")
"""What a file's numbers may be, beside float32."""

_TFMOT = "tensorflow_model_optimization"
_LOOPS = {"While", "StatelessWhile"}


def to_litert(
    student: Any,
    path: str | os.PathLike[str],
    quantize: str | None = None,
    representative_data: Any = None,
    *,
    representative_samples: int = 500,
    float_io: bool = False,
) -> pathlib.Path:
    """Writes a student to a LiteRT file (`.tflite`), for phones and microcontrollers.

    The file takes one sample at a time, and nothing but LiteRT's own operations. It
    is written beside `path` and renamed: if anything fails, what was there stays.

    Args:
        student: A built Keras 3 model; an `LPDistiller`, whose student it is then; or
            what the `.strip()` of a compressing distiller gives, also the tf_keras
            model of quantization-aware training.
        path: The file, replaced if there is one.
        quantize: What the numbers become. `None` leaves them float32. `"float16"`
            stores the weights so. `"int8"` makes all of them integers, inputs and
            outputs too. `"int16x8"` has weights of int8, and int16 between the
            layers. A model of quantization-aware training knows `"int8"` only.
        representative_data: What `"int8"` and `"int16x8"` set the ranges of their
            numbers by: inputs as in training, without augmentation. Arrays,
            `(inputs, labels)`, or batches in a `tf.data.Dataset` or a
            `keras.utils.PyDataset`; labels are left out. Defaults to what the
            distiller was fitted on, where `student` is one. Quantization-aware training
            has set the ranges already; there, and for floats, it need not be given,
            and serves to find the shape of samples where the model doesn't tell it.
        representative_samples: How many of the samples are looked at, the first
            ones: what is sorted has to be shuffled before. Defaults to 500.
        float_io: Whether a file of integers takes and gives floats, which it turns
            into integers and back by itself. Defaults to `False`.

    Returns:
        The path.

    Raises:
        TypeError: If the student is no model, or the data no data set.
        ValueError: If the data does not fit or is too little; if the student has
            operations that LiteRT doesn't have.
        ImportError: If Keras does not run on TensorFlow.
        RuntimeError: If TensorFlow fails to convert the student for another reason.
        FileNotFoundError: If the folder of `path` is missing.
        IsADirectoryError: If `path` is a folder.

    Warns:
        UserWarning: If a file of integers has floats in it all the same, as with
            layers for which LiteRT has no integer operation.

    Example:

    >>> path = to_litert(student, "student.tflite", "int8", x_train)
    >>> path.stat().st_size < student.count_params() * 4
    True

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization
    """
    if quantize is not None and not (isinstance(quantize, str) and quantize in KINDS):
        raise ValueError(
            f"`quantize` must be None or one of {', '.join(KINDS)}. "
            f"Received: {quantize!r}"
        )
    most = as_integer("representative_samples", representative_samples, least=1)
    path = _target(path)
    model = _clean(student)
    aware = _is_quantization_aware(model)
    if aware:
        _check_aware(model, quantize)
    integers = quantize in ("int8", "int16x8")
    if integers and representative_data is None:
        representative_data = _training_data(student, most)
    if integers and not aware and representative_data is None:
        raise ValueError(
            f'quantize="{quantize}" sets the ranges of the numbers by samples. Give '
            "`representative_data=`: some hundred inputs of the training data, such as "
            "representative_data=x_train; or give the distiller in place of its "
            "student, after `fit`."
        )
    sample = None
    if representative_data is not None:
        sample = take_inputs(representative_data, 1)
    signature = Signature.of(model, sample)
    samples = None
    if integers and not aware:
        samples = take_samples(representative_data, signature, most)
    content = _convert(model, signature, quantize, samples, float_io)
    _write(path, content, whole=integers)
    return path


# The student.


def _clean(student: Any) -> Any:
    """The model to be converted."""
    if keras.config.backend() != "tensorflow":
        raise ImportError(
            "LiteRT files are made by TensorFlow; here Keras runs on "
            f"{keras.config.backend()!r}. Set the environment variable "
            "KERAS_BACKEND=tensorflow before importing keras."
        )
    if isinstance(student, Adapter) or is_being_compressed(student):
        raise ValueError(
            f"'{student.name}' is wrapped for training. Give what the compressing "
            "distiller's `.strip()` gives: to_litert(distiller.strip(), ...)."
        )
    student = model_of(student)
    if not is_tf_keras(student):
        check_model("student", student)
    elif any(_wrapped_for(layer, "sparsity", "clustering") for layer in student.layers):
        raise ValueError(
            f"'{student.name}' is wrapped for pruning or clustering. Strip it first."
        )
    return student


def _training_data(student: Any, most: int) -> Any:
    """Samples of what a distiller was fitted on, as far as that is known."""
    known = getattr(student, "_trained_on", None)
    return None if known is None else take_evenly(known(), most)


def _wrapped_for(layer: Any, *packages: str) -> bool:
    """Whether a layer is a wrapper of these parts of tfmot."""
    module = type(layer).__module__
    return any(f"{_TFMOT}.python.core.{package}" in module for package in packages)


def _is_quantization_aware(model: Any) -> bool:
    return is_tf_keras(model) and any(
        _wrapped_for(layer, "quantization") for layer in model.layers
    )


def _check_aware(model: Any, quantize: str | None) -> None:
    if quantize != "int8":
        raise ValueError(
            f"'{model.name}' comes from quantization-aware training, which is for int8 "
            f'alone. Expected: quantize="int8". Received: {quantize!r}. For another '
            "kind of file give the student from before that training."
        )
    ranges = [
        np.abs(variable.numpy())
        for variable in model.variables
        if re.search(r"_(min|max)(:\d+)?$", variable.name)
    ]
    if ranges and all(np.isin(one, (0.0, 6.0)).all() for one in ranges):
        raise ValueError(
            f"'{model.name}' comes from quantization-aware training, but it was not "
            "trained: the ranges of its numbers are what they start from. Train it, or "
            "run it on some batches with training=True."
        )


@contextlib.contextmanager
def _computing_in_float32(model: Any) -> Iterator[None]:
    """Lets a model of mixed precision compute in float32."""
    layers = [] if is_tf_keras(model) else model._flatten_layers()
    changed = [
        (layer, layer.dtype_policy)
        for layer in layers
        if layer.compute_dtype != layer.variable_dtype == "float32"
    ]
    try:
        for layer, _ in changed:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy


# The conversion.


def _convert(
    model: Any,
    signature: Signature,
    quantize: str | None,
    samples: dict[str, np.ndarray] | None,
    float_io: bool,
) -> bytes:
    """The content of the file."""
    import tensorflow as tf

    with quietly(), tempfile.TemporaryDirectory() as folder:
        with _computing_in_float32(model):
            module = _traced(model, signature)
        if samples is not None and _has_loops(module.serve):
            # The calibrator would crash, and the whole process with it.
            raise ValueError(
                f"Student '{model.name}' has a loop, which can't be quantised. Make "
                "its recurrent layers with `unroll=True`, or leave `quantize` out."
            )
        tf.saved_model.save(module, folder, signatures=module.serve)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        _set_up(converter, quantize, samples, float_io)
        try:
            return converter.convert()
        except Exception as error:
            raise _explained(error, model.name, quantize) from error


def _traced(model: Any, signature: Signature) -> Any:
    """The model's inference for one sample, and the variables it needs."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def serve(**inputs: Any) -> dict[str, Any]:
        outputs = model(signature.pack(inputs), training=False)
        if isinstance(outputs, dict):
            names, outputs = list(outputs), list(outputs.values())
        else:
            outputs = keras.tree.flatten(outputs)
            names = _output_names(model)
        if len(names) != len(outputs):
            names = [f"output_{i}" for i in range(len(outputs))]
        return dict(zip(identifiers(names), outputs))

    module = tf.Module()
    module.kept = [
        variable if isinstance(variable, tf.Variable) else variable.value
        for variable in model.variables
    ]
    module.serve = serve.get_concrete_function(
        **{
            name: tf.TensorSpec((1, *shape), signature.dtypes[name], name=name)
            for name, shape in signature.shapes.items()
        }
    )
    return module


def _output_names(model: Any) -> list[str]:
    """What a model calls its outputs: the layers that they come from."""
    if isinstance(model, keras.Sequential):
        return [model.layers[-1].name]
    return list(getattr(model, "output_names", ()))


def _has_loops(function: Any) -> bool:
    graph = function.graph.as_graph_def()
    inner = (node for one in graph.library.function for node in one.node_def)
    return any(node.op in _LOOPS for node in (*graph.node, *inner))


def _set_up(
    converter: Any,
    quantize: str | None,
    samples: dict[str, np.ndarray] | None,
    float_io: bool,
) -> None:
    import tensorflow as tf

    if quantize is None:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return
    ops, dtype = {
        "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
        "int16x8": (
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            tf.int16,
        ),
    }[quantize]
    if samples is not None:
        converter.representative_dataset = lambda: _one_by_one(samples)
        converter.target_spec.supported_ops = [ops]
    if not float_io:
        converter.inference_input_type = converter.inference_output_type = dtype


def _one_by_one(samples: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for row in range(len(next(iter(samples.values())))):
        yield {name: rows[row : row + 1] for name, rows in samples.items()}


def _explained(error: Exception, name: str, quantize: str | None) -> Exception:
    """What the converter refuses, in words."""
    text = str(error)
    wanting = _quoted(r"not yet supported for op: '(\w+)'", text)
    if wanting:
        return ValueError(
            f"Student '{name}' can't be made {quantize}: LiteRT can't quantise "
            f"{', '.join(wanting)} so. Take another `quantize`, or other layers."
        )
    wanting = sorted(
        {one.operator.name.removeprefix("tf.") for one in getattr(error, "errors", ())}
    )
    if any(wanting):
        places = _quoted(r'"([^"]+)@__inference', text)
        return ValueError(
            f"Student '{name}' can't be converted: LiteRT has no operation for "
            f"{', '.join(wanting)} (in {', '.join(places[:5])}). Make those layers of "
            "others."
        )
    return RuntimeError(
        f"Student '{name}' could not be converted ({type(error).__name__}): "
        f"{text[:500]}"
    )


def _quoted(pattern: str, text: str) -> list[str]:
    """What a pattern finds, each once."""
    return list(dict.fromkeys(re.findall(pattern, text)))


# The file.


def _target(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} for {path.name}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Expected: the name of a file.")
    return path


def _write(path: pathlib.Path, content: bytes, whole: bool) -> None:
    """Writes the file, if it can be read again.

    Args:
        path: Where.
        content: What.
        whole: Whether there should be integers only.
    """
    with written_beside(path) as part:
        part.write_bytes(content)
        try:
            floats = LiteRTFile(part).floats
        except ValueError as error:
            why = " ".join(str(error.__cause__ or error).split())
            raise ValueError(
                "The interpreter refuses what the converter made, so that nothing was "
                f"written to {path}: {why} Take another `quantize`."
            ) from error
    if whole and floats:
        warnings.warn(
            f"{path} is not of integers throughout: {len(floats)} of its tensors are "
            f"float32 ({_some(floats)}), since LiteRT has no integer operation there. "
            "A phone runs it; a processor for integers alone won't. Make those layers "
            "of others.",
            stacklevel=3,
        )


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = ", ..." if len(names) > most else ""
    return ", ".join(names[:most]) + rest
