"""Compares distillation methods on Fashion-MNIST with few labels, and three teachers.

A few images are labelled, the others are not: cross-entropy sees the labelled half of
a batch, the distillation losses all of it. Teacher A was trained on all labels. The
others have features but no outputs of use: B was trained on the classes 0 to 4, and
its student learns the classes 5 to 9; C was trained without labels, to know an image
again by another view of it (SimCLR). Weights are tuned on the validation split for
each teacher, at one number of labels and over three values a method; the test split
is scored over other seeds, beside controls without which no gain means anything.

    python benchmarks/few_labels.py --out runs/few_labels

Every training leaves one JSON file, so that an interrupted comparison goes on where
it stopped. Table and plot are made after each stage of it; `--report` makes them of
what there is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import simclr
import sweep
import tensorflow as tf
from controls import FeatureSize, OwnNeighbors, RandomPairs
from sweep import BATCH, TRAINED_IN, Method, Run, Split, hinton

from keras_lpd import LocalityPreserving, NeighborProbability
from keras_lpd.features import OUTPUTS, FeatureExtractor
from keras_lpd.losses import Hint, RelationalKnowledge, SimilarityPreserving
from keras_lpd.models import cnn_student

STEPS = 2000
"""Of each student's training."""
RATE = 3e-3
LABELLED = BATCH // 2
"""How many of a batch have labels."""
PROJECTED = 64
"""How wide the output is by which teacher C compares views."""
SCORED = ("validation", "test")
SEEN, UNSEEN = range(5), range(5, 10)
"""The classes that teacher B was trained on, and those that its student learns."""

# What is compared


@dataclasses.dataclass(frozen=True)
class Cell:
    """A teacher, and how many labels its student gets; `None` for all there are."""

    teacher: str
    labels: int | None

    @property
    def name(self) -> str:
        return f"{self.teacher}-{'all' if self.labels is None else self.labels}"


TEACHERS = {
    "A": "trained on all labels",
    "B": "headless, trained on other classes",
    "C": "headless, trained without labels (SimCLR)",
}
LAYERS = {"A": ("features", OUTPUTS), "B": ("features",), "C": ("features",)}

METHODS: dict[str, Method] = {
    "CE": Method(lambda: []),
    "KD": Method(lambda: [(hinton(), 1.0)], (0.5, 2.0, 8.0)),
    "Hint": Method(lambda: [(Hint(), 1.0)], (0.1, 1.0, 10.0)),
    "SP": Method(lambda: [(SimilarityPreserving(), 1.0)], (30.0, 300.0, 3000.0)),
    # Its angles take five times the time of all others.
    "RKD": Method(
        lambda: [(RelationalKnowledge(angle_weight=0), 1.0)], (0.1, 1.0, 10.0)
    ),
    "LP": Method(lambda: [(LocalityPreserving(), 1.0)], (0.05, 0.15, 0.5)),
    "NP": Method(lambda: [(NeighborProbability(), 1.0)], (0.5, 2.0, 6.0)),
    "LP + NP": Method(
        lambda: [(LocalityPreserving(), 0.005), (NeighborProbability(), 0.6)],
        (1.0, 3.0, 10.0),
    ),
    "control: random pairs": Method(lambda: [(RandomPairs(), 1.0)], (0.05, 0.15, 0.5)),
    "control: own neighbours": Method(
        lambda: [(OwnNeighbors(), 1.0)], (0.05, 0.15, 0.5)
    ),
    "control: feature size": Method(lambda: [(FeatureSize(), 1.0)], (0.01, 0.03, 0.1)),
}
OF_LOGITS = ("KD",)
OURS = ("LP", "NP", "LP + NP")


@dataclasses.dataclass(frozen=True)
class Plan:
    """How large the comparison is, and in which order it goes.

    Args:
        dataset: What `load_arrays` is asked for.
        held_back: Size of the validation split, the last training images.
        teacher_epochs: How long each teacher trains.
        views: How many augmented views there are of each image.
        steps: Length of a student's training.
        tuned_at: The number of labels at which the weights are tuned.
        stages: Cells, in the order of their work. A teacher's weights are tuned
            before the first of its cells.
        methods: The names of the methods.
        seeds: Those of the test runs.
        tuning_seeds: Those of the runs that the weights are tuned with.
        most_weights: How many of each method's weights are tried.
    """

    dataset: str
    held_back: int
    teacher_epochs: dict[str, int]
    views: int
    steps: int
    tuned_at: int
    stages: tuple[Cell, ...]
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: tuple[int, ...] = (100, 101, 102)
    tuning_seeds: tuple[int, ...] = (0,)
    most_weights: int = 3


