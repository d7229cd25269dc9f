"""Tensor summaries for the Neighborhoods dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR

from keras_lpd.tensorboard.tags import PLUGIN, tag_of


def write(writer: Any, step: int, tensors: Mapping[str, Any]) -> None:
    """Writes the tensors of a step.

    Args:
        writer: A `tf.summary` file writer.
        step: The epoch, from 0.
        tensors: Arrays, text or bytes by their names. `None` is left out.
    """
    metadata = tf.compat.v1.SummaryMetadata(data_class=DATA_CLASS_TENSOR)
    metadata.plugin_data.plugin_name = PLUGIN
    with writer.as_default(), tf.summary.record_if(True):
        for name, tensor in tensors.items():
            if tensor is not None:
                tf.summary.write(tag_of(name, step), tensor, step, metadata)
    writer.flush()
