"""Counts what distillation methods add to the training of FitNets, on CIFAR's images.

    python benchmarks/complexity.py --out complexity.md

The teacher is that of the FitNets, the students are FitNet 1 to 4. Hints and attention
transfer are counted between the hint and the guided layer, all other methods between
the 500 units before the logits; then all methods between both pairs. Nothing is
trained. Each number from the formulas of `keras_lpd.report` is held against the graph
of the loss, or against the regressor as it is built.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from keras_lpd.models import fitnet, fitnet_teacher
from keras_lpd.report import METHODS, Complexity, complexity, markdown, multiplications

IMAGE = (32, 32, 3)
HINTS, FEATURES = ("hint", "guided"), ("features", "features")
ON_MAPS = ("hint (dense)", "hint (convolutional)", "AT")


def check(report: Complexity, teacher: keras.Model, student: keras.Model) -> None:
    """Holds every row against the loss's graph, and against its built regressor."""
    for row in report.rows:
        loss = METHODS[row.method]
        loss = type(loss).from_config(loss.get_config())
        sides = (teacher, row.teacher_layer), (student, row.student_layer)
        shapes = [model.get_layer(layer).output.shape[1:] for model, layer in sides]
        loss.build(*((None, *shape) for shape in shapes))
        batches = [(row.batch_size, *shape) for shape in shapes]
        counted = multiplications(loss.compute_loss, *batches)
        weights = sum(layer.count_params() for layer in loss.layers)
        if [row.teacher_macs, row.student_macs, row.parameters] != [*counted, weights]:
            raise SystemExit(f"{row}: counted {counted} MACs, {weights} parameters")


def forward(model: keras.Model, batch: int) -> int:
    """Multiplications of a model's forward pass, for a sample."""
    (count,) = multiplications(model, (batch, *IMAGE))
    return count // batch


def usual(report: Complexity) -> dict[str, tuple[int, int]]:
    """Parameters and MACs a sample of each method, between its usual layers."""
    chosen = {}
    for row in report.rows:
        pair = HINTS if row.method in ON_MAPS else FEATURES
        if (row.teacher_layer, row.student_layer) == pair:
            chosen[row.method] = row.parameters, row.macs_per_sample
    return {method: chosen[method] for method in METHODS}


def cell(parameters: int, macs: int, whole: int) -> str:
    percent = 100 * macs / whole
    digits = f"{percent:,.0f}" if percent >= 100 else f"{percent:.2g}"
    return f"{parameters:,} / {digits} %"


def condensed(
    teacher: keras.Model,
    students: dict[str, keras.Model],
    reports: dict[str, Complexity],
    batch: int,
) -> str:
    """Every method between its usual layers, and the models themselves."""
    passes = {name: forward(student, batch) for name, student in students.items()}
    costs = {name: usual(report) for name, report in reports.items()}
    rows = [
        [method, *(cell(*costs[name][method], passes[name]) for name in students)]
        for method in METHODS
    ]
    own = teacher.count_params(), forward(teacher, batch)
    rows.append(["(the teacher)", *(cell(*own, whole) for whole in passes.values())])
    own = [
        f"{student.count_params():,} / {passes[name]:,}"
        for name, student in students.items()
    ]
    rows.append(["(the student; MACs in full)", *own])
    return markdown(["method", *students], rows)


def sections(batch: int, numbers: list[int]) -> Iterator[str]:
    """The parts of the Markdown."""
    teacher = fitnet_teacher(IMAGE)
    students = {f"FitNet {number}": fitnet(number, IMAGE) for number in numbers}
    reports = {}
    for name, student in students.items():
        reports[name] = complexity(
            teacher, student, [HINTS, FEATURES], batch_size=batch
        )
        check(reports[name], teacher, student)

    yield f"TensorFlow {tf.__version__}, Keras {keras.__version__}, batch {batch}."
    yield "## Auxiliary parameters / MACs a sample, of the student's forward pass"
    yield condensed(teacher, students, reports, batch)

    alike: dict[str, list[str]] = {}
    for name, report in reports.items():
        alike.setdefault(report.to_markdown(), []).append(name)
    for table, names in alike.items():
        yield f"## {', '.join(names)}: all methods between both pairs of layers"
        yield table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128, help="default: 128")
    parser.add_argument(
        "--fitnets", type=int, nargs="+", default=[1, 2, 3, 4], help="default: 1 2 3 4"
    )
    parser.add_argument("--out", type=pathlib.Path, help="file for the Markdown")
    options = parser.parse_args()

    text = "\n\n".join(sections(options.batch, options.fitnets))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
