"""What a model takes: time for a sample, and bytes in a file."""

from __future__ import annotations

import math
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_lpd.timing import times


def compiled_for(function: Callable[[Any], Any], sample: Any, rows: Any = 1) -> Any:
    """The function, compiled for inputs like the sample.

    Args:
        function: Takes what a model takes.
        sample: Tensors of one row.
        rows: How many rows there will be; `None` for any number.
    """
    specs = keras.tree.map_structure(
        lambda x: tf.TensorSpec((rows, *x.shape[1:]), x.dtype), sample
    )
    return tf.function(function, autograph=False).get_concrete_function(specs)


class Latency(NamedTuple):
    """How long a model takes for one sample.

    Args:
        milliseconds: The median.
        device: Where it ran: `"CPU"` or `"GPU"`.
    """

    milliseconds: float
    device: str


def latency(model: keras.Model, sample: Any, runs: int) -> Latency:
    """Times the model's compiled function on one sample, where the model lies.

    Args:
        model: A built model.
        sample: Tensors of one row, as the model takes them.
        runs: How many runs the median is of; fewer where they would take more than
            three seconds, at least one.
    """
    inference = compiled_for(lambda x: model(x, training=False), sample)

    def run() -> Any:
        outputs = keras.tree.flatten(inference(sample))
        return [tf.convert_to_tensor(one).numpy() for one in outputs]  # waits for it

    device = tf.DeviceSpec.from_string(keras.tree.flatten(inference(sample))[0].device)
    milliseconds = 1000 * statistics.median(times(run, runs))
    return Latency(milliseconds, device.device_type)


def file_bytes(model: keras.Model) -> tuple[int, str]:
    """The size of the model's `.keras` file without its optimizer.

    Keras writes the state of the optimizer of a compiled model along, and has no
    argument against that: so what is saved is loaded without, and saved again.

    Returns:
        A tuple: the bytes, and what they are where they are no such file's, or `""`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, saved = pathlib.Path(folder) / "model.keras", 0
        try:
            model.save(path)
            saved = path.stat().st_size
            # Our own file: there are no functions in it but the user's.
            plain = keras.models.load_model(path, compile=False, safe_mode=False)
            plain.save(path)
            return path.stat().st_size, ""
        except Exception as error:  # Models of one's own raise what they like.
            if saved and not model.compiled:
                return saved, ""  # There is no optimizer in it.
            why = f"{' '.join(str(error).split())[:100]} ..."
    can = "loaded" if saved else "saved"
    weights = sum(
        math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in model.weights
    )
    return weights, f"those of its weights alone, as it can't be {can}: {why}"
