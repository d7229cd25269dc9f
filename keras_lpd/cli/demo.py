"""`keras-lpd demo`: all of it on handwritten digits, in about a minute."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING, Any

from keras_lpd.cli.arguments import Options, add_command, natural, positive

if TYPE_CHECKING:
    import keras

    from keras_lpd.datasets import Arrays

_SHAPE = (8, 8, 1)


def add_to(commands: Any) -> None:
    command = add_command(
        commands,
        "demo",
        run,
        help="see it work, on handwritten digits, in about a minute",
        description="Trains a teacher on scikit-learn's handwritten digits, then one "
        "and the same student alone and distilled, and prints how they compare. One "
        "seed is no proof: `examples/quickstart.py` trains five.",
        example="keras-lpd demo --out demo",
        kept=lambda options: "nothing was written; start again",
    )
    add = command.add_argument
    add(
        "--out",
        metavar="DIR",
        help="keep teacher.keras and student.keras, which is not trained yet, there; "
        "`keras-lpd distill` takes them (default: nothing is kept)",
    )
    add(
        "--epochs",
        type=positive,
        default=30,
        metavar="N",
        help="of the students, and a third more of the teacher (default: 30)",
    )
    add("--seed", type=natural, default=0, metavar="N", help="default: 0")


def run(options: Options) -> None:
    from keras_lpd import LPDistiller
    from keras_lpd.datasets import load_arrays
    from keras_lpd.models import cnn_student, cnn_teacher
    from keras_lpd.report import compare

    data = load_arrays("digits")
    out = None if options.out is None else _free(options.out)

    teacher = _seeded(cnn_teacher, 0)
    _train(teacher, data, -(-4 * options.epochs // 3), 128, 1e-3, "The teacher")

    alone = _seeded(cnn_student, options.seed)
    _train(alone, data, options.epochs, 64, 3e-3, "The student alone")

    distiller = LPDistiller(teacher, _seeded(cnn_student, options.seed))
    _train(distiller, data, options.epochs, 64, 3e-3, "The student distilled")

    models = {"teacher": teacher, "student alone": alone, "distilled": distiller}
    print(compare(models, (data.x_test, data.y_test)))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        teacher.save(out / "teacher.keras")
        _seeded(cnn_student, options.seed).save(out / "student.keras")
        print(
            f"\nNext: keras-lpd distill --teacher {out / 'teacher.keras'} --student "
            f"{out / 'student.keras'} --dataset digits --out {out / 'distilled'}"
        )


def _free(path: str) -> pathlib.Path:
    out = pathlib.Path(path)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already. Choose another --out.")
    return out


def _seeded(make: Any, seed: int) -> keras.Model:
    import keras

    keras.utils.set_random_seed(seed)
    return make(_SHAPE)


def _train(
    model: keras.Model, data: Arrays, epochs: int, batch: int, rate: float, title: str
) -> None:
    """The same recipe for all: Adam, its rate falling along a cosine, no choosing."""
    import keras

    steps = -(-len(data.x_train) // batch) * epochs
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    print(f"{title}: {epochs} epochs")
    bar = keras.utils.Progbar(epochs, unit_name="epoch", verbose=sys.stdout.isatty())
    shown = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: bar.update(epoch + 1)
    )
    model.fit(data.x_train, data.y_train, batch, epochs, verbose=0, callbacks=[shown])
