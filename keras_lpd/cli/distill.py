"""`keras-lpd distill`: a student from a teacher, also if it is cut off."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import TYPE_CHECKING, Any

from keras_lpd.cli.arguments import (
    Options,
    add_command,
    add_data,
    natural,
    positive,
    positive_number,
)
from keras_lpd.features import find_feature_layer
from keras_lpd.fingerprint import fingerprint
from keras_lpd.log import logger
from keras_lpd.losses import LocalityPreserving

if TYPE_CHECKING:
    import keras

    from keras_lpd import LPDistiller, TeacherCache
    from keras_lpd.cli.folder import Folder
    from keras_lpd.datasets import Arrays

_STUDENT, _TABLE, _COMPARISON = "student.keras", "comparison.txt", "comparison.json"
_BACKUP = "backup"

_SAME = (
    "epochs",
    "batch_size",
    "learning_rate",
    "gamma",
    "k",
    "distillation_losses",
    "teacher_layer",
    "student_layer",
    "seed",
)


def add_to(commands: Any) -> None:
    command = add_command(
        commands,
        "distill",
        run,
        help="train a student with a teacher beside it, and compare them",
        description="Trains a student with a teacher beside it, by "
        "`keras_lpd.LPDistiller` with Adam and the cross-entropy that fits the "
        "student's output. In the folder are then student.keras, the student of the "
        "last epoch; comparison.json and comparison.txt, how it compares with the "
        "teacher and with itself before, on the test images; and logs for TensorBoard, "
        "with scores on the test images in every epoch, by which nothing is chosen. "
        "Interrupted, even killed, the same command goes on after the last whole "
        "epoch, and comes (on a CPU) to the same weights.",
        example="keras-lpd distill --teacher teacher.keras --student student.keras "
        "--dataset fashion_mnist --epochs 10 --out distilled",
        kept=lambda options: (
            f"the same command goes on from the last whole epoch, "
            f"which is in {options.out}"
        ),
    )
    required = command.add_argument_group("required")
    add = required.add_argument
    add("--teacher", required=True, metavar="FILE", help="the trained teacher, .keras")
    add(
        "--student",
        required=True,
        metavar="FILE",
        help="the student to be trained, from the weights it has, .keras",
    )
    add_data(required, command)
    add("--out", required=True, metavar="DIR", help="the folder to be made")
    add = command.add_argument
    add("--epochs", type=positive, default=10, metavar="N", help="default: 10")
    add(
        "--batch-size",
        type=positive,
        default=128,
        metavar="N",
        help="samples in a batch, among which neighbours are looked for (default: 128)",
    )
    add(
        "--learning-rate",
        type=positive_number,
        default=0.001,
        metavar="X",
        help="of Adam (default: 0.001)",
    )
    add(
        "--gamma",
        type=float,
        default=LocalityPreserving.default_weight,
        metavar="X",
        help="weight of the neighbourhoods (default: %(default)s; with few labels ten "
        "times that)",
    )
    add(
        "--k",
        type=positive,
        default=5,
        metavar="N",
        help="how many neighbours count (default: 5)",
    )
    add(
        "--distillation-losses",
        choices=["auto", "none"],
        default="auto",
        help="what comes beside the paper's loss: neighbour probability (auto, the "
        "default) or nothing",
    )
    for role in ("teacher", "student"):
        add(
            f"--{role}-layer",
            metavar="NAME",
            help=f"the {role}'s feature layer (default: the one that feeds the head)",
        )
    add(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="of the order of samples and of dropout (default: 0)",
    )
    add(
        "--cache",
        metavar="DIR",
        help="a teacher cache, as `keras-lpd cache` makes it, of this teacher and data "
        "and with the feature layer; it is made if it is not there. The teacher then "
        "runs once, not once an epoch",
    )


def run(options: Options) -> None:
    import keras

    from keras_lpd.cli.data import load_data
    from keras_lpd.cli.folder import Folder, sum_of_data, sum_of_file
    from keras_lpd.cli.models import check_fits, load_model

    keras.utils.set_random_seed(options.seed)  # for layers that load without a seed
    teacher, student = load_model(options.teacher), load_model(options.student)
    data = load_data(options, student)
    check_fits(options.teacher, teacher, data, classifies=False)
    check_fits(options.student, student, data)
    cache = None if options.cache is None else _finished(options, teacher)
    settings = {
        "teacher": sum_of_file(options.teacher),
        "student": sum_of_file(options.student),
        "dataset": sum_of_data(data),
        **{name: getattr(options, name) for name in _SAME},
        "cache": options.cache is not None and _rounding(cache),
    }
    if len(data.y_test) < 2:
        raise ValueError(f"{options.dataset} has fewer than two images to test on.")
    folder = Folder(options.out, settings)
    if (folder / _COMPARISON).exists():
        logger.info("%s is finished already.", folder.path)
    else:
        with folder.taken():
            _distil(options, folder, teacher, student, data, cache)
    print((folder / _TABLE).read_text(encoding="utf-8"))


def _distil(
    options: Options,
    folder: Folder,
    teacher: keras.Model,
    student: keras.Model,
    data: Arrays,
    cache: TeacherCache | None,
) -> None:
    from keras_lpd.cli.models import load_model
    from keras_lpd.report import compare

    distiller = _trained(options, folder, teacher, student, data, cache)
    path = folder.write(_STUDENT, student.save)
    logger.info("The student of epoch %d: %s", options.epochs, path)
    before = load_model(options.student)
    models = {"teacher": teacher, "student before": before, "distilled": distiller}
    layers = dict(zip(models, (options.teacher_layer, options.student_layer)))
    comparison = compare(
        models,
        (data.x_test, data.y_test),
        layers={name: layer for name, layer in layers.items() if layer is not None},
        k=min(10, len(data.y_test) - 1),
    )
    folder.write(_TABLE, lambda part: part.write_text(str(comparison), "utf-8"))
    text = comparison.to_json()
    folder.write(_COMPARISON, lambda part: part.write_text(text, "utf-8"))
    shutil.rmtree(folder / _BACKUP, ignore_errors=True)  # It has served its turn.


def _trained(
    options: Options,
    folder: Folder,
    teacher: keras.Model,
    student: keras.Model,
    data: Arrays,
    cache: TeacherCache | None,
) -> LPDistiller:
    import tensorflow as tf

    from keras_lpd import LPDistiller, TeacherCache
    from keras_lpd.callbacks import ChiefBackup
    from keras_lpd.cli.epochs import epochs_of, with_features

    source, x = teacher, data.x_train
    if options.cache is not None:
        source = cache
        if source is None:
            source = TeacherCache.build(
                teacher,
                tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train)),
                options.cache,
                layers=options.teacher_layer,
            )
        x = with_features(source, x)
    distiller = LPDistiller(
        source,
        student,
        gamma=options.gamma,
        k=options.k,
        teacher_layer=_teacher_layer(options, teacher),
        student_layer=options.student_layer,
        distillation_losses=None
        if options.distillation_losses == "none"
        else options.distillation_losses,
    )
    distiller.compile_by_default(options.learning_rate)
    backup = ChiefBackup(folder / _BACKUP, delete_checkpoint=False)
    distiller.fit(
        epochs_of(
            x,
            data.y_train,
            batch_size=options.batch_size,
            # `fit` looks at a batch even where no epoch is left.
            first=min(backup.initial_epoch, options.epochs - 1),
            last=options.epochs,
            seed=options.seed,
        ),
        epochs=options.epochs,
        steps_per_epoch=-(-len(data.y_train) // options.batch_size),
        validation_data=(data.x_test, data.y_test),
        validation_batch_size=256,
        callbacks=[*_logs(folder), backup],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return distiller


def _teacher_layer(options: Options, teacher: keras.Model) -> str:
    """The layer that is learned from, with a cache and without."""
    return options.teacher_layer or find_feature_layer(teacher)


def _finished(options: Options, teacher: keras.Model) -> TeacherCache | None:
    """The cache, if it is there already, whatever its features were turned into.

    Its samples are compared where it is attached.
    """
    from keras_lpd import TeacherCache

    try:
        cache = TeacherCache.open(options.cache, verify=False)  # `attach` looks closer.
    except FileNotFoundError:
        return None
    if not cache.mark.made_by(fingerprint(teacher)):
        raise ValueError(
            f"The teacher cache {options.cache} is of another teacher: its weights or "
            f"layers are not those of {options.teacher}. Choose another --cache, which "
            "is made then."
        )
    if (layer := _teacher_layer(options, teacher)) not in cache:
        raise ValueError(
            f"The teacher cache {options.cache} has {cache.kept}, not '{layer}'. "
            "Choose another --cache, which is made then, or --teacher-layer."
        )
    return cache


def _rounding(cache: TeacherCache | None) -> str:
    """What a cache makes of features, by which students differ."""
    if cache is None:
        return "float16"  # as it will be made
    dtype = cache[cache.layers[0]].dtype.name
    return " ".join(filter(None, [dtype, cache.mark.projection]))


def _logs(folder: Folder) -> list[keras.callbacks.Callback]:
    import keras

    if importlib.util.find_spec("tensorboard") is None:
        logger.info(
            "TensorBoard is not there, so there will be no logs for it: "
            "`pip install 'keras-lpd[tensorboard]'`."
        )
        return []
    return [keras.callbacks.TensorBoard(folder / "logs", write_graph=False)]
