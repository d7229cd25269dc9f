"""Several devices, made of the CPU, and the strategies over them.

To be imported before TensorFlow uses a device.
"""

import functools
import os

import tensorflow as tf
from tensorflow.python.framework import ops

if "TF_CONFIG" not in os.environ:  # That is a worker, with a strategy already.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 4,
    )


@functools.cache
def strategy(devices):
    """The one of a process: TensorFlow mixes up what two have to send."""
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])


def forget_custom_gradients():
    """TensorFlow keeps, for ever, each graph with a `tf.custom_gradient` in it."""
    kept = ops._gradient_registry._registry
    for name in [name for name in kept if name.startswith("CustomGradient-")]:
        del kept[name]
