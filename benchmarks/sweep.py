"""What sweeps over distillation methods share: many small trainings on one machine.

The images are in memory, in a number of augmented views that the teacher runs over
once. Students are trained in half precision, in processes of one core each, and
scored in float32. Every training leaves one JSON file, so that a sweep goes on where
it stopped.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import json
import multiprocessing
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.beside import write_json
from keras_lpd.datasets import augmentation, load_arrays
from keras_lpd.features import OUTPUTS
from keras_lpd.models import cnn_teacher
from keras_lpd.taught import join

BATCH = 128
TRAINED_IN = "mixed_bfloat16"
"""Twice as fast where a CPU has it. What is scored, and the teacher, is in float32."""

Split = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        losses: Makes the losses, each with its share of the weight.
        weights: The values to tune over.
        label: What tables call it, where its name, by which results are kept, may
            be mistaken.
    """

    losses: Callable[..., list]
    weights: tuple[float, ...] = ()
    label: str | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, in a cell of the comparison: anything with a name."""

    cell: Any
    method: str
    weight: float | None
    seed: int

    @property
    def file(self) -> str:
        method = self.method.replace(" ", "_").replace(":", "")
        weight = "" if self.weight is None else f"-{self.weight:g}"
        return f"{self.cell.name}/{method}{weight}-{self.seed}.json"


def hinton() -> keras.distillation.DistillationLoss:
    return keras.distillation.LogitsDistillation(4.0, keras.losses.KLDivergence())


def write(file: pathlib.Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)


def check_settings(settings: dict, folder: pathlib.Path) -> None:
    """Refuses a folder with results of other settings."""
    file = folder / "settings.json"
    if not file.exists():
        write(file, settings)
    before = json.loads(file.read_text())
    if settings != before:
        raise SystemExit(
            f"{folder} has results of other settings: {before}, not {settings}. "
            "Choose another folder with --out."
        )


# The data: images, and what a teacher makes of them


def images_of(dataset: str, held_back: int) -> dict[str, Split]:
    """The splits: images as bytes, and labels."""
    data = load_arrays(dataset)
    x_train, x_test = (
        np.round(255.0 * images).astype("uint8")
        for images in (data.x_train, data.x_test)
    )
    end = len(x_train) - held_back
    return {
        "train": (x_train[:end], data.y_train[:end]),
        "validation": (x_train[end:], data.y_train[end:]),
        "test": (x_test, data.y_test),
    }


def in_policy(policy: str, make: Callable[[], keras.Model]) -> keras.Model:
    """A model with a dtype policy."""
    keras.config.set_dtype_policy(policy)
    model = make()
    keras.config.set_dtype_policy("float32")
    return model


def scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255.0


def train_teacher(
    x: np.ndarray,
    y: np.ndarray,
    epochs: int,
    classes: int = 10,
    task: Callable[..., tuple] = lambda images, labels, seed: (images, labels),
    loss: Any = None,
    metric: Any = "accuracy",
) -> keras.Model:
    """A teacher of these images, or of what a task makes of batches of them.

    Without a loss of the task's own it is the cross-entropy.
    """
    keras.utils.set_random_seed(0)
    steps, augment = len(x) // BATCH, augmentation("fashion_mnist")

    def batch(i, images, labels):
        images, labels = task(augment(images, (0, i)), labels, (1, i))
        return scaled(images), labels

    batches = tf.data.Dataset.from_tensor_slices((x, y)).cache()
    batches = batches.shuffle(len(x), seed=0).batch(BATCH, drop_remainder=True)
    batches = batches.enumerate().map(lambda i, samples: batch(i, *samples))
    trained = in_policy(TRAINED_IN, lambda: cnn_teacher(x.shape[1:], classes))
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps * epochs)
    trained.compile(
        keras.optimizers.Adam(schedule),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[metric],
    )
    for _ in range(epochs):
        trained.fit(batches, verbose=2)
    teacher = cnn_teacher(x.shape[1:], classes)
    teacher.set_weights(trained.get_weights())
    return teacher


def save_whole(teacher: keras.Model, file: pathlib.Path) -> None:
    part = file.with_name("part.keras")
    teacher.save(part)
    part.rename(file)


def predicted(model, images: np.ndarray, key: str | None = None) -> np.ndarray:
    parts = []
    for start in range(0, len(images), 1000):
        found = model(images[start : start + 1000], training=False)
        parts.append(found if key is None else found[key])
    return np.concatenate(parts).astype("float32")


def accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == y))


def keep_views(
    folder: pathlib.Path,
    name: str | int,
    teacher: keras.Model,
    split: Split,
    views: int,
    layers: Sequence[str],
    teacher_features: Callable | None = None,
) -> None:
    """Runs the teacher once over views of the images; keeps both for a `Lesson`.

    Args:
        folder: Where.
        name: Names the lesson in there.
        teacher: The teacher.
        split: Images and labels.
        views: How many augmented views of each image.
        layers: The layers to keep, with `OUTPUTS` if its outputs are wanted.
        teacher_features: As in `TeacherCache.build`.
    """
    kept = folder / f"views-{name}"
    if kept.exists():
        return
    augment = augmentation("fashion_mnist")
    samples = tf.data.Dataset.from_tensor_slices(split)
    samples = samples.map(lambda x, y: (scaled(x), y))
    cache = TeacherCache.build(
        teacher,
        samples,
        folder / f"cache-{name}",
        layers=[layer for layer in layers if layer != OUTPUTS],
        outputs=OUTPUTS in layers,
        dtype="float32",
        views=views,
        augment=augment,
        teacher_features=teacher_features,
    )
    part = folder / "part"
    part.mkdir(exist_ok=True)
    seen = cache.attach(samples, augment=augment).batch(1000)
    images = [np.round(255 * x["inputs"]) for x, _ in seen.as_numpy_iterator()]
    np.save(part / "images.npy", np.concatenate(images).astype("uint8"))
    np.save(part / "labels.npy", split[1])
    for layer in layers:
        np.save(part / f"{layer or 'outputs'}.npy", cache[layer])
    part.rename(kept)


class Lesson:
    """Images in all views, with the teacher's features, as `keep_views` kept them.

    Row `i + v * len(labels)` is view `v` of image `i`.
    """

    def __init__(self, folder: pathlib.Path, name: str | int, layers: Sequence[str]):
        views = folder / f"views-{name}"
        self.cache = TeacherCache.open(folder / f"cache-{name}", verify=False)
        self.images, self.labels = (
            tf.constant(np.load(views / f"{name}.npy")) for name in ("images", "labels")
        )
        self.taught = {
            layer: tf.constant(np.load(views / f"{layer or 'outputs'}.npy"))
            for layer in layers
        }

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def gathered(
        self, rows: np.ndarray, labels_of: np.ndarray, with_teacher: bool
    ) -> tf.data.Dataset:
        """Batches of images by their rows, with the labels of these or other rows."""
        count = len(self.labels)

        def batch(rows, labels_of):
            images = scaled(tf.gather(self.images, rows))
            labels = tf.gather(self.labels, labels_of % count)
            if not with_teacher:
                return images, labels
            taught = {
                layer: tf.gather(features, rows)
                for layer, features in self.taught.items()
            }
            return join(images, self.cache.mark, taught), labels

        batches = tf.data.Dataset.from_tensor_slices((rows, labels_of))
        return batches.map(batch).prefetch(2)


# One training


def make_fitted(
    seed: int,
    make_student: Callable[[], keras.Model],
    make_losses: Callable[[], list],
    weight: float | None,
    cache: TeacherCache,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
) -> tuple[keras.Model, keras.Model]:
    """What is fitted, and the student in it: the student itself without losses."""
    keras.utils.set_random_seed(seed)
    student = in_policy(TRAINED_IN, make_student)
    losses = make_losses()
    fitted = student
    if losses:
        fitted = LPDistiller(
            cache,
            student,
            gamma=None,
            teacher_layer="features",
            distillation_losses=[loss for loss, _ in losses],
            distillation_loss_weights=[weight * share for _, share in losses],
        )
    fitted.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return fitted, student


def train(
    run: Run,
    make: Callable[[], tuple[keras.Model, keras.Model]],
    batches: Callable[[bool], tf.data.Dataset],
    make_student: Callable[[], keras.Model],
    splits: dict[str, Split],
    measure: Callable[[keras.Model], dict] = lambda student: {},
    **more: Any,
) -> dict:
    """Trains one student; gives what is written down of it.

    Args:
        run: Which training it is.
        make: Makes what is fitted, and the student in it, as `make_fitted` does.
        batches: Makes the batches, with the teacher's features or without.
        make_student: Makes the student alone, for a copy in float32 that is scored.
        splits: What it is scored on.
        measure: Gives further scores of that copy.
        **more: What else is written down.
    """
    start = time.time()
    keras.backend.clear_session()
    fitted, student = make()
    history = fitted.fit(batches(fitted is not student), verbose=0).history
    scored = make_student()
    scored.set_weights(student.get_weights())
    return {
        "method": run.method,
        "weight": run.weight,
        "seed": run.seed,
        "cell": run.cell.name,
        **more,
        "parameters": student.count_params(),
        "auxiliary": 0 if fitted is student else fitted.auxiliary_parameters(),
        "loss": history["loss"][-1],
        "spread": history.get("feature_spread", [None])[-1],
        **accuracies(scored, splits),
        **measure(scored),
        "seconds": time.time() - start,
    }


def accuracies(model: keras.Model, splits: dict[str, Split]) -> dict[str, float]:
    return {
        name: accuracy(predicted(model, scaled(splits[name][0])), splits[name][1])
        for name in ("validation", "test")
    }


# Many of them


def workers(jobs: int, start: Callable, *arguments: Any):
    """A pool of processes of one core each, which call `start` first."""
    return concurrent.futures.ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context("spawn"),
        _on_one_core,
        (start, *arguments),
    )


def _on_one_core(start: Callable, *arguments: Any) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    start(*arguments)


def carry_out(
    work: Callable[[Run], dict],
    runs: list[Run],
    pool: concurrent.futures.Executor,
    folder: pathlib.Path,
    title: str,
) -> list[dict]:
    """The results of the runs; those that have none yet are trained."""
    todo = [run for run in runs if not (folder / run.file).exists()]
    finished = len(runs) - len(todo)
    print(f"{title}: {len(runs)} trainings, {finished} of them done", flush=True)
    start = time.time()
    futures = {pool.submit(work, run): run for run in todo}
    for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
        run, scores = futures[future], future.result()
        write(folder / run.file, scores)
        left = (time.time() - start) / done * (len(todo) - done) / 60
        weight = "" if run.weight is None else f" {run.weight:g}"
        print(
            f"  {done}/{len(todo)} {run.method}{weight}, seed {run.seed}: validation "
            f"{100 * scores['validation']:.2f} %, {scores['seconds']:.0f} s; "
            f"{left:.0f} min left",
            flush=True,
        )
    return results_of(runs, folder)


def results_of(runs: Iterable[Run], folder: pathlib.Path) -> list[dict]:
    return [json.loads((folder / run.file).read_text()) for run in runs]


def key(run: dict) -> tuple[str, float | None]:
    return run["method"], run["weight"]


def chosen(tuning: list[dict]) -> tuple[dict[str, float], dict[str, float]]:
    """The best weight of each method on the validation split, and its accuracy."""
    weights, best = {}, {}
    for name in {run["method"] for run in tuning}:
        means = {
            weight: np.mean(
                [r["validation"] for r in tuning if key(r) == (name, weight)]
            )
            for weight in {run["weight"] for run in tuning if run["method"] == name}
        }
        weights[name] = max(means, key=means.get)
        best[name] = means[weights[name]]
    return weights, best


# What came out


def by_method(results: list[dict]) -> dict[str, dict[int, dict]]:
    """The results of each method, by seed."""
    found: dict[str, dict[int, dict]] = {}
    for run in results:
        found.setdefault(run["method"], {})[run["seed"]] = run
    return found


def summary(runs: dict[int, dict], alone: dict[int, dict]) -> dict:
    """A method's means over seeds, and the paired differences to cross-entropy."""
    first = next(iter(runs.values()))
    scores = np.array([100 * run["test"] for run in runs.values()])
    gains = np.array(
        [100 * runs[seed]["test"] - 100 * alone[seed]["test"] for seed in runs]
    )
    return {
        "method": first["method"],
        "weight": first["weight"],
        "test": scores.mean(),
        "deviation": scores.std(ddof=1) if len(scores) > 1 else float("nan"),
        "validation": 100 * np.mean([run["validation"] for run in runs.values()]),
        "gain": gains.mean(),
        "interval": half_interval(gains),
        "auxiliary": first["auxiliary"],
    }


