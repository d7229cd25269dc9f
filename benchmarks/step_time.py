"""Times a distillation step against the steps and passes it is made of.

    python benchmarks/step_time.py --rounds 30 --json step_time.json

Four contenders, on random data:

    student   the training step of the student alone
    teacher   the teacher's forward pass, cut at its feature layer
    lpd       the training step of `LPDistiller`
    stock     that of `keras.distillation.Distiller` with the same loss

They take turns, in an order drawn anew each round, a few steps a turn, so that
whatever else slows the machine down slows all of them. A step is what `fit`
does for one batch: a compiled function draws the batch from an endless
in-memory `tf.data` pipeline and works on it; callbacks are left out. Ratios are
taken within each round. The median is given, and where 80 % of the rounds lie.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from timing import summary

from keras_lpd import LocalityPreserving, LPDistiller
from keras_lpd.features import FeatureExtractor, find_feature_layer
from keras_lpd.models import cnn_student, cnn_teacher

CLASSES = 10
AIMS = {"lpd / (student + teacher)": 1.05, "lpd / stock": 0.6}
"""The ratios, and what each should be at most."""

Step = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher and a student, made anew for every contender.

    Args:
        shape: Shape of an image.
        teacher: Makes the teacher.
        student: Makes the student.
        plain: Gives a model as the stock Distiller needs it, with the feature
            layer at its top level.
    """

    shape: tuple[int, int, int]
    teacher: Callable[[], keras.Model]
    student: Callable[[], keras.Model]
    plain: Callable[[keras.Model], keras.Model] = lambda model: model


def mobilenet(alpha: float) -> keras.Sequential:
    backbone = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=alpha, include_top=False, weights=None, pooling="avg"
    )
    return keras.Sequential([backbone, keras.layers.Dense(CLASSES)])


def unnested(model: keras.Sequential) -> keras.Model:
    backbone, head = model.layers
    return keras.Model(backbone.input, head(backbone.output))


PAIRS = {
    "cnn": Pair((28, 28, 1), cnn_teacher, cnn_student),
    "mobilenet": Pair(
        (96, 96, 3), lambda: mobilenet(1.0), lambda: mobilenet(0.35), unnested
    ),
}


def batches(pair: Pair, batch: int) -> Iterator[Any]:
    """An endless pipeline of eight random batches."""
    rng = np.random.default_rng(0)
    images = rng.random((8 * batch, *pair.shape), dtype="float32")
    labels = rng.integers(CLASSES, size=8 * batch)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.batch(batch, drop_remainder=True).cache().repeat()
    return iter(data.prefetch(tf.data.AUTOTUNE))


def training_step(model: keras.Model, data: Iterator[Any]) -> Step:
    """What `fit` runs for each batch."""
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.make_train_function()
    return lambda: model.train_function(data)


def teacher_pass(teacher: keras.Model, data: Iterator[Any]) -> Step:
    layer = find_feature_layer(teacher)
    extract = FeatureExtractor(teacher, [layer], outputs=False)

    @tf.function
    def step() -> dict[str, tf.Tensor]:
        images, _ = next(data)
        return extract(images, training=False)

    return step


def stock_distiller(teacher: keras.Model, student: keras.Model) -> keras.Model:
    loss = LocalityPreserving(
        teacher_layer_name=find_feature_layer(teacher),
        student_layer_name=find_feature_layer(student),
    )
    return keras.distillation.Distiller(teacher, student, [loss], [loss.default_weight])


def contenders(pair: Pair, batch: int) -> dict[str, Step]:
    stock = stock_distiller(pair.plain(pair.teacher()), pair.plain(pair.student()))
    # With the paper's loss alone, as the stock distiller beside it.
    distiller = LPDistiller(pair.teacher(), pair.student(), distillation_losses=None)
    return {
        "student": training_step(pair.student(), batches(pair, batch)),
        "teacher": teacher_pass(pair.teacher(), batches(pair, batch)),
        "lpd": training_step(distiller, batches(pair, batch)),
        "stock": training_step(stock, batches(pair, batch)),
    }


def milliseconds(step: Step, steps: int) -> float:
    """Time of a step, the mean over a turn of several."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    tf.test.experimental.sync_devices()
    return 1000 * (time.perf_counter() - start) / steps


def take_turns(
    steps: dict[str, Step], rounds: int, length: int
) -> dict[str, np.ndarray]:
    """Milliseconds a step, for each contender an array over the rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        milliseconds(step, length + 3)  # Traces, and warms up.
    draw = random.Random(0)
    for _ in range(rounds):
        for name in draw.sample(list(steps), len(steps)):
            times[name].append(milliseconds(steps[name], length))
    return {name: np.array(values) for name, values in times.items()}


def report(title: str, times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Prints the tables of one pair, and gives what is in them."""
    parts = times["student"] + times["teacher"]
    ratios = {
        "lpd / (student + teacher)": times["lpd"] / parts,
        "lpd / stock": times["lpd"] / times["stock"],
    }
    found = {
        "ms": {name: summary(values) for name, values in times.items()},
        "ratios": {name: summary(values) for name, values in ratios.items()},
        "rounds": {name: values.tolist() for name, values in times.items()},
    }
    print(f"\n### {title}\n\n| contender | ms a step | 10-90 % |\n|---|---|---|")
    for name, ms in found["ms"].items():
        print(f"| {name} | {ms['median']:.1f} | {ms['p10']:.1f}-{ms['p90']:.1f} |")
    print("\n| ratio | median | 10-90 % | aim | met |\n|---|---|---|---|---|")
    for name, ratio in found["ratios"].items():
        ratio["met"] = ratio["median"] <= AIMS[name]
        print(
            f"| {name} | {ratio['median']:.3f} | {ratio['p10']:.3f}-{ratio['p90']:.3f} "
            f"| at most {AIMS[name]} | {'yes' if ratio['met'] else '**no**'} |"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", choices=["all", *PAIRS], default="all")
    parser.add_argument("--rounds", type=int, default=30, help="default: 30")
    parser.add_argument("--steps", type=int, default=5, help="steps a turn; default: 5")
    parser.add_argument("--batch", type=int, default=128, help="default: 128")
    parser.add_argument("--json", type=pathlib.Path, help="file for the figures")
    options = parser.parse_args()

    found = {}
    for name in PAIRS if options.pair == "all" else [options.pair]:
        keras.utils.set_random_seed(0)
        steps = contenders(PAIRS[name], options.batch)
        times = take_turns(steps, options.rounds, options.steps)
        title = f"{name}, batch {options.batch}, {options.rounds} rounds"
        found[name] = report(title, times)
    if options.json:
        settings = {"batch": options.batch, "steps_a_turn": options.steps}
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        facts = {"settings": settings, "versions": versions, "pairs": found}
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
