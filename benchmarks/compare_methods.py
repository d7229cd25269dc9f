"""Compares distillation methods on Fashion-MNIST, each with the same chance.

Five cells: a student of 15,000 parameters and FitNet 1, with 10,000 labelled images
and with all but the validation split; and the small one trained for twice as long, with
the best method of each kind. The weight of each method, and nothing else,
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
import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import sweep
import tensorflow as tf
import timing
from controls import FeatureSize, OwnNeighbors, RandomPairs
from sweep import (
    BATCH,
    TRAINED_IN,
    Method,
    Run,
    by_method,
    chosen,
    hinton,
    predicted,
    scaled,
    write,
)

from keras_lpd import LocalityPreserving, NeighborProbability
from keras_lpd.features import OUTPUTS, FeatureExtractor
from keras_lpd.losses import (
    AttentionTransfer,
    CorrelationCongruence,
    Hint,
    ProbabilisticTransfer,
    RelationalKnowledge,
    SimilarityPreserving,
)
from keras_lpd.metrics import neighbor_overlap, trustworthiness
from keras_lpd.models import cnn_student, fitnet

TUNING_SEEDS, TEST_SEEDS = range(2), range(100, 105)
NEIGHBORS = 10
LAYERS = ("features", "attention", OUTPUTS)

# What is compared


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
        "LP 0.05 + NP 0.6",  # the LP + NP of few_labels.py is that of the default
    ),
    "LP at 0.005": Method(lambda student: [(LocalityPreserving(), 0.005)], (1.0,)),
    "default: LP + NP": Method(
        lambda student: [(LocalityPreserving(), 0.005), (NeighborProbability(), 0.6)],
        (1.0,),
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
DEFAULTS = ("LP at 0.005", "default: LP + NP")
"""Of `LPDistiller`, without and with neighbour probability; see `VARIANTS`."""

FOCUS = ("CE", "KD", "Hint", *OURS, *DEFAULTS)
"""Run in the cells of the larger student, with the best two of the peers."""


def variant(weight: float, normalize: str | None, probability: float) -> Method:
    """Both losses of ours, with these weights."""
    pairs = [
        (LocalityPreserving(normalize=normalize), weight),
        (NeighborProbability(), probability),
    ]
    return Method(lambda student: [pair for pair in pairs if pair[1]], (1.0,))


VARIANTS = {
    f"LP {weight:g}{' ' + normalize if normalize else ''}, NP {probability:g}": variant(
        weight, normalize, probability
    )
    for weight, normalize, probability in (
        (0.005, None, 0), (0.015, None, 0), (0.05, None, 0),
        (0, None, 2), (0.005, None, 2), (0.015, None, 2), (0.05, None, 2),
        (0.1, "spread", 2), (0.3, "spread", 2),
        (0.005, None, 0.6),
    )
}  # fmt: skip
"""What the defaults were chosen from, by the validation split and both students."""

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


def settings_of(plan: Plan) -> dict:
    """What results in one folder have in common."""
    return {
        "held_back": plan.held_back,
        "teacher_epochs": plan.teacher_epochs,
        "views": {str(cell.labelled): cell.views for cell in plan.cells},
        "rates": {name: student.rate for name, student in STUDENTS.items()},
        "trained_in": TRAINED_IN,
        "batch": BATCH,
    }


def prepare(plan: Plan, folder: pathlib.Path) -> None:
    """Trains the teacher, and runs it once over all that the students will see."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = sweep.images_of(plan.dataset, plan.held_back)
    file = folder / "teacher.keras"
    if not file.exists():
        teacher = train_teacher(plan, splits, folder)
        sweep.save_whole(teacher, file)
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

    for cell in plan.cells:
        split = tuple(part[: cell.labelled] for part in splits["train"])
        sweep.keep_views(
            folder, cell.labelled, teacher, split, cell.views, LAYERS, features
        )
    if not (folder / "teacher_test.npy").exists():
        taught = predicted(extract, scaled(splits["test"][0]), "features")
        np.save(folder / "part.npy", taught)
        (folder / "part.npy").rename(folder / "teacher_test.npy")


