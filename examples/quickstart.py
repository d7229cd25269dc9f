"""Distils a small student from a large teacher, beside the same student alone.

    python examples/quickstart.py                          # digits, 80 seconds
    python examples/quickstart.py --dataset fashion_mnist  # real clothes, longer

Prints a table and draws the accuracies and the features of the test set.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keras_lpd import LPDistiller
from keras_lpd.datasets import Arrays, load_arrays
from keras_lpd.features import FeatureExtractor
from keras_lpd.models import cnn_student, cnn_teacher


@dataclasses.dataclass
class Plan:
    """How a data set is used."""

    labelled: int
    teacher_epochs: int
    student_epochs: int
    batch_size: int


PLANS = {
    "digits": Plan(1347, teacher_epochs=40, student_epochs=30, batch_size=64),
    "fashion_mnist": Plan(10_000, teacher_epochs=3, student_epochs=15, batch_size=128),
}


def compile_for(model: keras.Model, rate: float, steps: int) -> None:
    """The same training recipe for all: Adam, its rate falling along a cosine."""
    model.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, steps)
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def train(model, x, y, epochs, batch_size, rate, progress, title) -> float:
    """Trains a model under a progress bar; gives the seconds it took."""
    steps = -(-len(x) // batch_size) * epochs
    compile_for(model, rate, steps)
    task = progress.add_task(title, total=steps)
    tick = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: progress.advance(task)
    )
    start = time.perf_counter()
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=[tick])
    return time.perf_counter() - start


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    batches = np.array_split(x, -(-len(x) // 500))
    logits = np.concatenate([model(batch, training=False) for batch in batches])
    return 100 * float(np.mean(logits.argmax(axis=1) == y))


def draw(path: pathlib.Path, scores: dict, models: dict, data: Arrays) -> None:
    """The accuracies, and what each model makes of the test set, in two dimensions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE

    shown = slice(0, 1000)
    labels = data.y_test[shown]
    figure, axes = plt.subplots(
        1, 4, figsize=(15, 4.2), width_ratios=[0.8, 1, 1, 1], layout="constrained"
    )
    bars = axes[0]
    colours = ["#9aa0a6", "#d98032", "#2f7ebc"]
    for index, values in enumerate(scores.values()):
        mean = np.mean(values)
        bars.bar(index, mean, color=colours[index], width=0.65)
        bars.plot([index] * len(values), values, "o", color="black", markersize=4)
        bars.annotate(
            f"{mean:.1f}", (index, max(values)), (0, 6), textcoords="offset points",
            ha="center", fontweight="bold",
        )  # fmt: skip
    lowest = min(min(values) for values in scores.values())
    highest = max(max(values) for values in scores.values())
    margin = max(highest - lowest, 1.0)
    bars.set_ylim(lowest - margin, highest + 0.5 * margin)
    bars.set_xticks(range(len(scores)), [name.replace(" ", "\n") for name in scores])
    bars.set_ylabel("test accuracy, % (axis cut)")
    bars.set_title("Accuracy (dots: seeds)", fontsize=11)
    bars.spines[["top", "right"]].set_visible(False)

    for axis, (name, model) in zip(axes[1:], models.items()):
        extract = FeatureExtractor(model, ["features"], outputs=False)
        features = extract(data.x_test[shown], training=False)["features"]
        flat = TSNE(init="pca", random_state=0).fit_transform(np.asarray(features))
        dots = axis.scatter(*flat.T, c=labels, cmap="tab10", s=9, linewidths=0)
        axis.set_title(f"{name}: {features.shape[1]} features", fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_color("#cccccc")
    figure.legend(
        dots.legend_elements(num=None)[0], data.class_names, ncols=10,
        loc="outside lower center", frameon=False, columnspacing=1.2,
    )  # fmt: skip
    figure.suptitle("The test set in each model's feature space (t-SNE)", x=0.62)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Distil a small student from a large teacher, and compare it "
        "with the same student trained alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", choices=PLANS, default="digits")
    parser.add_argument("--seeds", type=int, default=5, help="students of each kind")
    parser.add_argument("--data-dir", help="where tensorflow-datasets keeps its data")
    parser.add_argument("--out", default="quickstart.png", help="the picture")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")

    console = Console()
    plan = PLANS[options.dataset]
    with console.status(f"Loading {options.dataset} ..."):
        data = load_arrays(options.dataset, options.data_dir)
    shape = data.x_train.shape[1:]
    x, y = data.x_train[: plan.labelled], data.y_train[: plan.labelled]
    scores: dict[str, list[float]] = {"teacher": [], "alone": [], "distilled": []}
    seconds: dict[str, list[float]] = {name: [] for name in scores}
    models: dict[str, keras.Model] = {}

    with Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        keras.utils.set_random_seed(0)
        teacher = models["teacher"] = cnn_teacher(shape)
        seconds["teacher"].append(
            train(teacher, data.x_train, data.y_train, plan.teacher_epochs, 128, 1e-3,
                  progress, "teacher")
        )  # fmt: skip
        scores["teacher"].append(accuracy(teacher, data.x_test, data.y_test))

        for seed in range(options.seeds):
            for kind in ("alone", "distilled"):
                keras.utils.set_random_seed(seed)
                student = models[kind] = cnn_student(shape)
                model = student
                if kind == "distilled":
                    model = LPDistiller(teacher, student)
                    # What it says of its layers is the same for every seed.
                    logging.getLogger("keras_lpd").setLevel(logging.WARNING)
                seconds[kind].append(
                    train(model, x, y, plan.student_epochs, plan.batch_size, 3e-3,
                          progress, f"{kind}, seed {seed}")
                )  # fmt: skip
                scores[kind].append(accuracy(student, data.x_test, data.y_test))

    table = Table(title=f"{options.dataset}: {len(data.x_test):,} test images")
    for column in ("", "parameters", "labelled images", "test accuracy", "training"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, model in models.items():
        spread = (
            f" ± {np.std(scores[name], ddof=1):.2f}" if len(scores[name]) > 1 else ""
        )
        table.add_row(
            name if name == "teacher" else f"student {name}",
            f"{model.count_params():,}",
            f"{len(data.x_train) if name == 'teacher' else len(x):,}",
            f"{np.mean(scores[name]):.2f} %{spread}",
            f"{np.mean(seconds[name]):.1f} s",
        )
    console.print(table)
    gain = np.mean(scores["distilled"]) - np.mean(scores["alone"])
    console.print(
        f"Distilled students are {gain:+.2f} points from those trained alone "
        f"(mean over {options.seeds} seeds)."
    )
    with console.status("Drawing ..."):
        draw(pathlib.Path(options.out), scores, models, data)
    console.print(f"The picture: {options.out}")


if __name__ == "__main__":
    main()
