"""Times training with a teacher cache against the teacher itself, and against none.

    python benchmarks/teacher_cache.py --json teacher_cache.json

Three contenders train the same student on the same random images with `fit`,
one epoch each in turn, in an order drawn anew each time:

    plain    the student alone
    online   `LPDistiller`, which runs the teacher on each batch
    cached   `LPDistiller` on what a `TeacherCache` was attached to

with teachers of 0.8 and 20 million parameters. Ratios are taken within each
epoch; the first one has each contender's tracing in it and counts in the totals
alone. The total of the cached one has building and attaching in it.

Then the samples that `attach` lets through in a second, against the same
`tf.data` pipeline without it, on images in memory and on Fashion-MNIST as
tensorflow-datasets reads it from its files.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import random
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from timing import summary

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.models import cnn_student, cnn_teacher

BATCH = 128
EPOCH_AIM, TOTAL_AIM, READ_AIM = 1.10, 0.25, 1.10


def large_teacher() -> keras.Sequential:
    """The layers of `cnn_teacher`, five times as wide: 20 million parameters."""
    small = cnn_teacher()
    layers = []
    for layer in small.layers:
        config = layer.get_config()
        for width in ("filters", "units"):
            if width in config and layer is not small.layers[-1]:
                config[width] *= 5
        layers.append(type(layer).from_config(config))
    return keras.Sequential([keras.Input((28, 28, 1)), *layers], name="large_teacher")


def images(count: int) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    x = rng.random((count, 28, 28, 1), dtype="float32")
    return tf.data.Dataset.from_tensor_slices((x, rng.integers(10, size=count)))


def compiled(model: keras.Model) -> keras.Model:
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def distiller(teacher: keras.Model | TeacherCache) -> LPDistiller:
    """With the paper's loss alone."""
    return LPDistiller(teacher, cnn_student(), distillation_losses=None)


def batched(data: tf.data.Dataset, samples: int) -> tf.data.Dataset:
    return data.shuffle(samples).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def epochs(teacher: keras.Model, samples: int, count: int) -> dict[str, Any]:
    """Seconds of each epoch of each contender, and what the cached one needs before."""
    data = images(samples)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cache = TeacherCache.build(teacher, data, pathlib.Path(folder, "c"), verbose=0)
        built = time.perf_counter()
        attached = cache.attach(data)
        before = {"build": built - start, "attach": time.perf_counter() - built}
        contenders = {
            "plain": (compiled(cnn_student()), batched(data, samples)),
            "online": (
                compiled(distiller(teacher)),
                batched(data, samples),
            ),
            "cached": (
                compiled(distiller(cache)),
                batched(attached, samples),
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        draw = random.Random(0)
        for epoch in range(count):
            for name in draw.sample(list(contenders), len(contenders)):
                model, batches = contenders[name]
                start = time.perf_counter()
                model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, verbose=0)
                seconds[name].append(time.perf_counter() - start)
    return {**before, "epochs": seconds}


def report_epochs(name: str, teacher: keras.Model, samples: int, count: int) -> dict:
    found = epochs(teacher, samples, count)
    seconds = {name: np.array(times) for name, times in found["epochs"].items()}
    size = f"{teacher.count_params() / 1e6:.1f} million"
    print(f"\n### Teacher of {size} parameters, {samples:,} images\n")
    print("| | build, attach | " + " | ".join(str(1 + e) for e in range(count)), end="")
    print(" | total |\n" + "|---" * (count + 3) + "|")
    for who, times in seconds.items():
        before = found["build"] + found["attach"] if who == "cached" else 0.0
        found[f"{who} total"] = before + times.sum()
        shown = " | ".join(f"{one:.2f}" for one in times)
        print(f"| {who} | {before:.2f} | {shown} | {before + times.sum():.2f} |")
    if count > 1:
        found["epoch"] = summary((seconds["cached"] / seconds["plain"])[1:])
        found["epoch of online"] = summary((seconds["online"] / seconds["plain"])[1:])
    found["total"] = found["cached total"] / found["online total"]
    print("\n| ratio | median | 10-90 % | aim |\n|---|---|---|---|")
    for label, key, aim in (
        ("cached epoch / plain epoch", "epoch", EPOCH_AIM),
        ("online epoch / plain epoch", "epoch of online", None),
    ):
        if key in found:
            one = found[key]
            print(
                f"| {label} | {one['median']:.2f} | {one['p10']:.2f}-{one['p90']:.2f} "
                f"| {aim or '-'} |"
            )
    aim = TOTAL_AIM if name == "large" else "-"
    print(f"| cached total / online total | {found['total']:.3f} | - | {aim} |")
    return found


def samples_per_second(batches: tf.data.Dataset) -> float:
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch[1])
    return count / (time.perf_counter() - start)


def report_reading(title: str, data: tf.data.Dataset, rounds: int) -> dict:
    """Prints how fast samples come with and without their features."""
    with tempfile.TemporaryDirectory() as folder:
        cache = TeacherCache.build(
            cnn_teacher(), data, pathlib.Path(folder, "c"), verbose=0
        )
        pipelines = {
            "plain": batched(data, 10_000),
            "attached": batched(cache.attach(data), 10_000),
        }
        rates: dict[str, list[float]] = {name: [] for name in pipelines}
        draw = random.Random(0)
        for _ in range(rounds + 1):
            for name in draw.sample(list(pipelines), len(pipelines)):
                rates[name].append(samples_per_second(pipelines[name]))
    plain, attached = (np.array(rates[name][1:]) for name in pipelines)
    slower = summary(plain / attached)
    extra = summary(1e6 / attached - 1e6 / plain)
    print(
        f"| {title} | {np.median(plain):,.0f} | {np.median(attached):,.0f} "
        f"| {slower['median']:.2f} ({slower['p10']:.2f}-{slower['p90']:.2f}) "
        f"| {READ_AIM} | {extra['median']:.1f} |"
    )
    return {"slower": slower, "microseconds": extra, "rates": rates}


def fashion_mnist() -> tf.data.Dataset:
    """Fashion-MNIST from its files, decoded as it is read."""
    import tensorflow_datasets as tfds

    from keras_lpd.datasets import load_arrays

    load_arrays("fashion_mnist")  # Makes the files, where they are not there.
    data = tfds.load("fashion_mnist", split="train", as_supervised=True)
    return data.map(lambda x, y: (tf.cast(x, tf.float32) / 255.0, y), tf.data.AUTOTUNE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--samples", type=int, default=5120, help="images an epoch")
    add("--epochs", type=int, default=10)
    add("--rounds", type=int, default=10, help="times that all samples are read")
    add("--teachers", nargs="*", choices=["small", "large"], default=["small", "large"])
    add("--data", nargs="*", choices=["memory", "tfds"], default=["memory", "tfds"])
    add("--json", help="file for all figures")
    options = parser.parse_args()
    logging.getLogger("keras_lpd").setLevel(logging.WARNING)

    found: dict[str, Any] = {}
    for name in options.teachers:
        teacher = cnn_teacher() if name == "small" else large_teacher()
        found[name] = report_epochs(name, teacher, options.samples, options.epochs)
    if options.data:
        print("\n### Reading\n")
        print(
            "| images | plain, a second | attached | times slower (10-90 %) | aim |",
            end="",
        )
        print(" microseconds more a sample |\n|---|---|---|---|---|---|")
    for name in options.data:
        if name == "memory":
            title, data = "in memory", images(12 * options.samples)
        else:
            title, data = "Fashion-MNIST from files", fashion_mnist()
        found[name] = report_reading(title, data, options.rounds)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