def train_teacher(plan: Plan, splits, folder: pathlib.Path) -> keras.Model:
    teacher = sweep.train_teacher(*splits["train"], plan.teacher_epochs)
    scores = {"parameters": teacher.count_params()}
    write(folder / "teacher.json", scores | sweep.accuracies(teacher, splits))
    return teacher


class Lesson(sweep.Lesson):
    """The images of a cell, in all views, with the teacher's features."""

    def __init__(self, folder: pathlib.Path, cell: Cell):
        super().__init__(folder, cell.labelled, LAYERS)
        self.cell = cell

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
        return self.gathered(rows, rows, with_teacher)


# One training


def make(run: Run, lesson: Lesson, steps: int) -> tuple[keras.Model, keras.Model]:
    """What is fitted, and the student in it."""
    kind = STUDENTS[run.cell.student]
    return sweep.make_fitted(
        run.seed,
        lambda: kind.make(lesson.image_shape),
        lambda: (METHODS | VARIANTS)[run.method].losses(kind),
        run.weight,
        lesson.cache,
        keras.optimizers.schedules.CosineDecay(kind.rate, steps),
    )


def train(run: Run, lesson: Lesson, splits, teacher_test: np.ndarray | None) -> dict:
    """Trains one student; gives its scores."""
    epochs = run.cell.epochs
    steps = epochs * (len(lesson.labels) // BATCH)

    def neighbors(student: keras.Model) -> dict[str, float]:
        if teacher_test is None:
            return {}
        extract = FeatureExtractor(student, ["features"])
        learned = predicted(extract, scaled(splits["test"][0]), "features")
        few = slice(2000)
        return {
            "kept": neighbor_overlap(teacher_test, learned, NEIGHBORS),
            "trustworthiness": trustworthiness(
                teacher_test[few], learned[few], NEIGHBORS
            ),
        }

    return sweep.train(
        run,
        lambda: make(run, lesson, steps),
        lambda with_teacher: lesson.batches(run.seed, epochs, with_teacher),
        lambda: STUDENTS[run.cell.student].make(lesson.image_shape),
        splits,
        neighbors,
        epochs=epochs,
    )


# Many of them

_worker: dict = {}


def start_worker(plan: Plan, folder: pathlib.Path) -> None:
    teacher_test = np.load(folder / "teacher_test.npy")
    splits = sweep.images_of(plan.dataset, plan.held_back)
    _worker.update(folder=folder, splits=splits, lessons={}, teacher_test=teacher_test)


def work(run: Run) -> dict:
    lessons = _worker["lessons"]
    if run.cell not in lessons:
        lessons.clear()
        lessons[run.cell] = Lesson(_worker["folder"], run.cell)
    measured = run.seed in TEST_SEEDS
    teacher_test = _worker["teacher_test"] if measured else None
    return train(run, lessons[run.cell], _worker["splits"], teacher_test)


def carry_out(runs: list[Run], pool, folder: pathlib.Path, title: str) -> list[dict]:
    return sweep.carry_out(work, runs, pool, folder, title)


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


def compare_variants(pool, folder: pathlib.Path) -> str:
    """Tries `VARIANTS` on both students; gives a table of validation accuracies."""
    cells = [cell for cell in WHOLE.cells if cell.labelled == 10_000]
    small, fitnet1 = (
        next(cell for cell in cells if cell.student == name) for name in STUDENTS
    )
    runs = [
        Run(cell, name, None if name == "CE" else 1.0, seed)
        for cell, seeds in ((small, TUNING_SEEDS), (fitnet1, TUNING_SEEDS[:1]))
        for name in ("CE", *VARIANTS)
        for seed in seeds
    ]
    found: dict[tuple[str, str], list[float]] = {}
    results = carry_out(runs, pool, folder, "Variants of our losses")
    for run, scores in zip(runs, results, strict=True):
        accuracies = found.setdefault((run.method, run.cell.student), [])
        accuracies.append(100 * scores["validation"])
    lines = [
        "| | small, seeds 0 and 1 | FitNet 1, seed 0 | mean |",
        "|---|---|---|---|",
    ]
    for name in ("CE", *VARIANTS):
        means = [np.mean(found[name, student]) for student in STUDENTS]
        shown = " | ".join(f"{mean:.2f}" for mean in (*means, np.mean(means)))
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"


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
    # Forgets the peak while loading.
    timing.STATUS.with_name("clear_refs").write_text("5")
    fitted.fit(batches, verbose=0)
    print(timing.memory("VmHWM"))


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
                command = [__file__, "--out", folder.parent]
                command += ["--peak", cell.name, name, weights.get(name)]
                command += ["--smoke"] if smoke else []
                memory[name] = timing.in_fresh_process(*command)
            write(file, {"milliseconds": times, "bytes": memory})
        found[cell.student] = json.loads(file.read_text())
    return found


# What came out


def rows(results: list[dict], cost: dict) -> Iterator[dict]:
    """Of each method its means, and the paired differences to cross-entropy."""
    found = by_method(results)
    for name, runs in found.items():
        yield sweep.summary(runs, found["CE"]) | {
            "kept": 100 * np.mean([run["kept"] for run in runs.values()]),
            "trust": np.mean([run["trustworthiness"] for run in runs.values()]),
            "time": cost["milliseconds"].get(name, np.nan) / cost["milliseconds"]["CE"],
            "memory": (cost["bytes"].get(name, np.nan) - cost["bytes"]["CE"]) / 1e6,
        }


def report(plan: Plan, folder: pathlib.Path, results, weights, cost) -> str:
    teacher = json.loads((folder / "teacher.json").read_text())
    lines = [
        sweep.where(),
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
    lines += sweep.tuning_table(METHODS, plan.most_weights, results["tuning"], weights)
    for cell in plan.cells:
        parameters = results[cell.name][0]["parameters"]
        lines += [
            "",
            f"### {cell.student}, {parameters:,} parameters; {cell.labelled:,} "
            f"labelled images, {cell.epochs} epochs, {len(cell.seeds)} seeds",
            "",
            f"{sweep.FIRST_COLUMNS} 10-NN kept | trustworthiness | auxiliary "
            "parameters | step time / CE | peak memory - CE |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows(results[cell.name], cost[cell.student]):
            measured = np.isfinite(row["time"])
            label = METHODS[row["method"]].label
            lines.append(
                f"{sweep.first_columns(row, label)} "
                f"{row['kept']:.1f} % | {row['trust']:.4f} | {row['auxiliary']:,} | "
                + (
                    f"{row['time']:.2f} | {row['memory']:+.0f} MB |"
                    if measured
                    else "| |"
                )
            )
    return "\n".join(lines) + "\n"


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
            if row["method"] in (*OURS, *DEFAULTS):
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
    np.atleast_1d(axes)[0].set_yticks(
        range(len(names)), [METHODS[name].label or name for name in names]
    )
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
    add("--variants", action="store_true", help="what the defaults were chosen from")
    add("--peak", nargs=3, metavar=("CELL", "METHOD", "WEIGHT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = SMOKE if options.smoke else WHOLE
    folder = pathlib.Path(options.out, plan.dataset)
    if options.peak:
        name, method, weight = options.peak
        cell = next(cell for cell in plan.cells if cell.name == name)
        weight = None if weight == "None" else float(weight)
        return peak_memory(folder, cell, method, weight)
    sweep.check_settings(settings_of(plan), folder)
    if not options.smoke:  # The weights are tuned in the first in any case.
        first, *others = plan.cells
        wanted = [cell for cell in others if cell.name in options.cells]
        plan = dataclasses.replace(plan, cells=(first, *wanted))
    prepare(plan, folder)
    pool = sweep.workers(options.jobs, start_worker, plan, folder)
    with pool:
        if options.variants:
            return print(compare_variants(pool, folder))
        results, weights = compare(plan, pool, folder)
    cost = costs(plan, folder, results, weights, options.smoke)
    text = report(plan, folder, results, weights, cost)
    (folder / "results.md").write_text(text)
    draw(plan, results, cost, folder / "results.png")
    print(text)


if __name__ == "__main__":
    main()