WHOLE = Plan(
    "fashion_mnist",
    held_back=5000,
    teacher_epochs={"A": 12, "B": 6, "C": 10},
    views=4,
    steps=STEPS,
    tuned_at=500,
    stages=(
        Cell("A", 2000),
        Cell("A", 500),
        Cell("B", 500),
        Cell("B", 2000),
        Cell("C", 500),
        Cell("C", 2000),
        Cell("A", 100),
        Cell("A", 10_000),
        Cell("A", None),
        Cell("B", None),
    ),
)
SMOKE = Plan(
    "digits",
    held_back=100,
    teacher_epochs={"A": 10, "B": 10, "C": 10},
    views=2,
    steps=60,
    tuned_at=100,
    stages=(
        Cell("A", 300),
        Cell("A", 100),
        Cell("B", 100),
        Cell("C", 100),
        Cell("A", None),
    ),
    methods=("CE", "KD", "Hint", "NP", "LP + NP", "control: random pairs"),
    seeds=(100, 101),
    most_weights=1,
)


def settings_of(plan: Plan) -> dict:
    """What results in one folder have in common."""
    return {
        "held_back": plan.held_back,
        "teacher_epochs": plan.teacher_epochs,
        "views": plan.views,
        "steps": plan.steps,
        "tuned_at": plan.tuned_at,
        "rate": RATE,
        "trained_in": TRAINED_IN,
        "batch": [LABELLED, BATCH - LABELLED],
    }


def methods_of(plan: Plan, teacher: str) -> list[str]:
    """Those that a teacher is good for: without a head there are no logits."""
    return [name for name in plan.methods if teacher == "A" or name not in OF_LOGITS]


def run_of(cell: Cell, method: str, weight: float | None, seed: int) -> Run:
    """A training. C has no part in cross-entropy: it is that of A's cell."""
    if method == "CE" and cell.teacher == "C":
        cell = Cell("A", cell.labels)
    return Run(cell, method, weight, seed)


def tuning_runs(plan: Plan, teacher: str) -> list[Run]:
    return [
        run_of(Cell(teacher, plan.tuned_at), name, weight, seed)
        for name in methods_of(plan, teacher)
        for weight in METHODS[name].weights[: plan.most_weights]
        for seed in plan.tuning_seeds
    ]


def test_runs(plan: Plan, cell: Cell, weights: dict[str, float]) -> list[Run]:
    names = ["CE"] if cell.labels is None else methods_of(plan, cell.teacher)
    return [
        run_of(cell, name, weights.get(name), seed)
        for seed in plan.seeds
        for name in names
    ]


# The data: images, and what the teachers make of them


def only(split: Split, classes: range) -> Split:
    """The images of some classes, which count from 0 now."""
    x, y = split
    chosen = np.isin(y, classes)
    return x[chosen], y[chosen] - classes[0]


def splits_of(splits: dict[str, Split], teacher: str) -> dict[str, Split]:
    """What the student of a teacher learns from, and is scored on."""
    if teacher != "B":
        return splits
    return {name: only(split, UNSEEN) for name, split in splits.items()}


def train_teacher(name: str, splits: dict[str, Split], epochs: int) -> keras.Model:
    x, y = splits["train"]
    if name == "B":
        return sweep.train_teacher(*only((x, y), SEEN), epochs, classes=len(SEEN))
    if name == "C":
        return sweep.train_teacher(
            x, y, epochs, PROJECTED, simclr.two_views,
            simclr.contrastive_loss, simclr.partners_found,
        )  # fmt: skip
    return sweep.train_teacher(x, y, epochs)


def teacher_scores(name: str, teacher: keras.Model, splits: dict[str, Split]) -> dict:
    """A teacher's accuracy in its own task, and of its features in the student's."""
    if name == "C":
        own = {part: share_found(teacher, splits[part]) for part in SCORED}
    elif name == "B":
        seen = {part: only(split, SEEN) for part, split in splits.items()}
        own = sweep.accuracies(teacher, seen)
    else:
        own = sweep.accuracies(teacher, splits)
    return {
        "parameters": teacher.count_params(),
        **own,
        "neighbors": neighbors_accuracy(teacher, splits_of(splits, name)),
    }


