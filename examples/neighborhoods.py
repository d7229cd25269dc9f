"""A student that is watched while it learns: which neighbours of the teacher it keeps.

    python examples/neighborhoods.py         # Fashion-MNIST, some minutes on 2 cores
    tensorboard --logdir logs                # then open the tab "Neighborhoods"

Two students are trained on 5,000 images, one with its teacher's neighbourhoods and one
without; both are shown beside each other. Without Fashion-MNIST, the digits do.
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
parser.add_argument("--logs", default="logs", help="folder for TensorBoard")
parser.add_argument("--epochs", type=int, default=20, help="of each student")
options = parser.parse_args()

try:
    data = load_arrays("fashion_mnist")
    names = ["T-shirt", "trouser", "pullover", "dress", "coat"]
    names += ["sandal", "shirt", "sneaker", "bag", "boot"]
except (ImportError, RuntimeError) as error:
    print(f"Taking the digits, as there is no Fashion-MNIST: {error}")
    data = load_arrays("digits")
    names = [f"digit {i}" for i in range(10)]
shape, few = data.x_train.shape[1:], slice(5000)
test = data.x_test, data.y_test

keras.utils.set_random_seed(0)
teacher = cnn_teacher(shape)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(data.x_train, data.y_train, batch_size=128, epochs=3)


def watched(run: str) -> list[keras.callbacks.Callback]:
    """The callbacks of a training: the metrics first, for TensorBoard to log them."""
    return [
        NeighborhoodMetrics(test, teacher=teacher),
        keras.callbacks.TensorBoard(f"{options.logs}/{run}"),
        EmbeddingProjector(
            f"{options.logs}/{run}", test, every=2, class_names=names, teacher=teacher
        ),
    ]


for run in ("alone", "distilled"):
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
        callbacks=watched(run),
        verbose=2,
    )
print(f"Now: tensorboard --logdir {options.logs}")
