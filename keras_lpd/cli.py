"""The command `keras-lpd`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code.

    0 is success, 1 an error (told in one line; `--debug` shows where it came
    from), 2 a wrong argument, 130 an interruption from the keyboard.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("keras-lpd: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        else:
            print(f"keras-lpd: error: {_in_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from keras_lpd.version import __version__

    parser = argparse.ArgumentParser(
        prog="keras-lpd", description="Small Keras students from large teachers."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_cache(commands)
    _add_export(commands)
    return parser


def _add_cache(commands: argparse._SubParsersAction) -> None:
    from keras_lpd.datasets import NAMES

    command = commands.add_parser(
        "cache",
        help="run a teacher over a data set once, and keep its features",
        description="Runs a teacher over the training images of a data set once, and "
        "keeps its features in a folder: a `keras_lpd.TeacherCache`. Interrupted, it "
        "goes on where it stopped when it is started again. In Python, attach it to "
        "tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train)), where data "
        "is keras_lpd.datasets.load_arrays(NAME).",
    )
    command.set_defaults(run=_cache)
    required = command.add_argument_group("required")
    add = required.add_argument
    add("--teacher", required=True, metavar="FILE", help="the trained teacher, .keras")
    add(
        "--dataset",
        required=True,
        metavar="NAME",
        choices=NAMES,
        help=" or ".join(NAMES),
    )
    add("--out", required=True, metavar="DIR", help="the folder to be made")
    add = command.add_argument
    add("--data-dir", metavar="DIR", help="where tensorflow-datasets keeps its data")
    add(
        "--layer",
        action="append",
        metavar="NAME",
        help="a layer to keep; may be given several times (default: the one that "
        "feeds the head)",
    )
    add("--outputs", action="store_true", help="keep the teacher's outputs as well")
    add(
        "--dtype",
        choices=["float16", "float32"],
        default="float16",
        help="of the features on disk (default: float16)",
    )
    add("--project", type=int, metavar="N", help="project the features to N dimensions")
    add(
        "--projection",
        choices=["pca", "gaussian"],
        default="pca",
        help="how (default: pca)",
    )
    add(
        "--batch-size",
        type=int,
        default=256,
        metavar="N",
        help="how many samples the teacher sees at once (default: 256)",
    )
    add("--debug", action="store_true", help="show where an error comes from")


def _cache(options: argparse.Namespace) -> None:
    import keras
    import tensorflow as tf

    from keras_lpd import TeacherCache
    from keras_lpd.datasets import load_arrays

    teacher = keras.saving.load_model(options.teacher, compile=False)
    data = load_arrays(options.dataset, options.data_dir)
    TeacherCache.build(
        teacher,
        tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train)),
        options.out,
        layers=options.layer,
        outputs=options.outputs,
        dtype=options.dtype,
        project=options.project,
        projection=options.projection,
        batch_size=options.batch_size,
    )


def _add_export(commands: argparse._SubParsersAction) -> None:
    from keras_lpd.datasets import NAMES

    command = commands.add_parser(
        "export",
        help="write a student to a LiteRT file for phones, and check the file",
        description="Writes a student to a LiteRT file, runs it on the test images of "
        "a data set, and prints how it compares with the student: `to_litert` and "
        "`evaluate_litert` of keras_lpd.compress. Ranges of integers are set by the "
        "training images. If it can't be made, an older file stays as it was.",
    )
    command.set_defaults(run=_export)
    required = command.add_argument_group("required")
    add = required.add_argument
    add("--student", required=True, metavar="FILE", help="the trained student, .keras")
    add(
        "--dataset",
        required=True,
        metavar="NAME",
        choices=NAMES,
        help=" or ".join(NAMES),
    )
    add("--out", required=True, metavar="FILE", help="the file to be made, .tflite")
    add = command.add_argument
    add("--data-dir", metavar="DIR", help="where tensorflow-datasets keeps its data")
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
        type=int,
        default=500,
        metavar="N",
        help="how many training images set the ranges of integers (default: 500)",
    )
    add("--json", action="store_true", help="print the check as JSON")
    add("--debug", action="store_true", help="show where an error comes from")


def _export(options: argparse.Namespace) -> None:
    import keras

    import keras_lpd.models  # noqa: F401  # Registers the layers of its own.
    from keras_lpd.compress import evaluate_litert, to_litert
    from keras_lpd.datasets import load_arrays

    student = keras.saving.load_model(options.student, compile=False)
    data = load_arrays(options.dataset, options.data_dir)
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


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