def share_found(teacher: keras.Model, split: Split) -> float:
    """How often teacher C knows an image again, among the views of a batch."""
    x, y = split
    size, found = min(BATCH, len(x)), []
    for start in range(0, len(x) - size + 1, size):
        rows = slice(start, start + size)
        views, _ = simclr.two_views(x[rows], y[rows], (0, start))
        projections = teacher(sweep.scaled(views), training=False)
        found.append(np.mean(simclr.partners_found(None, projections)))
    return float(np.mean(found))


def neighbors_accuracy(teacher: keras.Model, splits: dict[str, Split]) -> float:
    """Of the 10 nearest of 2,000 labelled images, on the validation split."""
    from sklearn.neighbors import KNeighborsClassifier

    extract = FeatureExtractor(teacher, ["features"])
    found = []
    for x, y in ((part[:2000] for part in splits["train"]), splits["validation"]):
        found.append((sweep.predicted(extract, sweep.scaled(x), "features"), y))
    known, new = found
    return float(KNeighborsClassifier(10).fit(*known).score(*new))


def prepare(plan: Plan, name: str, splits: dict[str, Split], folder) -> None:
    """Trains a teacher, and runs it once over all that its students will see."""
    file = folder / f"teacher-{name}.keras"
    if not file.exists():
        print(f"Teacher {name}, {TEACHERS[name]}", flush=True)
        sweep.save_whole(train_teacher(name, splits, plan.teacher_epochs[name]), file)
    teacher = keras.models.load_model(file)
    scores = file.with_suffix(".json")
    if not scores.exists():
        sweep.write(scores, teacher_scores(name, teacher, splits))
    images = splits_of(splits, name)["train"]
    sweep.keep_views(folder, name, teacher, images, plan.views, LAYERS[name])


