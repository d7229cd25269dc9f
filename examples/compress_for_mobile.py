"""From a distilled student to a file for a phone: which way is smallest, and how good?

    pip install ".[examples,compress]"
    python examples/compress_for_mobile.py                    # Fashion-MNIST
    python examples/compress_for_mobile.py --seeds 1          # sooner
    python examples/compress_for_mobile.py --dataset digits   # without a download

A student learns from its teacher. Then it is pruned, clustered, trained for 8 bits, or
quantised as it is, and written to LiteRT files. Where it is trained further, that is
done beside the teacher (LP), and for comparison with the labels alone (CE). What is
scored are the files.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.compress import (
    cluster,
    evaluate_litert,
    prune,
    quantize_aware,
    to_litert,
)
from keras_lpd.compress.evaluating import Check
from keras_lpd.compress.packages import load
from keras_lpd.datasets import load_arrays
from keras_lpd.models import cnn_student, cnn_teacher

BATCH = 64

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
add = parser.add_argument
add("--dataset", default="fashion_mnist", help="fashion_mnist or digits")
add("--images", type=int, default=20_000, help="how many the students learn from")
add("--epochs", type=int, default=20, help="of a student")
add("--further", type=int, default=5, help="epochs of what follows on that")
add("--seeds", type=int, default=3)
add("--out", type=pathlib.Path, default="compression.png", help="the plot")
options = parser.parse_args()

# Before anything is trained: what is missing is said here.
for package in ("tensorflow_model_optimization", "tf_keras", "ai_edge_litert"):
    load(package)
options.out.parent.mkdir(parents=True, exist_ok=True)
data = load_arrays(options.dataset)
x, y = data.x_train[: options.images], data.y_train[: options.images]
test = data.x_test, data.y_test
shape, classes = x.shape[1:], int(y.max()) + 1


def cross_entropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained(
    distiller: LPDistiller, batches: tf.data.Dataset, epochs: int, rate: float
) -> LPDistiller:
    """Trains it with a learning rate that falls to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(batches))
    distiller.compile(keras.optimizers.Adam(schedule), cross_entropy())
    distiller.fit(batches, epochs=epochs, verbose=0)
    return distiller


def files_of(seed: int, folder: pathlib.Path) -> Iterator[tuple[str, Check]]:
    """Trains, writes and scores all files of a seed."""
    keras.utils.set_random_seed(seed)
    samples = tf.data.Dataset.from_tensor_slices((x, y))
    batches = cache.attach(samples).shuffle(len(x), seed=seed).batch(BATCH)
    student = cnn_student(shape, classes)
    trained(LPDistiller(cache, student), batches, options.epochs, 3e-3)

    def distilled() -> LPDistiller:
        return LPDistiller(cache, student)

    def labels_alone() -> LPDistiller:
        return LPDistiller(cache, student, gamma=0.0, distillation_losses=None)

    def further(compressing: LPDistiller) -> LPDistiller:
        return trained(compressing, batches, options.further, 1e-3)

    def check(name: str, model, quantize: str | None = None) -> tuple[str, Check]:
        file = to_litert(model, folder / "student.tflite", quantize, x)
        return name, evaluate_litert(file, test)

    yield check("float32", student)
    yield check("float16", student, "float16")
    yield check("int8, after training", student, "int8")
    for beside, start in (("LP", distilled), ("CE", labels_alone)):
        aware = further(quantize_aware(start()))
        yield check(f"int8, trained for it ({beside})", aware.strip(), "int8")
        pruned = further(prune(start(), 0.75))
        yield check(f"pruned 75 % ({beside})", pruned.strip())
        if beside == "LP":
            both = further(quantize_aware(pruned))
            yield check("pruned 75 %, then int8 (LP)", both.strip(), "int8")
    clustered = further(cluster(distilled(), 16))
    yield check("16 values a kernel (LP)", clustered.strip())


def table(found: dict[str, list[Check]]) -> Iterator[str]:
    yield "| file | bytes | gzipped | accuracy | ms a sample, 1 / 2 threads |"
    yield "|---|---|---|---|---|"
    for name, checks in found.items():
        mean = mean_of(checks)
        spread = np.std([100 * one.accuracy for one in checks], ddof=len(checks) > 1)
        yield (
            f"| {name} | {mean('bytes'):,.0f} | {mean('gzip_bytes'):,.0f} | "
            f"{100 * mean('accuracy'):.2f} ± {spread:.2f} | "
            f"{mean('latency_ms'):.3f} / {mean('latency_ms_2'):.3f} |"
        )


def mean_of(checks: list[Check]) -> Callable[[str], float]:
    return lambda name: float(np.mean([getattr(check, name) for check in checks]))


def draw(found: dict[str, list[Check]], file: pathlib.Path) -> None:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axis = figure.subplots()
    markers = dict(zip((kind.partition(" (")[0] for kind in found), "*osDv^PX<>"))
    for name, checks in found.items():
        labels_alone = "(CE)" in name
        shares = [100 * check.accuracy for check in checks]
        axis.errorbar(
            mean_of(checks)("gzip_bytes") / 1000,
            np.mean(shares),
            np.std(shares, ddof=len(checks) > 1),
            fmt=markers[name.partition(" (")[0]],
            color="black" if name == "teacher" else None,
            markerfacecolor="white" if labels_alone else None,
            markersize=8,
            label=name,
        )
    axis.set_xscale("log")
    axis.set_xlabel("size of the file, gzipped, kB")
    axis.set_ylabel("test accuracy of the file, %")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    figure.savefig(file, dpi=110)


keras.utils.set_random_seed(0)
teacher = cnn_teacher(shape, classes)
teacher.compile("adam", cross_entropy(), metrics=["accuracy"])
teacher.fit(data.x_train, data.y_train, batch_size=128, epochs=5, verbose=2)

found: dict[str, list[Check]] = {}
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    file = to_litert(teacher, folder / "teacher.tflite")
    found["teacher"] = [evaluate_litert(file, test)]
    cache = TeacherCache.build(
        teacher, tf.data.Dataset.from_tensor_slices((x, y)), folder / "cache"
    )
    for seed in range(options.seeds):
        for kind, check in files_of(seed, folder):
            found.setdefault(kind, []).append(check)
            print(f"seed {seed}, {kind}: {check.accuracy:.2%}", flush=True)
print("\n".join(table(found)))
draw(found, options.out)
print(f"The plot: {options.out}")
