"""Distilling on several machines, tried out on one.

    python -m keras_lpd.launch --workers 2 examples/multi_worker.py   # two processes
    python examples/multi_worker.py                                   # one

Both print the same accuracy, but for rounding: a sample's neighbours are sought in the
batch of all workers together. On a cluster, run this file on each machine, with its
TF_CONFIG and a folder that all of them see. Killed and started again, it goes on after
the last epoch that was whole.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from keras_lpd import LPDistiller
from keras_lpd.callbacks import ChiefBackup, is_chief
from keras_lpd.datasets import load_arrays
from keras_lpd.models import cnn_student, cnn_teacher

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
add = parser.add_argument
add("--dataset", default="digits", help="digits or fashion_mnist")
add("--epochs", type=int, default=10)
add("--batch", type=int, default=128, help="of all workers together")
add("--out", type=pathlib.Path, default=pathlib.Path("multi_worker"), help="a folder")
options = parser.parse_args()

# First of all: it has to find the other workers before anything else is computed.
several = "TF_CONFIG" in os.environ
strategy = (
    tf.distribute.MultiWorkerMirroredStrategy()
    if several
    else tf.distribute.get_strategy()
)
chief = is_chief(strategy)

# One seed for all: the same weights to begin with, the same order of the samples.
keras.utils.set_random_seed(0)
data = load_arrays(options.dataset)
shape = data.x_train.shape[1:]
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# The teacher is there beforehand, as a rule. Here the chief trains it, the others wait.
options.out.mkdir(parents=True, exist_ok=True)
file = options.out / "teacher.keras"
if chief and not file.exists():
    teacher = cnn_teacher(shape)
    teacher.compile("adam", loss)
    teacher.fit(data.x_train, data.y_train, batch_size=128, epochs=5, verbose=0)
    teacher.save(file.with_name("part.keras"))
    file.with_name("part.keras").replace(file)
while not file.exists():
    time.sleep(1)
teacher = keras.saving.load_model(file, compile=False)

with strategy.scope():
    keras.utils.set_random_seed(1)
    distiller = LPDistiller(teacher, cnn_student(shape))
    distiller.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])

distiller.fit(
    data.x_train,
    data.y_train,
    batch_size=options.batch,
    epochs=options.epochs,
    shuffle=False,  # so that it goes on in the same order, if it was killed
    callbacks=[ChiefBackup(options.out / "backup")],
    verbose=2 if chief else 0,
)
scores = distiller.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)
if chief:
    distiller.student.save(options.out / "student.keras")
    workers = strategy.num_replicas_in_sync
    print(f"test accuracy with {workers} worker(s): {scores['accuracy']:.2%}")