class Lesson(sweep.Lesson):
    """A teacher's images, in all views, with its features."""

    def __init__(self, folder: pathlib.Path, teacher: str):
        super().__init__(folder, teacher, LAYERS[teacher])

    @property
    def classes(self) -> int:
        return int(np.max(self.labels)) + 1

    def drawn(self, random: np.random.Generator, among: int, many: int) -> np.ndarray:
        """Rows of the first images: all of them in turn, each time in another view."""
        count = len(self.labels)
        views = random.permutation(len(self.images) // count)
        turns = [
            views[turn % len(views)] * count + random.permutation(among)
            for turn in range(-(-many // among))
        ]
        return np.concatenate(turns)[:many]

    def batches(
        self, seed: int, labels: int | None, steps: int, with_teacher: bool
    ) -> tf.data.Dataset:
        """All batches of a training.

        Without a teacher they are of labelled images alone. With it there are as many
        without a label behind them, drawn from all images, with weights of 0 and
        the labels of the first ones.
        """
        random, count = np.random.default_rng(seed), len(self.labels)
        size = BATCH if labels is None else LABELLED
        known = self.drawn(random, min(labels or count, count), size * steps)
        known = known.reshape(steps, size)
        if not with_teacher:
            return self.gathered(known, known, with_teacher)
        others = self.drawn(random, count, (BATCH - size) * steps)
        rows = np.concatenate([known, others.reshape(steps, BATCH - size)], axis=1)
        labels_of = np.concatenate([known, known], axis=1)[:, :BATCH]
        weights = tf.constant([BATCH / size] * size + [0.0] * (BATCH - size))
        batches = self.gathered(rows, labels_of, with_teacher)
        return batches.map(lambda x, y: (x, y, weights))


# One training


def make(run: Run, lesson: Lesson, steps: int) -> tuple[keras.Model, keras.Model]:
    """What is fitted, and the student in it."""
    return sweep.make_fitted(
        run.seed,
        lambda: cnn_student(lesson.image_shape, lesson.classes),
        METHODS[run.method].losses,
        run.weight,
        lesson.cache,
        keras.optimizers.schedules.CosineDecay(RATE, steps),
    )


def train(run: Run, lesson: Lesson, steps: int, splits: dict[str, Split]) -> dict:
    """Trains one student; gives its scores."""
    labels = run.cell.labels
    return sweep.train(
        run,
        lambda: make(run, lesson, steps),
        lambda with_teacher: lesson.batches(run.seed, labels, steps, with_teacher),
        lambda: cnn_student(lesson.image_shape, lesson.classes),
        splits_of(splits, run.cell.teacher),
    )


# Many of them

_worker: dict = {}


def start_worker(plan: Plan, folder: pathlib.Path) -> None:
    splits = sweep.images_of(plan.dataset, plan.held_back)
    _worker.update(folder=folder, splits=splits, steps=plan.steps, lessons={})


def work(run: Run) -> dict:
    lessons, teacher = _worker["lessons"], run.cell.teacher
    if teacher not in lessons:
        lessons.clear()
        lessons[teacher] = Lesson(_worker["folder"], teacher)
    return train(run, lessons[teacher], _worker["steps"], _worker["splits"])


def compare(plan: Plan, pool, folder: pathlib.Path) -> Iterator[Cell]:
    """Runs everything; gives each cell when it is done."""
    splits, weights = sweep.images_of(plan.dataset, plan.held_back), {}
    for cell in plan.stages:
        name = cell.teacher
        if name not in weights:
            prepare(plan, name, splits, folder)
            title = f"Tuning the weights with teacher {name}"
            runs = tuning_runs(plan, name)
            weights[name], _ = sweep.chosen(
                sweep.carry_out(work, runs, pool, folder, title)
            )
        runs = test_runs(plan, cell, weights[name])
        sweep.carry_out(work, runs, pool, folder, f"Cell {cell.name}")
        yield cell


def collect(plan: Plan, folder: pathlib.Path) -> tuple[dict, dict, dict]:
    """What there is: tuning and weights by teacher, and results by cell."""
    tuning, weights, results = {}, {}, {}
    for cell in plan.stages:
        name = cell.teacher
        if name not in tuning:
            runs = tuning_runs(plan, name)
            if not all((folder / run.file).exists() for run in runs):
                continue
            tuning[name] = sweep.results_of(runs, folder)
            weights[name], _ = sweep.chosen(tuning[name])
        runs = test_runs(plan, cell, weights[name])
        runs = [run for run in runs if (folder / run.file).exists()]
        if any(run.method == "CE" for run in runs):
            results[cell] = sweep.by_method(sweep.results_of(runs, folder))
    return tuning, weights, results


# What came out


def rows(found: dict[str, dict[int, dict]]) -> Iterator[dict]:
    """Of each method its means, over the seeds that cross-entropy has as well."""
    alone = found["CE"]
    for runs in found.values():
        runs = {seed: run for seed, run in runs.items() if seed in alone}
        if runs:
            yield sweep.summary(runs, alone)


def title_of(cell: Cell) -> str:
    title = "For reference: cross-entropy with all labels"
    if cell.labels is not None:
        title = f"Teacher {cell.teacher}, {TEACHERS[cell.teacher]}; "
        title += f"{cell.labels:,} labels"
    return title + (", classes 5 to 9" if cell.teacher == "B" else "")


def report(plan: Plan, folder: pathlib.Path, tuning, weights, results) -> str:
    lines = [
        f"{sweep.where()} {plan.steps:,} steps of {LABELLED} labelled and "
        f"{BATCH - LABELLED} unlabelled images for each student.",
        "",
        "| teacher | parameters | its own task, validation | its own task, test | "
        "10-NN in the student's task |",
        "|---|---|---|---|---|",
    ]
    for name, text in TEACHERS.items():
        file = folder / f"teacher-{name}.json"
        if file.exists():
            scores = json.loads(file.read_text())
            shares = [scores[part] for part in ("validation", "test", "neighbors")]
            shares = " | ".join(f"{100 * share:.2f}" for share in shares)
            lines.append(f"| {name}, {text} | {scores['parameters']:,} | {shares} |")
    for name, runs in tuning.items():
        methods = {method: METHODS[method] for method in methods_of(plan, name)}
        lines += [
            "",
            f"Weights tried with teacher {name} at {plan.tuned_at:,} labels, with the "
            "validation accuracy (in bold: chosen):",
            "",
            *sweep.tuning_table(methods, plan.most_weights, runs, weights[name]),
        ]
    for cell, found in results.items():
        seeds = sorted({len(runs) for runs in found.values()})
        lines += [
            "",
            f"### {title_of(cell)}; {' to '.join(map(str, seeds))} seeds",
            "",
            f"{sweep.FIRST_COLUMNS} uses logits | auxiliary parameters |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows(found):
            logits = "yes" if row["method"] in OF_LOGITS else "no"
            first = sweep.first_columns(row)
            lines.append(f"{first} {logits} | {row['auxiliary']:,} |")
    return "\n".join(lines) + "\n"


def draw(plan: Plan, results, file: pathlib.Path) -> None:
    """A panel a teacher: the test accuracy against the number of labels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    teachers = [name for name in TEACHERS if name in {c.teacher for c in results}]
    figure, axes = plt.subplots(
        1, len(teachers), figsize=(5 + 3 * len(teachers), 5), squeeze=False,
        width_ratios=[1.5 if name == "A" else 1.0 for name in teachers],
        layout="constrained",
    )  # fmt: skip
    handles = {}
    for axis, name in zip(axes[0], teachers):
        cells = [c for c in results if c.teacher == name and c.labels is not None]
        cells.sort(key=lambda cell: cell.labels)
        scores = {
            cell: {row["method"]: row["test"] for row in rows(results[cell])}
            for cell in cells
        }
        for method in plan.methods:
            points = [(c.labels, scores[c].get(method)) for c in cells]
            points = [point for point in points if point[1] is not None]
            if points:
                (handles[method],) = axis.plot(*zip(*points), **style_of(method))
        alike = Cell("B" if name == "B" else "A", None)
        if alike in results:
            (row,) = rows(results[alike])
            handles["CE, all labels"] = axis.axhline(
                row["test"], color="black", linestyle=(0, (1, 2)), linewidth=1
            )
        counts = [cell.labels for cell in cells]
        axis.set_xscale("log")
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.margins(x=0.1)
        title = f"teacher {name}, {TEACHERS[name]}".replace(", trained", ",\ntrained")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("labels" + (" (classes 5 to 9)" if name == "B" else ""))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy, %")
    order = [name for name in (*plan.methods, "CE, all labels") if name in handles]
    figure.legend([handles[name] for name in order], order, loc="outside right center")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def style_of(method: str) -> dict:
    """Ours are thick, the peers thin, and the controls grey."""
    if method in OURS:
        color = ("gold", "tab:orange", "tab:red")[OURS.index(method)]
        return {"color": color, "linewidth": 3, "marker": "o", "zorder": 3}
    if method.startswith("control"):
        names = [name for name in METHODS if name.startswith("control")]
        dashes = ("--", ":", "-.")[names.index(method)]
        return {
            "color": "tab:gray",
            "linestyle": dashes,
            "marker": ".",
            "linewidth": 1.2,
        }
    colors = {"CE": "black", "KD": "tab:blue", "Hint": "tab:green", "SP": "tab:purple"}
    color = colors.get(method, "tab:cyan")
    return {"color": color, "linewidth": 1.3, "marker": ".", "zorder": 4}


def show(plan: Plan, folder: pathlib.Path) -> str:
    """Writes the table and the plot of what there is; gives the table."""
    tuning, weights, results = collect(plan, folder)
    text = report(plan, folder, tuning, weights, results)
    (folder / "results.md").write_text(text)
    if results:
        draw(plan, results, folder / "results.png")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", default="runs/few_labels", help="folder of everything that is kept")
    add("--smoke", action="store_true", help="all of it, in two minutes")
    add("--jobs", type=int, default=2, help="trainings at a time, each on one core")
    add("--report", action="store_true", help="show what there is, and train nothing")
    options = parser.parse_args()
    plan = SMOKE if options.smoke else WHOLE
    folder = pathlib.Path(options.out, plan.dataset)
    if options.report and not (folder / "settings.json").exists():
        raise SystemExit(f"{folder} has no results yet.")
    sweep.check_settings(settings_of(plan), folder)
    if not options.report:
        with sweep.workers(options.jobs, start_worker, plan, folder) as pool:
            for _ in compare(plan, pool, folder):
                show(plan, folder)
    print(show(plan, folder))


if __name__ == "__main__":
    main()
