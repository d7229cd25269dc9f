"""`keras-lpd compare`: models side by side."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from keras_lpd.cli.arguments import Options, add_command, add_data


def add_to(commands: Any) -> None:
    command = add_command(
        commands,
        "compare",
        run,
        help="put models side by side: size, cost, speed, accuracy",
        description="Runs models on the test images of a data set, and prints what "
        "each costs and gives: `keras_lpd.report.compare`.",
        example="keras-lpd compare --model teacher=teacher.keras "
        "--model student=distilled/student.keras --dataset fashion_mnist",
        kept=lambda options: "nothing was written; start again",
    )
    required = command.add_argument_group("required")
    required.add_argument(
        "--model",
        required=True,
        action="append",
        type=_named,
        metavar="NAME=FILE",
        help="a model, .keras, and what to call it; give it several times. What is "
        "called `teacher` has the neighbours that the others are measured by",
    )
    add_data(required, command)
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    command.add_argument(
        "--plot", metavar="FILE", help="draw them as well, into a .png, .svg or .pdf"
    )


def _named(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"it must be NAME=FILE, not {text}")
    return name, file


def run(options: Options) -> None:
    from keras_lpd.cli.data import load_data
    from keras_lpd.cli.models import check_fits, load_model
    from keras_lpd.report import compare

    files = dict(options.model)
    if len(files) < len(options.model):
        raise ValueError("Two of the models have the same name: give each its own.")
    models = {name: load_model(file) for name, file in files.items()}
    data = load_data(options, next(iter(models.values())))
    for name, file in files.items():
        check_fits(file, models[name], data, classifies=False)
    with contextlib.redirect_stdout(sys.stderr):  # Progress is no part of the table.
        comparison = compare(
            models,
            (data.x_test, data.y_test),
            k=max(1, min(10, len(data.y_test) - 1)),
        )
        if options.plot:
            comparison.plot(options.plot)
    if options.json:
        print(comparison.to_json())
    else:
        print(comparison.to_markdown() if options.markdown else comparison)
