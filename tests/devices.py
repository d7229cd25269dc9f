"""Several devices, made of the CPU, and the strategies over them.

To be imported before TensorFlow uses a device.
"""

import functools
import os

import tensorflow as tf

if "TF_CONFIG" not in os.environ:  # That is a worker, with a strategy already.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 4,
    )


@functools.cache
def strategy(devices):
    """The one of a process: TensorFlow mixes up what two have to send."""
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