def half_interval(differences: np.ndarray) -> float:
    """Half the width of the 95 % interval of their mean, by Student's t."""
    from scipy.stats import t

    count = len(differences)
    if count < 2:
        return float("nan")
    return float(t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5)


def first_columns(row: dict, label: str | None = None) -> str:
    """A row of a table up to the validation accuracy, from its `summary`."""
    weight = "" if row["weight"] is None else f"{row['weight']:g}"
    gain = f"{row['gain']:+.2f} ± {row['interval']:.2f}" if weight else ""
    return (
        f"| {label or row['method']} | {weight} | "
        f"{row['test']:.2f} ± {row['deviation']:.2f} | "
        f"{gain} | {row['validation']:.2f} |"
    )


FIRST_COLUMNS = (
    "| method | weight | test accuracy | difference to CE, 95 % interval | validation |"
)


def tuning_table(
    methods: dict[str, Method], most_weights: int, tuning: list[dict], weights: dict
) -> list[str]:
    """The weights that were tried, with the one in bold that was chosen."""
    lines = ["| method | | | |", "|---|---|---|---|"]
    for name, method in methods.items():
        cells = []
        for weight in method.weights[:most_weights]:
            found = [r["validation"] for r in tuning if key(r) == (name, weight)]
            text = f"{weight:g}: {100 * np.mean(found):.2f}"
            cells.append(f"**{text}**" if weights[name] == weight else text)
        if cells:
            lines.append(f"| {method.label or name} | {' | '.join(cells)} |")
    return lines


def where() -> str:
    """Day, machine and versions."""
    return (
        f"{datetime.date.today()}, {os.cpu_count()} cores ({processor()}), TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}."
    )


def processor() -> str:
    """What the machine calls its processor, where it says so."""
    file = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", file.read_text() if file.exists() else "")
    return found[1] if found else "unknown"
