"""A student that is watched while it learns: which neighbours of the teacher it keeps.

    pip install ".[examples,tensorboard]"
    python examples/neighborhoods.py                    # some minutes on 2 cores
    python examples/neighborhoods.py --dataset digits   # without a download
    tensorboard --logdir logs                # then open the tab "Neighborhoods"

Two students are trained on 5,000 images of Fashion-MNIST, one with its teacher's
neighbourhoods and one without; both are shown beside each other.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from keras_lpd import LPDistiller
from keras_lpd.callbacks import EmbeddingProjector, NeighborhoodMetrics
from keras_lpd.datasets import load_arrays
from keras_lpd.models import cnn_student, cnn_teacher

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
add = parser.add_argument
add("--dataset", default="fashion_mnist", help="fashion_mnist or digits")
add("--logs", default="logs", help="folder for TensorBoard")
add("--epochs", type=int, default=20, help="of each student")
options = parser.parse_args()

data = load_arrays(options.dataset)
shape, few = data.x_train.shape[1:], slice(5000)
test = data.x_test, data.y_test

keras.utils.set_random_seed(0)
teacher = cnn_teacher(shape)


def watched(run: str) -> list[keras.callbacks.Callback]:
    """The callbacks of a training: the metrics first, for TensorBoard to log them."""
    logs, names = f"{options.logs}/{run}", data.class_names
    return [
        NeighborhoodMetrics(test, teacher=teacher),
        keras.callbacks.TensorBoard(logs),
        EmbeddingProjector(logs, test, every=2, class_names=names, teacher=teacher),
    ]


# Before anything is trained: what they need and don't find they say here.
callbacks = {run: watched(run) for run in ("alone", "distilled")}

loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(data.x_train, data.y_train, batch_size=128, epochs=3)

for run, watching in callbacks.items():
    keras.utils.set_random_seed(1)
    student = cnn_student(shape)
    model = LPDistiller(teacher, student) if run == "distilled" else student
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(
        data.x_train[few],
        data.y_train[few],
        batch_size=64,
        epochs=options.epochs,
        validation_data=test,
        callbacks=watching,
        verbose=2,
    )
print(f"Now: tensorboard --logdir {options.logs}")
