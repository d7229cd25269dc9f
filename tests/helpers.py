"""What test files of several folders share."""

import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np

layers = keras.layers

ROOT = pathlib.Path(__file__).parents[1]


def three_classes():
    """Three classes of 8-wide vectors, a little apart: (x, y)."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 96)
    centers = 1.5 * random.normal(size=(3, 8))
    x = centers[y] + random.normal(size=(96, 8))
    return x.astype("float32"), y


def make_teacher(name="teacher", seed=0, shape=(8,), classes=3):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(40, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(24, activation="relu", name="features"),
            layers.Dropout(0.5),
            layers.Dense(classes, name="logits"),
        ],
        name=name,
    )


def make_student(
    name="student",
    seed=1,
    shape=(8,),
    classes=3,
    activation=None,
    activity_regularizer="l2",
):
    """A student with all that makes a training step depend on its order."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(12, kernel_regularizer=keras.regularizers.L2(1e-3)),
            layers.BatchNormalization(),
            layers.Activation("relu", activity_regularizer=activity_regularizer),
            layers.Dropout(0.3),
            layers.Dense(6, activation="relu", name="features"),
            layers.Dropout(0.1),
            layers.Dense(classes, activation=activation, name="logits"),
        ],
        name=name,
    )


def cross_entropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def same(one, other):
    """Whether two lists of arrays are equal to the bit."""
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def fresh_process(code, *arguments):
    """What Python code prints in a process of its own, which has to end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
