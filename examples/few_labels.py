"""A student with 500 labels, trained on these alone and beside a teacher.

    python examples/few_labels.py               # Fashion-MNIST, five minutes on 2 cores
    python examples/few_labels.py --steps 300   # sooner, and less accurate
    python examples/few_labels.py --dataset digits --labels 100   # without a download

The teacher has seen all labels. The student has 500 of them, and the teacher's
neighbours among all images.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from keras_lpd import LPDistiller
from keras_lpd.datasets import load_arrays, mix_unlabelled
from keras_lpd.models import cnn_student, cnn_teacher

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
add = parser.add_argument
add("--dataset", default="fashion_mnist", help="fashion_mnist or digits")
add("--labels", type=int, default=500, help="how many the student has")
add("--steps", type=int, default=800, help="of each training")
options = parser.parse_args()

data, labels = load_arrays(options.dataset), options.labels
shape = data.x_train.shape[1:]
samples = tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train))
labelled, images = samples.take(labels), samples.map(lambda image, label: image)


def train(model: keras.Model, batches: tf.data.Dataset) -> keras.Model:
    """Trains it for so many steps, with a learning rate that falls to 0."""
    rate = keras.optimizers.schedules.CosineDecay(3e-3, options.steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(batches.repeat(), steps_per_epoch=options.steps, shuffle=False)
    return model


def accuracy(model: keras.Model) -> str:
    logits = model.predict(data.x_test, batch_size=500, verbose=0)
    return f"{(logits.argmax(axis=1) == data.y_test).mean():.2%}"


keras.utils.set_random_seed(0)
teacher = train(cnn_teacher(shape), samples.shuffle(len(samples)).batch(128))
alone = train(cnn_student(shape), labelled.shuffle(labels).batch(128))

student = cnn_student(shape)
distiller = LPDistiller(teacher, student, gamma=0.05)  # suits few labels
train(distiller, mix_unlabelled(labelled, images, ratio=1, batch_size=128))

print(f"Teacher, with {len(samples):,} labels: {accuracy(teacher)}")
print(f"Student, with {labels} labels: {accuracy(alone)}")
print(f"Student, with {labels} labels and the teacher: {accuracy(student)}")
