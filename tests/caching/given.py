"""A teacher, digits and students for the tests of caches.

Processes that tests start import it by name.
"""

import concurrent.futures
import functools
import multiprocessing

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LocalityPreserving, LPDistiller, TeacherCache
from keras_lpd.datasets import load_arrays
from keras_lpd.features import OUTPUTS
from tests.helpers import cross_entropy

layers = keras.layers

COUNT = 321
"""Of samples: the last batch of 32, or of 64, is of a single one."""

FEW = 64
"""On so many samples a teacher may run to be known, by each build."""

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["keras_lpd", "sklearn.datasets", "sklearn.decomposition"]
)


class Counted(layers.Layer):
    """Passes its input on; counts the samples that really come through."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.samples = 0
        self.tell = lambda: None

    def call(self, inputs):
        def count(batch):
            self.tell()
            self.samples += len(batch)
            return batch

        passed = tf.numpy_function(count, [inputs], inputs.dtype)
        passed.set_shape(inputs.shape)
        return passed


def seen_by(model):
    """How many samples a model with a `Counted` layer has run on."""
    return model.get_layer("counted").samples


@functools.cache
def digits(count=COUNT):
    """Images and labels, the first `count` of scikit-learn's digits."""
    data = load_arrays("digits")
    return data.x_train[:count], data.y_train[:count]


def dataset(x=None, y=None):
    """The digits (or other arrays) as single samples."""
    x = digits()[0] if x is None else x
    y = digits()[1][: len(x)] if y is None else y
    return tf.data.Dataset.from_tensor_slices((x, y))


def uncounted(data):
    """The same samples, without telling how many there are."""
    return data.filter(lambda *element: True)


def quick_teacher(seed=0):
    """An untrained teacher for the digits, the same one in each process."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Counted(name="counted"),
            layers.Flatten(),
            layers.Dense(24, activation="relu", name="features"),
            layers.Dropout(0.5),
            layers.Dense(10, name="logits"),
        ],
        name="teacher",
    )


def flat_model(width):
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(width, activation="relu", name="features"),
            layers.Dense(10),
        ]
    )


def features_of(teacher, x, layer="features"):
    """The oracle: Keras runs the layers up to that one."""
    model = teacher
    *around, name = layer.split("/")
    for outer in around:
        x = keras.Model(model.inputs, model.get_layer(outer).input).predict(
            x, verbose=0
        )
        model = model.get_layer(outer)
    output = model.get_layer(name).output
    return keras.Model(model.inputs, output).predict(x, batch_size=48, verbose=0)


def contents(cache):
    """All that a cache keeps, as arrays in memory."""
    names = [*cache.layers, *([OUTPUTS] if cache.outputs else [])]
    return [np.array(cache[name]) for name in names]


def handed_out(data):
    """All that a data set gives, as a list of arrays."""
    return tf.nest.flatten(list(data.as_numpy_iterator()))


def nothing_opens(path):
    with pytest.raises(FileNotFoundError, match="no teacher cache"):
        TeacherCache.open(path)
    return True


def plain_student():
    """One that is quickly made, without dropout."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(6, activation="relu", name="features"),
            layers.Dense(10),
        ]
    )


def train_plainly(teacher, batches, **kwargs):
    """An epoch of a plain student, where it does not matter which; its weights."""
    student = plain_student()
    distiller = LPDistiller(teacher, student, **kwargs)
    distiller.compile("adam", cross_entropy())
    distiller.fit(batches, verbose=0)
    return student.get_weights()


def logits_too():
    return [LocalityPreserving(), keras.distillation.LogitsDistillation()]


def in_fresh_process(function, *args):
    """What the function gives there; what it raises is raised here."""
    with concurrent.futures.ProcessPoolExecutor(1, PROCESSES) as pool:
        return pool.submit(function, *args).result()


# The same data, trained on in one way or another


def in_order(data):
    return data.batch(32)


def shuffled(data):
    keras.utils.set_random_seed(3)  # It has a part in the order.
    return data.shuffle(COUNT, seed=3).batch(32)


# Views of the images


def noisy(image, seed):
    noise = tf.random.stateless_normal(tf.shape(image), seed, stddev=0.2)
    return tf.image.stateless_random_flip_left_right(image, seed) + noise


def other_noise(image, seed):
    return noisy(image, seed) + 0.01


# Other data than the digits


def altered(x, at=300):
    x = x.copy()
    x[at, 4, 4, 0] += 0.01
    return x


def swapped(x, at=3):
    x = x.copy()
    x[[at, 300]] = x[[300, at]]
    return x


OTHERS = {
    "altered": (lambda x: dataset(altered(x)), "the data differ.*sample 300"),
    "swapped": (lambda x: dataset(swapped(x)), "the order differs.*sample 3"),
    "reversed": (lambda x: dataset(x[::-1]), "the order differs.*sample 0"),
    "shuffled": (lambda x: dataset().shuffle(COUNT, seed=0), "the order differs"),
    "doubled sample": (
        lambda x: dataset(np.concatenate([x[:9], x[8:-1]])),
        "the order differs.*sample 9",
    ),
    "fewer": (lambda x: dataset().take(300), "count differs.*321.*300"),
    "more": (lambda x: dataset().concatenate(dataset().take(1)), "count.*321.*322"),
    "repeated": (lambda x: dataset().repeat(2), "count differs.*321.*642"),
    "endless": (lambda x: dataset().repeat(), "no end"),
    "fewer, uncounted": (lambda x: uncounted(dataset().take(256)), "count.*321.*256"),
    "one less, uncounted": (
        lambda x: uncounted(dataset().take(320)),
        "count differs.*321.*320",
    ),
    "more, uncounted": (
        lambda x: uncounted(dataset().concatenate(dataset().take(1))),
        "count differs.*321.*more",
    ),
    "none": (lambda x: dataset().take(0), "empty"),
    "none, uncounted": (lambda x: uncounted(dataset()).take(0), "count differs|empty"),
    "doubles": (lambda x: dataset(x.astype("float64")), "dtype or shape.*float64"),
    "flat": (lambda x: dataset(x.reshape(-1, 64)), "dtype or shape differs.*64"),
    "batched": (lambda x: dataset().batch(32), "dtype or shape.*look like batches"),
    "dicts": (
        lambda x: dataset().map(lambda x, y: ({"a": x, "b": x}, y)),
        "dtype or shape differs",
    ),
}
