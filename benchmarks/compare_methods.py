"""Compares distillation methods on Fashion-MNIST, each with the same chance.

Four cells: a student of 15,000 parameters and FitNet 1, with 10,000 labelled images
and with all but the validation split. The weight of each method, and nothing else,
is tuned on the validation split: three values, in the first cell. What won is scored
on the test split at the last epoch, over other seeds, beside controls without which
no gain means anything.

    python benchmarks/compare_methods.py --out runs/compare

Every training leaves one JSON file, so that an interrupted comparison goes on where
it stopped. The teacher runs once over a number of augmented views of each image;
teacher and student see the same view, in another order for each seed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import functools
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from controls import FeatureSize, OwnNeighbors, RandomPairs

from keras_lpd import LocalityPreserving, LPDistiller, NeighborProbability, TeacherCache
from keras_lpd.datasets import augmentation, load_arrays
from keras_lpd.features import OUTPUTS, FeatureExtractor
from keras_lpd.losses import (
    AttentionTransfer,
    CorrelationCongruence,
    Hint,
    ProbabilisticTransfer,
    RelationalKnowledge,
    SimilarityPreserving,
)
from keras_lpd.models import cnn_student, cnn_teacher, fitnet
from keras_lpd.taught import join

BATCH = 128
TRAINED_IN = "mixed_bfloat16"
"""Twice as fast where a CPU has it. What is scored, and the teacher, is in float32."""
TUNING_SEEDS, TEST_SEEDS = range(2), range(100, 105)
NEIGHBORS = 10

# What is compared


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        losses: Makes the losses, each with its share of the weight.
        weights: The values to tune over.
    """

    losses: Callable[[Student], list]
    weights: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Student:
    """A student to be taught.

    Args:
        make: Makes the model, for images of some shape.
        attention: The layer whose attention is compared with the teacher's.
        rate: Adam's learning rate at the start of the cosine.
    """

    make: Callable[[tuple[int, ...]], keras.Model]
    attention: str
    rate: float


@dataclasses.dataclass(frozen=True)
class Cell:
    """A student and a number of labelled images.

    Args:
        student: Its name among `STUDENTS`.
        labelled: How many images have labels.
        epochs: How long it trains.
        views: How many augmented views there are of each image.
        seeds: The seeds of its test runs.
        which: `"all"` methods, `"focus"` (a few, and the best two peers), or `"best"`
            (cross-entropy and the best peer, control and method of ours).
    """

    student: str
    labelled: int
    epochs: int
    views: int
    seeds: tuple[int, ...] = tuple(TEST_SEEDS[:3])
    which: str = "all"

    @property
    def name(self) -> str:
        return f"{self.student}-{self.labelled}-{self.epochs}"


def hinton() -> keras.distillation.DistillationLoss:
    return keras.distillation.LogitsDistillation(4.0, keras.losses.KLDivergence())


METHODS: dict[str, Method] = {
    "CE": Method(lambda student: []),
    "KD": Method(lambda student: [(hinton(), 1.0)], (0.5, 2.0, 8.0)),
    "Hint": Method(lambda student: [(Hint(), 1.0)], (0.1, 1.0, 10.0)),
    "AT": Method(
        lambda student: [(AttentionTransfer("attention", student.attention), 1.0)],
        (10.0, 100.0, 1000.0),
    ),
    "SP": Method(lambda student: [(SimilarityPreserving(), 1.0)], (30, 300, 3000)),
    "RKD": Method(lambda student: [(RelationalKnowledge(), 1.0)], (0.03, 0.1, 0.3)),
    "PKT": Method(lambda student: [(ProbabilisticTransfer(), 1.0)], (1e3, 1e4, 1e5)),
    "CC": Method(lambda student: [(CorrelationCongruence(), 1.0)], (0.3, 3.0, 30.0)),
    "LP": Method(lambda student: [(LocalityPreserving(), 1.0)], (0.015, 0.05, 0.15)),
    "LP + KD": Method(
        lambda student: [(LocalityPreserving(), 0.05), (hinton(), 2.0)],
        (0.3, 1.0, 3.0),
    ),
    "NP": Method(lambda student: [(NeighborProbability(), 1.0)], (0.2, 0.6, 2.0)),
    "LP + NP": Method(
        lambda student: [(LocalityPreserving(), 0.05), (NeighborProbability(), 0.6)],
        (0.3, 1.0, 3.0),
    ),
    "control: random pairs": Method(
        lambda student: [(RandomPairs(), 1.0)], (0.05, 0.15, 0.5)
    ),
    "control: own neighbours": Method(
        lambda student: [(OwnNeighbors(), 1.0)], (0.015, 0.05, 0.15)
    ),
    "control: feature size": Method(
        lambda student: [(FeatureSize(), 1.0)], (0.01, 0.03, 0.1)
    ),
}
PEERS = ("AT", "SP", "RKD", "PKT", "CC")
OURS = ("LP", "LP + KD", "NP", "LP + NP")
FOCUS = ("CE", "KD", "Hint", *OURS)
"""Run in the cells of the larger student, with the best two of the peers."""

