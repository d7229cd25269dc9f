"""What neighbourhoods of the global batch cost, on more and more devices.

    python benchmarks/scale.py    # 1, 2 and 4 devices, made of this CPU

Measured: what a device receives in a training step, and the time of the step, with
`neighborhood="global"` and with `"replica"`. On paper: the same for 8 to 512 replicas
and features as on ImageNet, beside what summing up the gradients takes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

DEVICES = (1, 2, 4)
NEIGHBORHOODS = ("replica", "global")

REPLICAS = (8, 16, 32, 64, 128, 256, 512)
TEACHER, STUDENT = 2048, 1280
"""Widths of the pooled features of ResNet-50 and MobileNetV2."""
PARAMETERS = 3_538_984
"""Of MobileNetV2."""
MULTIPLICATIONS = 4.1e9 + 3 * 0.3e9
"""Of a sample: the teacher's forward pass, and the student's in both directions."""

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
add = parser.add_argument
add("--batch", type=int, default=32, help="samples of a device, where it is measured")
add("--steps", type=int, default=20, help="of a round")
add("--rounds", type=int, default=5, help="of which the median is given")
add("--samples", type=int, default=64, help="of a replica, on paper")
add("--link", type=float, default=25e9, help="bytes a second it receives, on paper")
add("--flops", type=float, default=50e12, help="it gets done a second, on paper")
add("--out", type=pathlib.Path, help="a file for the tables")
add("--devices", type=int, help=argparse.SUPPRESS)  # measured by a process of its own
options = parser.parse_args()


def gathered(size: float, replicas: int) -> float:
    """Bytes that a replica receives where each gives `size` to all others."""
    return size * (replicas - 1)


def summed(size: float, replicas: int) -> float:
    """The same where tensors of `size` are added up, in a ring."""
    return 2 * size * (replicas - 1) / replicas


# Measured


def measure(devices: int) -> dict[str, dict[str, float]]:
    """Bytes and seconds of a step, for each of `NEIGHBORHOODS`."""
    import numpy as np
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * devices,
    )
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    received = count_bytes(devices)
    x = np.random.default_rng(0).normal(size=(options.batch, 256)).astype("float32")
    y = np.arange(options.batch) % 10
    # The parts of the devices, of a known size, so that the bytes are known too.
    data = strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_tensors((x, y)).repeat()
    )
    trained = {name: distiller(strategy, name) for name in NEIGHBORHOODS}
    found: dict[str, dict[str, float]] = {name: {} for name in NEIGHBORHOODS}
    times: dict[str, list[float]] = {name: [] for name in NEIGHBORHOODS}
    for turn in range(1 + options.rounds):  # in turns: both see the same machine
        for name, one in trained.items():
            received.clear()
            start = time.perf_counter()
            one.fit(data, steps_per_epoch=options.steps, verbose=0)
            if turn == 0:  # Its graph was made, once for each device.
                found[name]["bytes"] = sum(received) / devices
            else:
                times[name].append((time.perf_counter() - start) / options.steps)
    for name in NEIGHBORHOODS:
        found[name]["seconds"] = statistics.median(times[name])
    return found


def distiller(strategy: Any, neighborhood: str) -> Any:
    import keras

    from keras_lpd import LPDistiller

    def network(width: int) -> keras.Model:
        dense = keras.layers.Dense(width, activation="relu", name="features")
        return keras.Sequential([keras.Input((256,)), dense, keras.layers.Dense(10)])

    with strategy.scope():
        keras.utils.set_random_seed(0)
        made = LPDistiller(
            network(TEACHER), network(STUDENT), neighborhood=neighborhood
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(keras.optimizers.SGD(0.01), loss)
    return made


def count_bytes(devices: int) -> list[float]:
    """A list to which all exchanges add what a device receives, as they are traced."""
    import tensorflow as tf

    received: list[float] = []
    context = tf.distribute.ReplicaContext

    def count(exchange: Callable, place: int, bytes_of: Callable) -> Callable:
        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            for tensor in tf.nest.flatten(args[place]):
                tensor = tf.convert_to_tensor(tensor)
                # The one size that is not known is that of the batch of all.
                shape = [size or devices * options.batch for size in tensor.shape]
                count = tf.TensorShape(shape).num_elements()
                received.append(bytes_of(count * tensor.dtype.size, devices))
            return exchange(self, *args, **kwargs)

        return counted

    context.all_gather = count(context.all_gather, 0, gathered)
    context.all_reduce = count(context.all_reduce, 1, summed)
    return received


def measured_table() -> Iterator[str]:
    yield "| devices | received, replica | global | a step, replica | global | ratio |"
    yield "|---|---|---|---|---|---|"
    for devices in DEVICES:
        command = [sys.executable, __file__, *sys.argv[1:], f"--devices={devices}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        own, whole = (found[name] for name in NEIGHBORHOODS)
        yield (
            f"| {devices} | {own['bytes'] / 1e6:.2f} MB | {whole['bytes'] / 1e6:.2f} "
            f"MB | {1e3 * own['seconds']:.1f} ms | {1e3 * whole['seconds']:.1f} ms | "
            f"{whole['seconds'] / own['seconds']:.2f} |"
        )


# On paper


def paper_table() -> Iterator[str]:
    step = 2 * MULTIPLICATIONS * options.samples / options.flops
    yield "| replicas | gradients | features | features' time, share of a step |"
    yield "|---|---|---|---|"
    for replicas in REPLICAS:
        features = features_bytes(replicas)
        yield (
            f"| {replicas} | {summed(4 * PARAMETERS, replicas) / 1e6:.1f} MB | "
            f"{features / 1e6:.1f} MB | {features / options.link / step:.1%} |"
        )
    yield ""
    most = most_replicas(step, 1.0, 4)
    yield f"Under 5 % of a step of {1e3 * step:.1f} ms: up to {most} replicas"
    yield f"in float32, {most_replicas(step, 1.0, 2)} in float16, and"
    yield f"{most_replicas(step, 1 / 16, 2)} in that and a sixteenth as wide."


def features_bytes(replicas: int, width: float = 1.0, size: int = 4) -> float:
    """Teacher's and student's are gathered, the student's gradients summed up."""
    own = width * size * options.samples
    there = gathered(own * (TEACHER + STUDENT), replicas)
    return there + summed(own * STUDENT * replicas, replicas)


def most_replicas(step: float, width: float, size: int) -> int:
    replicas = 1
    while features_bytes(replicas + 1, width, size) / options.link < 0.05 * step:
        replicas += 1
    return replicas


if options.devices:
    print(json.dumps(measure(options.devices)))
else:
    tables = [*measured_table(), "", *paper_table()]
    print("\n".join(tables))
    if options.out:
        options.out.write_text("\n".join(tables) + "\n")
