"""`keras-lpd cache`: a teacher's features, computed once."""

from __future__ import annotations

from typing import Any

from keras_lpd.cli.arguments import Options, add_command, add_data, positive


def add_to(commands: Any) -> None:
    command = add_command(
        commands,
        "cache",
        run,
        help="run a teacher over a data set once, and keep its features",
        description="Runs a teacher over the training images of a data set once, and "
        "keeps its features in a folder: a `keras_lpd.TeacherCache`. Interrupted, it "
        "goes on where it stopped when it is started again. `--cache` of `keras-lpd "
        "distill` uses it; in Python, attach it to "
        "tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train)), where data "
        "is keras_lpd.datasets.load_arrays(NAME).",
        example="keras-lpd cache --teacher teacher.keras --dataset fashion_mnist "
        "--out teacher_cache",
        kept=lambda options: (
            f"the same command goes on beside {options.out}, where it stopped"
        ),
    )
    required = command.add_argument_group("required")
    add = required.add_argument
    add("--teacher", required=True, metavar="FILE", help="the trained teacher, .keras")
    add_data(required, command)
    add("--out", required=True, metavar="DIR", help="the folder to be made")
    add = command.add_argument
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
    add(
        "--project",
        type=positive,
        metavar="N",
        help="project the features to N dimensions",
    )
    add(
        "--projection",
        choices=["pca", "gaussian"],
        default="pca",
        help="how (default: pca)",
    )
    add(
        "--batch-size",
        type=positive,
        default=256,
        metavar="N",
        help="how many samples the teacher sees at once (default: 256)",
    )


def run(options: Options) -> None:
    import tensorflow as tf

    from keras_lpd import TeacherCache
    from keras_lpd.cli.data import load_data
    from keras_lpd.cli.models import check_fits, load_model

    teacher = load_model(options.teacher)
    data = load_data(options, teacher)
    check_fits(options.teacher, teacher, data, classifies=False)
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