STUDENTS = {
    "small": Student(cnn_student, "conv_3", 3e-3),
    "fitnet1": Student(functools.partial(fitnet, 1), "maxout_9", 1e-3),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How large the comparison is.

    Args:
        dataset: What `load_arrays` is asked for.
        held_back: Size of the validation split, the last training images.
        teacher_epochs: How long the teacher trains.
        cells: The cells; the weights are tuned in the first.
        schedule: Lengths at which cross-entropy alone is looked at, in the first.
        tuning_seeds: Seeds of the runs that the weights are tuned with.
        most_weights: How many of each method's weights are tried.
    """

    dataset: str
    held_back: int
    teacher_epochs: int
    cells: tuple[Cell, ...]
    schedule: tuple[int, ...] = ()
    tuning_seeds: tuple[int, ...] = tuple(TUNING_SEEDS)
    most_weights: int = 3


WHOLE = Plan(
    "fashion_mnist",
    held_back=5000,
    teacher_epochs=12,
    cells=(
        Cell("small", 10_000, epochs=48, views=12, seeds=tuple(TEST_SEEDS)),
        Cell("small", 10_000, epochs=96, views=12, which="best"),
        Cell("small", 55_000, epochs=8, views=6),
        Cell("fitnet1", 10_000, epochs=12, views=12, which="focus"),
        Cell("fitnet1", 55_000, epochs=3, views=6, which="focus"),
    ),
    schedule=(24, 48, 96),
)
SMOKE = Plan(
    "digits",
    held_back=100,
    teacher_epochs=1,
    cells=(
        Cell("small", 384, epochs=1, views=2, seeds=(100, 101)),
        Cell("fitnet1", 384, epochs=1, views=2, seeds=(100,), which="focus"),
    ),
    tuning_seeds=(0,),
    most_weights=1,
)

# The data: images, and what the teacher makes of them


def check_settings(plan: Plan, folder: pathlib.Path) -> None:
    """Refuses a folder with results of other settings."""
    settings = {
        "held_back": plan.held_back,
        "teacher_epochs": plan.teacher_epochs,
        "views": {str(cell.labelled): cell.views for cell in plan.cells},
        "rates": {name: student.rate for name, student in STUDENTS.items()},
        "trained_in": TRAINED_IN,
        "batch": BATCH,
    }
    file = folder / "settings.json"
    if not file.exists():
        write(file, settings)
    before = json.loads(file.read_text())
    if settings != before:
        raise SystemExit(
            f"{folder} has results of other settings: {before}, not {settings}. "
            "Choose another folder with --out."
        )


def images_of(plan: Plan) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The splits: images as bytes, and labels."""
    data = load_arrays(plan.dataset)
    x_train, x_test = (
        np.round(255.0 * images).astype("uint8")
        for images in (data.x_train, data.x_test)
    )
    end = len(x_train) - plan.held_back
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


def prepare(plan: Plan, folder: pathlib.Path) -> None:
    """Trains the teacher, and runs it once over all that the students will see."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = images_of(plan)
    file = folder / "teacher.keras"
    if not file.exists():
        teacher = train_teacher(plan, splits, folder)
        teacher.save(folder / "part.keras")
        (folder / "part.keras").rename(file)
    teacher = keras.models.load_model(file)
    extract = FeatureExtractor(teacher, ["features", "conv_5"])

    def features(model, inputs, training):
        found = extract(inputs, training=training)
        # One channel that has the attention of all.
        attention = tf.reduce_mean(tf.square(found["conv_5"]), -1, keepdims=True)
        return {
            "features": found["features"],
            "attention": tf.sqrt(attention),
        }, found[OUTPUTS]

    augment = augmentation("fashion_mnist")
    for cell in plan.cells:
        kept = folder / f"views-{cell.labelled}"
        if kept.exists():
            continue
        x, y = (part[: cell.labelled] for part in splits["train"])
        samples = tf.data.Dataset.from_tensor_slices((x, y))
        samples = samples.map(lambda x, y: (scaled(x), y))
        cache = TeacherCache.build(
            teacher,
            samples,
            folder / f"cache-{cell.labelled}",
            layers=["features", "attention"],
            outputs=True,
            dtype="float32",
            views=cell.views,
            augment=augment,
            teacher_features=features,
        )
        part = folder / "part"
        part.mkdir(exist_ok=True)
        views = cache.attach(samples, augment=augment).batch(1000)
        images = [np.round(255 * x["inputs"]) for x, _ in views.as_numpy_iterator()]
        np.save(part / "images.npy", np.concatenate(images).astype("uint8"))
        np.save(part / "labels.npy", y)
        for layer in ("features", "attention", OUTPUTS):
            np.save(part / f"{layer or 'outputs'}.npy", cache[layer])
        part.rename(kept)
    if not (folder / "teacher_test.npy").exists():
        taught = predicted(extract, scaled(splits["test"][0]), "features")
        np.save(folder / "part.npy", taught)
        (folder / "part.npy").rename(folder / "teacher_test.npy")


def train_teacher(plan: Plan, splits, folder: pathlib.Path) -> keras.Model:
    keras.utils.set_random_seed(0)
    x, y = splits["train"]
    steps, augment = len(x) // BATCH, augmentation("fashion_mnist")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).cache()
    batches = batches.shuffle(len(x), seed=0).batch(BATCH, drop_remainder=True)
    batches = batches.enumerate().map(
        lambda i, batch: (scaled(augment(batch[0], (0, i))), batch[1])
    )
    trained = in_policy(TRAINED_IN, lambda: cnn_teacher(x.shape[1:]))
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps * plan.teacher_epochs)
    trained.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    for _ in range(plan.teacher_epochs):
        trained.fit(batches, verbose=2)
    teacher = cnn_teacher(x.shape[1:])
    teacher.set_weights(trained.get_weights())
    scores = {"parameters": teacher.count_params()}
    for split in ("validation", "test"):
        x, y = splits[split]
        scores[split] = accuracy(predicted(teacher, scaled(x)), y)
    write(folder / "teacher.json", scores)
    return teacher


def predicted(model, images: np.ndarray, key: str | None = None) -> np.ndarray:
    parts = []
    for start in range(0, len(images), 1000):
        found = model(images[start : start + 1000], training=False)
        parts.append(found if key is None else found[key])
    return np.concatenate(parts).astype("float32")


def accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == y))


class Lesson:
    """The images of a cell, in all views, with the teacher's features."""

    def __init__(self, folder: pathlib.Path, cell: Cell):
        views = folder / f"views-{cell.labelled}"
        self.cell = cell
        self.cache = TeacherCache.open(folder / f"cache-{cell.labelled}", verify=False)
        self.images, self.labels = (
            tf.constant(np.load(views / f"{name}.npy")) for name in ("images", "labels")
        )
        self.taught = {
            layer: tf.constant(np.load(views / f"{layer or 'outputs'}.npy"))
            for layer in ("features", "attention", OUTPUTS)
        }

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def batches(self, seed: int, epochs: int, with_teacher: bool) -> tf.data.Dataset:
        """All batches of a training. An epoch is one view of all images."""
        random = np.random.default_rng(seed)
        count, views = len(self.labels), random.permutation(self.cell.views)
        steps = count // BATCH
        rows = np.concatenate(
            [
                views[epoch % len(views)] * count
                + random.permutation(count)[: steps * BATCH]
                for epoch in range(epochs)
            ]
        ).reshape(-1, BATCH)

        def batch(rows):
            images = scaled(tf.gather(self.images, rows))
            labels = tf.gather(self.labels, rows % count)
            if not with_teacher:
                return images, labels
            taught = {
                layer: tf.gather(features, rows)
                for layer, features in self.taught.items()
            }
            return join(images, self.cache.mark, taught), labels

        return tf.data.Dataset.from_tensor_slices(rows).map(batch).prefetch(2)


# One training


@dataclasses.dataclass(frozen=True)
class Run:
    cell: Cell
    method: str
    weight: float | None
    seed: int

    @property
    def file(self) -> str:
        method = self.method.replace(" ", "_").replace(":", "")
        weight = "" if self.weight is None else f"-{self.weight:g}"
        return f"{self.cell.name}/{method}{weight}-{self.seed}.json"


def make(run: Run, lesson: Lesson, steps: int) -> tuple[keras.Model, keras.Model]:
    """What is fitted, and the student in it."""
    kind = STUDENTS[run.cell.student]
    keras.utils.set_random_seed(run.seed)
    student = in_policy(TRAINED_IN, lambda: kind.make(lesson.image_shape))
    losses = METHODS[run.method].losses(kind)
    fitted = student
    if losses:
        fitted = LPDistiller(
            lesson.cache,
            student,
            gamma=None,
            teacher_layer="features",
            distillation_losses=[loss for loss, _ in losses],
            distillation_loss_weights=[run.weight * share for _, share in losses],
        )
    fitted.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(kind.rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return fitted, student


def train(run: Run, lesson: Lesson, splits, teacher_test: np.ndarray | None) -> dict:
    """Trains one student; gives its scores."""
    start = time.time()
    keras.backend.clear_session()
    epochs = run.cell.epochs
    steps = len(lesson.labels) // BATCH
    fitted, student = make(run, lesson, steps * epochs)
    batches = lesson.batches(run.seed, epochs, with_teacher=fitted is not student)
    history = fitted.fit(batches, verbose=0).history
    scores = {
        "method": run.method,
        "weight": run.weight,
        "seed": run.seed,
        "cell": run.cell.name,
        "epochs": epochs,
        "parameters": student.count_params(),
        "auxiliary": 0 if fitted is student else fitted.auxiliary_parameters(),
        "loss": history["loss"][-1],
        "spread": history.get("feature_spread", [None])[-1],
    }
    scored = STUDENTS[run.cell.student].make(lesson.image_shape)
    scored.set_weights(student.get_weights())
    extract = FeatureExtractor(scored, ["features"])
    for split in ("validation", "test"):
        x, y = splits[split]
        scores[split] = accuracy(predicted(scored, scaled(x)), y)
    if teacher_test is not None:
        learned = predicted(extract, scaled(splits["test"][0]), "features")
        scores["kept"] = neighbors_kept(teacher_test, learned)
        scores["trustworthiness"] = trust(teacher_test[:2000], learned[:2000])
    return scores | {"seconds": time.time() - start}


def neighbors_kept(teacher: np.ndarray, student: np.ndarray) -> float:
    """The share of each sample's nearest in the teacher that are so in the student."""
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBORS, len(teacher) - 1)
    nearest = [
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features).kneighbors()[1]
        for features in (teacher, student)
    ]
    shared = [len(np.intersect1d(*pair)) for pair in zip(*nearest, strict=True)]
    return float(np.mean(shared)) / k


