"""`keras-lpd export`: a student as a LiteRT file, checked."""

from __future__ import annotations

from typing import Any

from keras_lpd.cli.arguments import Options, add_command, add_data, positive


def add_to(commands: Any) -> None:
    command = add_command(
        commands,
        "export",
        run,
        help="write a student to a LiteRT file for phones, and check the file",
        description="Writes a student to a LiteRT file, runs it on the test images of "
        "a data set, and prints how it compares with the student: `to_litert` and "
        "`evaluate_litert` of keras_lpd.compress. Ranges of integers are set by the "
        "training images. If it can't be made, an older file stays as it was.",
        example="keras-lpd export --student student.keras --dataset fashion_mnist "
        "--quantize int8 --out student.tflite",
        kept=lambda options: f"{options.out} is as it was, or whole; start again",
    )
    required = command.add_argument_group("required")
    add = required.add_argument
    add("--student", required=True, metavar="FILE", help="the trained student, .keras")
    add_data(required, command)
    add("--out", required=True, metavar="FILE", help="the file to be made, .tflite")
    add = command.add_argument
    add(
        "--quantize",
        choices=["float16", "int8", "int16x8"],
        help="what the numbers become (default: they stay float32)",
    )
    add(
        "--float-io",
        action="store_true",
        help="let a file of integers take and give floats",
    )
    add(
        "--samples",
        type=positive,
        default=500,
        metavar="N",
        help="how many training images set the ranges of integers (default: 500)",
    )
    add("--json", action="store_true", help="print the check as JSON")


def run(options: Options) -> None:
    from keras_lpd.cli.data import load_data
    from keras_lpd.cli.models import check_fits, load_model
    from keras_lpd.compress import evaluate_litert, to_litert

    student = load_model(options.student)
    data = load_data(options, student)
    check_fits(options.student, student, data)
    path = to_litert(
        student,
        options.out,
        options.quantize,
        data.x_train,
        representative_samples=options.samples,
        float_io=options.float_io,
    )
    check = evaluate_litert(path, (data.x_test, data.y_test), student)
    print(check.to_json() if options.json else check)