def trust(teacher: np.ndarray, student: np.ndarray) -> float:
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(teacher, student, n_neighbors=NEIGHBORS))


# Many of them

_worker: dict = {}


def start_worker(plan: Plan, folder: pathlib.Path) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    teacher_test = np.load(folder / "teacher_test.npy")
    _worker.update(
        folder=folder, splits=images_of(plan), lessons={}, teacher_test=teacher_test
    )


def work(run: Run) -> dict:
    lessons = _worker["lessons"]
    if run.cell not in lessons:
        lessons.clear()
        lessons[run.cell] = Lesson(_worker["folder"], run.cell)
    measured = run.seed in TEST_SEEDS
    teacher_test = _worker["teacher_test"] if measured else None
    return train(run, lessons[run.cell], _worker["splits"], teacher_test)


def carry_out(runs: list[Run], pool, folder: pathlib.Path, title: str) -> list[dict]:
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
    return [json.loads((folder / run.file).read_text()) for run in runs]


def write(file: pathlib.Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.rename(file)


def compare(plan: Plan, pool, folder: pathlib.Path) -> tuple[dict, dict[str, float]]:
    """Runs everything; gives the results by stage, and the chosen weights."""
    first = plan.cells[0]
    results: dict = {}
    lengths = [dataclasses.replace(first, epochs=epochs) for epochs in plan.schedule]
    runs = [
        Run(cell, "CE", None, seed) for cell in lengths for seed in plan.tuning_seeds
    ]
    results["schedule"] = carry_out(runs, pool, folder, "Length of the schedule")
    runs = [
        Run(first, name, weight, seed)
        for name, method in METHODS.items()
        for weight in method.weights[: plan.most_weights]
        for seed in plan.tuning_seeds
    ]
    results["tuning"] = carry_out(runs, pool, folder, "Tuning the weights")
    weights, scores = chosen(results["tuning"])
    for cell in plan.cells:
        runs = [
            Run(cell, name, weights.get(name), seed)
            for seed in cell.seeds
            for name in names_of(cell, plan, scores)
        ]
        results[cell.name] = carry_out(runs, pool, folder, f"Cell {cell.name}")
    return results, weights


def names_of(cell: Cell, plan: Plan, scores: dict[str, float]) -> list[str]:
    """The methods of a cell, by their accuracies on the validation split."""

    def best(names, count):
        return sorted(names, key=scores.get, reverse=True)[:count]

    controls = [name for name in METHODS if name.startswith("control")]
    if cell.which == "best":
        wanted = {"CE", *best(PEERS, 1), *best(OURS, 1), *best(controls, 1)}
    elif cell.which == "focus":
        wanted = {*FOCUS, *best(PEERS, 2)}
    else:
        # Its table of angles takes five times the time of all others.
        wanted = set(METHODS) - ({"RKD"} if cell is not plan.cells[0] else set())
    return [name for name in METHODS if name in wanted]


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


def key(run: dict) -> tuple[str, float | None]:
    return run["method"], run["weight"]


# What a step costs


def step_times(folder: pathlib.Path, weights, cell: Cell, names) -> dict:
    """Milliseconds of a step by method: the median over rounds that take turns."""
    lesson, steps, rounds = Lesson(folder, cell), 50, 7
    made = {}
    for name in names:
        run = Run(cell, name, weights.get(name), 0)
        fitted, student = make(run, lesson, 1000)
        batches = lesson.batches(0, 1, with_teacher=fitted is not student)
        made[name] = fitted, batches.take(steps).cache()
        fitted.fit(made[name][1], verbose=0)  # compiles, and fills the cache
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, (fitted, batches) in made.items():
            start = time.perf_counter()
            fitted.fit(batches, verbose=0)
            times[name].append((time.perf_counter() - start) / steps)
    return {name: 1e3 * float(np.median(taken)) for name, taken in times.items()}


def peak_memory(folder: pathlib.Path, cell: Cell, method: str, weight) -> None:
    """Prints the peak memory of this process over some steps, in bytes (on Linux)."""
    lesson = Lesson(folder, cell)
    fitted, student = make(Run(cell, method, weight, 0), lesson, 1000)
    batches = lesson.batches(0, 1, with_teacher=fitted is not student).take(20)
    process = pathlib.Path("/proc/self")
    (process / "clear_refs").write_text("5")  # forgets the peak while loading
    fitted.fit(batches, verbose=0)
    peak = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
    print(1024 * int(peak[1]))


def costs(plan: Plan, folder: pathlib.Path, results, weights, smoke: bool) -> dict:
    """Step time and peak memory of the methods that were run, by student."""
    found = {}
    for cell in {cell.student: cell for cell in reversed(plan.cells)}.values():
        file = folder / f"costs-{cell.student}.json"
        if not file.exists():
            print(f"Costs with student {cell.student}", flush=True)
            names = list(dict.fromkeys(run["method"] for run in results[cell.name]))
            if smoke:
                names = ["CE", "LP"]
            times = step_times(folder, weights, cell, names)
            memory = {}
            for name in names:
                command = [sys.executable, __file__, "--out", str(folder.parent)]
                command += ["--peak", cell.name, name, str(weights.get(name))]
                output = subprocess.run(
                    [*command, "--smoke"] if smoke else command,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout
                memory[name] = int(output.split()[-1])
            write(file, {"milliseconds": times, "bytes": memory})
        found[cell.student] = json.loads(file.read_text())
    return found


# What came out


def rows(results: list[dict], cost: dict) -> Iterator[dict]:
    """Of each method its means, and the paired differences to cross-entropy."""
    by_method: dict[str, dict[int, dict]] = {}
    for run in results:
        by_method.setdefault(run["method"], {})[run["seed"]] = run
    alone = by_method["CE"]
    for name, runs in by_method.items():
        scores = np.array([100 * run["test"] for run in runs.values()])
        gains = scores - [100 * alone[seed]["test"] for seed in runs]
        yield {
            "method": name,
            "weight": next(iter(runs.values()))["weight"],
            "test": scores.mean(),
            "deviation": scores.std(ddof=1) if len(scores) > 1 else float("nan"),
            "validation": 100 * np.mean([run["validation"] for run in runs.values()]),
            "gain": gains.mean(),
            "interval": half_interval(gains),
            "kept": 100 * np.mean([run["kept"] for run in runs.values()]),
            "trust": np.mean([run["trustworthiness"] for run in runs.values()]),
            "auxiliary": next(iter(runs.values()))["auxiliary"],
            "time": cost["milliseconds"].get(name, np.nan) / cost["milliseconds"]["CE"],
            "memory": (cost["bytes"].get(name, np.nan) - cost["bytes"]["CE"]) / 1e6,
        }


def half_interval(differences: np.ndarray) -> float:
    """Half the width of the 95 % interval of their mean, by Student's t."""
    from scipy.stats import t

    count = len(differences)
    if count < 2:
        return float("nan")
    return float(t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5)


def report(plan: Plan, folder: pathlib.Path, results, weights, cost) -> str:
    teacher = json.loads((folder / "teacher.json").read_text())
    lines = [
        f"{datetime.date.today()}, {os.cpu_count()} cores ({processor()}), TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}.",
        "",
        f"Teacher: {teacher['parameters']:,} parameters, "
        f"{100 * teacher['test']:.2f} % on the test split, "
        f"{100 * teacher['validation']:.2f} % on validation.",
        "",
    ]
    if results["schedule"]:
        lines += ["Cross-entropy alone, by the length of its schedule:", ""]
        lines += ["| epochs | validation accuracy |", "|---|---|"]
        for epochs in plan.schedule:
            found = [r for r in results["schedule"] if r["epochs"] == epochs]
            mean = 100 * np.mean([r["validation"] for r in found])
            lines.append(f"| {epochs} | {mean:.2f} |")
        lines.append("")
    lines += ["Weights tried, with the validation accuracy (in bold: chosen):", ""]
    lines += ["| method | | | |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        cells = []
        for weight in method.weights[: plan.most_weights]:
            found = [
                r["validation"] for r in results["tuning"] if key(r) == (name, weight)
            ]
            text = f"{weight:g}: {100 * np.mean(found):.2f}"
            cells.append(f"**{text}**" if weights[name] == weight else text)
        if cells:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for cell in plan.cells:
        parameters = results[cell.name][0]["parameters"]
        lines += [
            "",
            f"### {cell.student}, {parameters:,} parameters; {cell.labelled:,} "
            f"labelled images, {cell.epochs} epochs, {len(cell.seeds)} seeds",
            "",
            "| method | weight | test accuracy | difference to CE, 95 % interval | "
            "validation | 10-NN kept | trustworthiness | auxiliary parameters | "
            "step time / CE | peak memory - CE |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows(results[cell.name], cost[cell.student]):
            weight = "" if row["weight"] is None else f"{row['weight']:g}"
            gain = f"{row['gain']:+.2f} ± {row['interval']:.2f}" if weight else ""
            lines.append(
                f"| {row['method']} | {weight} | {row['test']:.2f} ± "
                f"{row['deviation']:.2f} | {gain} | {row['validation']:.2f} | "
                f"{row['kept']:.1f} % | {row['trust']:.4f} | {row['auxiliary']:,} | "
                f"{row['time']:.2f} | {row['memory']:+.0f} MB |"
            )
    return "\n".join(lines) + "\n"


def processor() -> str:
    """What the machine calls its processor, where it says so."""
    file = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", file.read_text() if file.exists() else "")
    return found[1] if found else "unknown"


def draw(plan: Plan, results, cost, file: pathlib.Path) -> None:
    """A panel a cell: the difference to cross-entropy with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(plan.cells), figsize=(4 * len(plan.cells), 4.5), sharey=True,
        layout="constrained",
    )  # fmt: skip
    names = [name for name in METHODS if name != "CE"]
    for axis, cell in zip(np.atleast_1d(axes), plan.cells):
        for row in rows(results[cell.name], cost[cell.student]):
            if row["method"] == "CE":
                continue
            color = "tab:gray" if "control" in row["method"] else "tab:blue"
            if row["method"] in OURS:
                color = "tab:orange"
            y = names.index(row["method"])
            interval = np.nan_to_num(row["interval"])
            axis.errorbar(row["gain"], y, xerr=interval, fmt="o", color=color)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(
            f"{cell.student}, {cell.labelled:,} labelled, {cell.epochs} epochs"
        )
        axis.set_xlabel("points of test accuracy above CE")
        axis.grid(axis="x", alpha=0.3)
    np.atleast_1d(axes)[0].set_yticks(range(len(names)), names)
    np.atleast_1d(axes)[0].invert_yaxis()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", default="runs/compare", help="folder of everything that is kept")
    add("--smoke", action="store_true", help="all of it, in two minutes")
    add("--jobs", type=int, default=2, help="trainings at a time, each on one core")
    names = [cell.name for cell in WHOLE.cells]
    add("--cells", nargs="+", choices=names, default=names, help="default: all")
    add("--peak", nargs=3, metavar=("CELL", "METHOD", "WEIGHT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = SMOKE if options.smoke else WHOLE
    folder = pathlib.Path(options.out, plan.dataset)
    if options.peak:
        name, method, weight = options.peak
        cell = next(cell for cell in plan.cells if cell.name == name)
        weight = None if weight == "None" else float(weight)
        return peak_memory(folder, cell, method, weight)
    check_settings(plan, folder)
    if not options.smoke:  # The weights are tuned in the first in any case.
        first, *others = plan.cells
        wanted = [cell for cell in others if cell.name in options.cells]
        plan = dataclasses.replace(plan, cells=(first, *wanted))
    prepare(plan, folder)
    pool = concurrent.futures.ProcessPoolExecutor(
        options.jobs,
        multiprocessing.get_context("spawn"),
        start_worker,
        (plan, folder),
    )
    with pool:
        results, weights = compare(plan, pool, folder)
    cost = costs(plan, folder, results, weights, options.smoke)
    text = report(plan, folder, results, weights, cost)
    (folder / "results.md").write_text(text)
    draw(plan, results, cost, folder / "results.png")
    print(text)


if __name__ == "__main__":
    main()
