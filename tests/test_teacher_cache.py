"""`TeacherCache`, and `LPDistiller` trained on what it keeps."""

import concurrent.futures
import contextlib
import errno
import functools
import json
import multiprocessing
import os
import pathlib
import pickle
import resource
import shutil
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import (
    LocalityPreserving,
    LPDistiller,
    TeacherCache,
    locality_preserving_loss,
)
from keras_lpd.caching import building, row_files
from keras_lpd.datasets import load_arrays
from keras_lpd.features import OUTPUTS
from tests.distiller.conftest import cross_entropy, make_student, same
from tests.subclassed import TwoLayers, body_and_head

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


@pytest.fixture(scope="module")
def teacher():
    """A convolutional network that tells most digits apart; counts its samples."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Counted(name="counted"),
            keras.Sequential(
                [
                    keras.Input((8, 8, 1)),
                    layers.Conv2D(8, 3, padding="same", activation="relu", name="conv"),
                    layers.MaxPooling2D(),
                    layers.Conv2D(16, 3, padding="same", activation="relu"),
                    layers.MaxPooling2D(),
                ],
                name="body",
            ),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="features"),
            layers.Dropout(0.3),
            layers.Dense(10, name="logits"),
        ],
        name="teacher",
    )
    model.compile(keras.optimizers.Adam(3e-3), cross_entropy(), metrics=["accuracy"])
    history = model.fit(*digits(None), epochs=10, batch_size=64, verbose=0).history
    assert history["accuracy"][-1] > 0.8
    return model


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds a cache of the digits in a folder of its own, without a word."""
    folder = tmp_path_factory.mktemp("caches")
    numbers = iter(range(1000))

    def build(teacher, data=None, path=None, **kwargs):
        data = dataset() if data is None else data
        path = folder / str(next(numbers)) if path is None else path
        return TeacherCache.build(teacher, data, path, verbose=0, **kwargs)

    return build


@pytest.fixture(scope="module")
def whole(build, teacher):
    """Features and outputs in float32, the last batch being of a single sample."""
    return build(teacher, outputs=True, dtype="float32", batch_size=64)


@pytest.fixture
def own(whole, tmp_path):
    """A copy of that cache, to be damaged."""
    return TeacherCache.open(shutil.copytree(whole.path, tmp_path / "own"))


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


@pytest.fixture(scope="module")
def exact(teacher):
    """Of the digits, what the teacher's layers give."""
    x, _ = digits()
    names = ("body/conv", "features", "logits")
    return {layer: features_of(teacher, x, layer) for layer in names}


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


def train(teacher, batches, losses=None):
    """A student with dropout and all: its weights after two epochs, its history."""
    student = make_student(shape=(8, 8, 1), classes=10)
    distiller = LPDistiller(teacher, student, distillation_losses=losses)
    keras.utils.set_random_seed(5)
    distiller.compile("adam", cross_entropy())
    history = distiller.fit(batches, epochs=2, verbose=0).history
    return student.get_weights(), history


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


def first_loss(student, features):
    """The locality preserving loss of the first 32 digits, before any training."""
    x, _ = digits()
    return float(locality_preserving_loss(features[:32], features_of(student, x[:32])))


def logits_too():
    return [LocalityPreserving(), keras.distillation.LogitsDistillation()]


def in_fresh_process(function, *args):
    """What the function gives there; what it raises is raised here."""
    with concurrent.futures.ProcessPoolExecutor(1, PROCESSES) as pool:
        return pool.submit(function, *args).result()


# Training on a cache


def in_order(data):
    return data.batch(32)


def shuffled(data):
    keras.utils.set_random_seed(3)  # It has a part in the order.
    return data.shuffle(COUNT, seed=3).batch(32)


def in_other_batches(data):
    keras.utils.set_random_seed(3)
    return data.shuffle(100, seed=3).batch(37).prefetch(1)


@pytest.mark.parametrize(
    ("given", "feed", "losses"),
    [
        ("cache", in_order, lambda: None),
        ("teacher", shuffled, lambda: None),
        ("cache", in_other_batches, logits_too),
    ],
    ids=["in order", "shuffled", "with logits"],
)
def test_the_student_is_the_one_of_online_distillation(
    teacher, whole, given, feed, losses
):
    """Its weights to the bit, and the teacher is not run."""
    before = seen_by(teacher)
    online, history = train(teacher, feed(dataset()), losses=losses())
    assert seen_by(teacher) == before + 2 * COUNT

    source = whole if given == "cache" else teacher
    attached = feed(whole.attach(dataset()))
    cached, cached_history = train(source, attached, losses=losses())
    assert seen_by(teacher) == before + 2 * COUNT
    assert same(online, cached)
    assert history == cached_history


@pytest.mark.parametrize("batch_size", [7, 100])
def test_the_batches_of_the_build_do_not_matter(build, teacher, whole, batch_size):
    other = build(teacher, outputs=True, dtype="float32", batch_size=batch_size)
    assert same(contents(whole), contents(other))


def train_from_the_cache(path):
    cache = TeacherCache.open(path)
    return train(cache, shuffled(cache.attach(dataset())))


def test_a_fresh_process_needs_the_cache_alone(teacher, whole):
    weights, history = in_fresh_process(train_from_the_cache, whole.path)
    online, online_history = train(teacher, shuffled(dataset()))
    assert same(online, weights)
    assert online_history == history


def test_half_precision_hardly_changes_the_loss(build, teacher):
    cache = build(teacher, outputs=True)
    assert cache["features"].dtype == np.float16
    values = []
    for source, data in ((teacher, dataset()), (cache, cache.attach(dataset()))):
        student = make_student(shape=(8, 8, 1), classes=10)
        distiller = LPDistiller(source, student, distillation_losses=logits_too())
        distiller.compile(keras.optimizers.SGD(0.0), cross_entropy())
        for x, y in data.batch(64, drop_remainder=True):
            logs = distiller.train_on_batch(x, y, return_dict=True)
            values.append((logs["lp_loss"], logs["logits_distillation_loss"]))
            distiller.reset_metrics()
    online, cached = np.array(values).reshape(2, -1, 2)
    assert (online > 1).all() and not np.array_equal(online, cached)
    # Where two are equally near, either may be the neighbour now: not in many batches.
    assert (np.median(np.abs(cached / online - 1), axis=0) < 1e-3).all()
    np.testing.assert_allclose(cached, online, rtol=0.05)


def test_evaluate_predict_and_validation_take_attached_data(teacher, whole):
    x, y = digits()
    student = make_student(shape=(8, 8, 1), classes=10)
    distiller = LPDistiller(whole, student)
    distiller.compile("adam", cross_entropy(), metrics=["accuracy"])
    attached = in_order(whole.attach(dataset()))
    history = distiller.fit(attached, validation_data=attached, verbose=0).history
    student.compile("adam", cross_entropy(), metrics=["accuracy"])
    alone = student.evaluate(x, y, verbose=0, return_dict=True)
    ours = distiller.evaluate(attached, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        assert ours[name] == pytest.approx(alone[name], rel=1e-5)
        assert history[f"val_{name}"][0] == pytest.approx(alone[name], rel=1e-5)
    np.testing.assert_allclose(
        distiller.predict(attached, verbose=0),
        student.predict(x, verbose=0),
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_saved_distiller_goes_on_with_the_cache(tmp_path, teacher, whole):
    student = make_student(shape=(8, 8, 1), classes=10)
    distiller = LPDistiller(whole, student, gamma=0.5)
    distiller.compile("adam", cross_entropy())
    attached = in_order(whole.attach(dataset()))
    distiller.fit(attached, verbose=0)
    distiller.save(tmp_path / "distiller.keras")

    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.teacher is None
    with pytest.raises(ValueError, match="set_teacher"):
        loaded.fit(attached, verbose=0)
    loaded.set_teacher(TeacherCache.open(whole.path))
    after = [
        model.fit(attached, verbose=0).history["lp_loss"]
        for model in (distiller, loaded)
    ]
    assert after[0] == after[1]
    assert same(student.get_weights(), loaded.student.get_weights())


def test_a_cache_can_take_the_teachers_place_and_give_it_back(teacher, whole):
    distiller = LPDistiller(teacher, plain_student())
    assert distiller.teacher_layer == "features"
    distiller.fit(in_order(dataset()), verbose=0)
    distiller.set_teacher(whole)
    assert distiller.teacher is whole and distiller.teacher_layer == "features"
    before = seen_by(teacher)
    distiller.fit(in_order(whole.attach(dataset())), verbose=0)
    assert seen_by(teacher) == before
    distiller.set_teacher(teacher)
    distiller.fit(in_order(dataset()), verbose=0)
    assert seen_by(teacher) == before + COUNT


def test_mixed_precision(teacher, whole):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        online, cached = plain_student(), plain_student()
        distillers = [LPDistiller(teacher, online), LPDistiller(whole, cached)]
    finally:
        keras.config.set_dtype_policy("float32")
    for distiller, data in zip(distillers, (dataset(), whole.attach(dataset()))):
        keras.utils.set_random_seed(5)
        distiller.compile("adam", cross_entropy())
        distiller.fit(in_order(data), verbose=0)
    assert same(online.get_weights(), cached.get_weights())


def test_xla(whole):
    distiller = LPDistiller(whole, plain_student())
    expected = first_loss(distiller.student, whole["features"])
    distiller.compile("adam", cross_entropy(), jit_compile=True)
    history = distiller.fit(in_order(whole.attach(dataset())).take(1), verbose=0)
    assert history.history["lp_loss"][0] == pytest.approx(expected, rel=1e-3)


# Data and teachers of other kinds


def two_halves(width):
    halves = {name: keras.Input((32,), name=name) for name in ("upper", "lower")}
    joined = layers.Concatenate()([halves["upper"], halves["lower"]])
    hidden = layers.Dense(width, activation="relu", name="features")(joined)
    return keras.Model(halves, layers.Dense(10)(hidden))


def flat_model(width):
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(width, activation="relu", name="features"),
            layers.Dense(10),
        ]
    )


def subclassed(width):
    model = TwoLayers(width, 10, "relu")
    model(np.zeros((1, 64), "float32"))
    return model


def as_pairs(flat, y):
    return flat, y


def weighted_dicts(flat, y):
    weights = np.linspace(0, 2, len(y)).astype("float32")
    return {"upper": flat[:, :32], "lower": flat[:, 32:]}, y, weights


def inputs_alone(flat, y):
    return flat


@pytest.mark.parametrize(
    ("make", "arrays", "functions"),
    [
        (two_halves, weighted_dicts, ()),
        (flat_model, inputs_alone, ()),
        (subclassed, as_pairs, ("teacher_features", "student_features")),
    ],
    ids=["dicts and weights", "inputs alone", "subclassed"],
)
def test_data_and_models_of_other_kinds(build, make, arrays, functions):
    """Caches of them train the student that online distillation does."""
    x, y = digits(320)
    data = tf.data.Dataset.from_tensor_slices(arrays(x.reshape(-1, 64), y))
    functions = {name: body_and_head for name in functions}
    teacher_features = functions.get("teacher_features")
    keras.utils.set_random_seed(0)
    teacher = make(20)
    cache = build(
        teacher,
        data,
        outputs=True,
        dtype="float32",
        teacher_features=teacher_features,
    )
    weights = []
    for source, samples in ((teacher, data), (cache, cache.attach(data))):
        keras.utils.set_random_seed(1)
        student = make(6)
        distiller = LPDistiller(
            source, student, distillation_losses=logits_too(), **functions
        )
        distiller.compile("adam", cross_entropy())
        distiller.fit(samples.shuffle(320, seed=1).batch(32), verbose=0)
        weights.append(student.get_weights())
    assert same(*weights)


def test_labels_may_be_of_any_size(build):
    """Only the inputs concern the teacher: boxes in an image have no part in it."""
    x, _ = digits(40)

    def boxes():
        for index, image in enumerate(x):
            yield image, np.full((index % 3, 4), index)

    data = tf.data.Dataset.from_generator(
        boxes,
        output_signature=(
            tf.TensorSpec((8, 8, 1), tf.float32),
            tf.TensorSpec((None, 4), tf.int64),
        ),
    )
    teacher = quick_teacher()
    cache = build(teacher, data, dtype="float32", batch_size=16)
    given = list(cache.attach(data))
    assert [len(label) for _, label in given] == [index % 3 for index in range(40)]


def test_labels_may_change(whole):
    x, y = digits()
    before, after = whole.attach(dataset()), whole.attach(dataset(x, (y + 1) % 10))
    for (one, label), (other, changed) in zip(before, after):
        assert changed == (label + 1) % 10
        assert same(tf.nest.flatten(one), tf.nest.flatten(other))


# What is kept


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_arrays_are_what_the_layers_give(build, teacher, exact, dtype):
    names = ["body/conv", "features"]
    cache = build(teacher, layers=names, outputs=True, dtype=dtype, batch_size=50)
    for layer in (*names, "logits"):
        kept = cache[OUTPUTS if layer == "logits" else layer]
        expected = exact[layer]
        assert kept.dtype == dtype and kept.shape == expected.shape
        rounding = 1e-5 if dtype == "float32" else 1e-3
        np.testing.assert_allclose(kept, expected, rtol=rounding, atol=rounding)
        assert isinstance(kept, np.memmap) and not kept.flags.writeable


def test_a_cache_describes_itself(build, teacher):
    cache = build(teacher, layers=["body/conv", "features"], outputs=True)
    assert len(cache) == cache.count == COUNT and cache.views == 1
    assert cache.layers == ["body/conv", "features"] and cache.outputs
    assert cache.shape("body/conv") == (8, 8, 8) and cache.shape(OUTPUTS) == (10,)
    assert "features" in cache and "logits" not in cache
    files = list(cache.path.iterdir())
    assert cache.nbytes == sum(file.stat().st_size for file in files)
    features = COUNT * (8 * 8 * 8 + 32 + 10) * 2
    assert features < cache.nbytes < features + 16 * COUNT + 10_000
    for word in ("321 samples", "'body/conv'", "'features'", "outputs"):
        assert word in repr(cache)
    with pytest.raises(KeyError, match="'logits'"):
        cache["logits"]


def test_a_build_leaves_the_cache_alone_in_its_folder(teacher, build, tmp_path):
    (tmp_path / "cache").mkdir()  # Empty: as good as none.
    build(teacher, path=tmp_path / "cache")
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]
    suffixes = {file.suffix for file in (tmp_path / "cache").iterdir()}
    assert suffixes == {".npy", ".json"}


def test_a_cache_may_be_moved(whole, teacher, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "elsewhere" / "with spaces")
    moved = TeacherCache.open(path)
    assert same(contents(whole), contents(moved))
    assert same(
        handed_out(whole.attach(dataset())), handed_out(moved.attach(dataset()))
    )


def test_features_follow_their_samples(whole, exact):
    x, _ = digits()
    expected = exact["features"]
    data = dataset(x, np.arange(COUNT))
    attached = whole.attach(data)
    assert len(attached) == COUNT
    changed = (
        attached.map(lambda x, y: ({**x, "inputs": 2 * x["inputs"]}, y))
        .repeat(2)
        .shuffle(200, seed=1)
        .batch(10)
        .filter(lambda x, y: y[0] > 20)
        .unbatch()
        .batch(6)
    )
    seen = []
    for x_batch, places in changed.as_numpy_iterator():
        (features,) = (x_batch[key] for key in x_batch if key != "inputs")
        assert np.array_equal(x_batch["inputs"], 2 * x[places])
        np.testing.assert_allclose(
            features["features"], expected[places], rtol=1e-5, atol=1e-5
        )
        seen += list(places)
    assert len(set(seen)) > 250 and seen != sorted(seen)


def test_attached_data_may_be_saved_and_cached(tmp_path, whole):
    attached = whole.attach(dataset())
    attached.save(str(tmp_path / "saved"))
    loaded = tf.data.Dataset.load(str(tmp_path / "saved"))
    for data in (loaded, attached.cache()):
        assert data.element_spec == attached.element_spec
        assert same(handed_out(attached), handed_out(data))


# Views


def noisy(image, seed):
    noise = tf.random.stateless_normal(tf.shape(image), seed, stddev=0.2)
    return tf.image.stateless_random_flip_left_right(image, seed) + noise


def other_noise(image, seed):
    return noisy(image, seed) + 0.01


@pytest.fixture(scope="module")
def views(build, teacher):
    """Three views of each of the first 70 digits."""
    return build(
        teacher,
        dataset(*digits(70)),
        augment=noisy,
        views=3,
        seed=10,
        dtype="float32",
        batch_size=32,
    )


def test_the_student_sees_the_views_that_the_teacher_saw(teacher, views):
    x, y = digits(70)
    attached = views.attach(dataset(x, y), augment=noisy)
    assert len(attached) == 210 and len(views) == 70 and views.views == 3
    assert "3 views" in repr(views)
    passes = []
    for data in (attached, attached.batch(9).unbatch()):
        elements, labels = zip(*data.as_numpy_iterator())
        assert np.array_equal(labels, np.tile(y, 3))
        inputs = np.stack([element["inputs"] for element in elements])
        key = next(key for key in elements[0] if key != "inputs")
        features = np.stack([element[key]["features"] for element in elements])
        passes.append((inputs, features))
    assert same(*passes)
    np.testing.assert_allclose(
        features, features_of(teacher, inputs), rtol=1e-5, atol=1e-5
    )
    first, second, third = np.split(inputs, 3)
    for one, other in ((first, x), (first, second), (second, third), (first, third)):
        assert (np.abs(one - other).max(axis=(1, 2, 3)) > 0.1).all()

    # Online distillation on the very same samples makes the same student.
    online = train_plainly(teacher, shuffled(dataset(inputs, np.array(labels))))
    assert same(online, train_plainly(views, shuffled(attached)))


def test_another_seed_gives_other_views(build, teacher, views):
    """Each of them, also where the seeds are neighbours."""
    data = dataset(*digits(70))
    other = build(teacher, data, augment=noisy, views=3, seed=11, dtype="float32")
    for theirs in np.split(other["features"], 3):
        for ours in np.split(views["features"], 3):
            assert (np.abs(ours - theirs).max(axis=1) > 1e-3).all()


def test_another_augmentation_is_refused(whole, views):
    data = dataset(*digits(70))
    with pytest.raises(ValueError, match="augmentation differs"):
        views.attach(data, augment=other_noise)
    with pytest.raises(ValueError, match="built with `augment`"):
        views.attach(data)
    with pytest.raises(ValueError, match="built without `augment`"):
        whole.attach(dataset(), augment=noisy)
    with pytest.raises(ValueError, match="count differs"):
        views.attach(dataset(*digits(69)), augment=noisy)
    with pytest.raises(ValueError, match="data differ"):
        views.attach(dataset(digits(70)[0] + 1), augment=noisy)
    unseen = views.attach(data, augment=other_noise, verify=False)
    with pytest.raises(ValueError, match="not the samples"):
        train_plainly(views, in_order(unseen))


def test_an_augmentation_must_follow_its_seed(build, teacher):
    def unseeded(image, seed):
        return image + tf.random.normal(tf.shape(image))

    with pytest.raises(ValueError, match="`augment` gives something else each time"):
        build(teacher, augment=unseeded)
    with pytest.raises(ValueError, match="needs `augment`"):
        build(teacher, views=2)
    with pytest.raises(ValueError, match="`views` must be"):
        build(teacher, views=0, augment=noisy)
    with pytest.raises(ValueError, match="`seed` must be"):
        build(teacher, seed=-1, augment=noisy)


# Projections


def distances(features):
    rows = np.asarray(features, "float64").reshape(len(features), -1)
    return np.sqrt(np.square(rows[:, None] - rows).sum(axis=2))


def median_error(kept, exact):
    """Of the distances between samples, up to a common scale."""
    off_diagonal = ~np.eye(len(exact), dtype=bool)
    ratio = distances(kept)[off_diagonal] / distances(exact)[off_diagonal]
    return np.median(np.abs(ratio / np.median(ratio) - 1))


@pytest.mark.parametrize("projection", ["pca", "gaussian"])
def test_projections_keep_distances(build, teacher, exact, projection):
    outputs, exact = exact["logits"], exact["body/conv"].reshape(COUNT, -1)
    assert exact.shape[1] == 512
    cache = build(
        teacher,
        layers=["body/conv", "features"],
        outputs=True,
        project=24,
        projection=projection,
    )
    kept = cache["body/conv"]
    assert kept.shape == (COUNT, 24) == cache["features"][:, :24].shape
    assert cache[OUTPUTS].shape == (COUNT, 10)  # Outputs are as they were.
    np.testing.assert_allclose(cache[OUTPUTS], outputs, rtol=1e-3, atol=1e-3)
    error = median_error(kept, exact)
    assert error < 0.12
    # As many of the features would not do, let alone those of other samples.
    assert error < median_error(exact[:, :24], exact) / 2
    assert error < median_error(np.roll(kept, 1, axis=0), exact) / 2
    # Nor does the scale change, which absolute widths (`sigma`) depend on.
    ratio = distances(kept).sum() / distances(exact).sum()
    assert ratio == pytest.approx(1, abs=0.15)


def test_a_projected_cache_trains_nearly_as_the_whole_one(build, teacher, exact):
    cache = build(teacher, project=20)
    distiller = LPDistiller(cache, plain_student())
    expected = first_loss(distiller.student, exact["features"])
    history = distiller.fit(in_order(cache.attach(dataset())).take(1), verbose=0)
    assert history.history["lp_loss"][0] == pytest.approx(expected, rel=0.03)


def test_projections_that_make_no_sense_are_refused(build, teacher):
    for project in (32, 100):
        with pytest.raises(ValueError, match="width of the features, 32"):
            build(teacher, project=project)
    with pytest.raises(ValueError, match="`project` must be"):
        build(teacher, project=0)
    with pytest.raises(ValueError, match="`projection` must be"):
        build(teacher, project=8, projection="umap")
    with pytest.raises(ValueError, match="as many samples"):
        build(teacher, dataset(*digits(20)), project=24)


def test_pooling_is_refused_where_feature_maps_were_flattened(build, teacher):
    student = plain_student()
    layer = {"layers": "body/conv", "dtype": "float32"}
    maps, flat = build(teacher, **layer), build(teacher, project=8, **layer)
    with pytest.raises(ValueError, match="`pooling`.*flattened"):
        LPDistiller(flat, student, pooling="avg")
    online = LPDistiller(teacher, student, pooling="avg", teacher_layer="body/conv")
    with pytest.raises(ValueError, match="`pooling`.*flattened"):
        online.fit(in_order(flat.attach(dataset())), verbose=0)
    cached = LPDistiller(maps, student, pooling="avg")
    assert cached.teacher_layer == "body/conv"


# Other data, teachers and losses are refused


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


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_are_refused(whole, name):
    make, said = OTHERS[name]
    with pytest.raises(ValueError, match=said):
        whole.attach(make(digits()[0]))


def test_what_is_no_data_set_is_refused(build, teacher, whole):
    x, y = digits()
    for data in (x, (x, y), [dataset()], None):
        with pytest.raises(TypeError, match="must be a `tf.data.Dataset`"):
            whole.attach(data)
    with pytest.raises(TypeError, match="must be a `tf.data.Dataset`.*ndarray"):
        build(teacher, x)
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [2.0, 3.0]]))
    with pytest.raises(TypeError, match="dense tensors"):
        build(teacher, ragged)


@pytest.mark.parametrize(
    ("kept", "served"),
    [
        *((321, served) for served in (1, 256, 320, 322, 768)),
        *((512, served) for served in (256, 511, 513, 768)),
    ],
)
def test_another_count_is_found_while_training(build, kept, served):
    """Where nobody told how many there are, with nothing verified beforehand."""
    x, y = digits(768)
    flat = functools.partial(dataset, x.reshape(-1, 64), y)
    cache = counted_cache(build, kept)
    attached = cache.attach(uncounted(flat().take(served)), verify=False)
    said = "more or fewer|not the samples|another count|expected to contain"
    with pytest.raises(tf.errors.OpError, match=said):
        list(attached.batch(64))
    # `fit` takes no more batches than it knows there are.
    if (kept, served) in ((512, 256), (321, 322)):
        with pytest.raises(ValueError, match=said):
            LPDistiller(cache, flat_model(4)).fit(attached.batch(64), verbose=0)
    with pytest.raises(ValueError, match="count differs"):
        cache.attach(uncounted(flat().take(served)))


@functools.cache
def counted_cache(build, kept):
    x, y = digits(768)
    keras.utils.set_random_seed(0)
    return build(flat_model(16), dataset(x.reshape(-1, 64), y).take(kept))


def test_a_data_set_that_does_not_tell_its_count_is_as_good(build, teacher, whole):
    cache = build(teacher, uncounted(dataset()), outputs=True, dtype="float32")
    assert cache.count == COUNT
    assert same(contents(whole), contents(cache))
    expected = handed_out(whole.attach(dataset()))
    for data in (dataset(), uncounted(dataset())):
        for verify in (True, False):
            attached = cache.attach(data, verify=verify)
            assert len(attached) == COUNT
            assert same(expected, handed_out(attached))


def shortened(x):
    return x[:300]


@pytest.mark.parametrize("change", [swapped, shortened])
def test_data_that_change_between_epochs_are_found(whole, change):
    x, y = digits()
    served = [x]

    def samples():
        yield from zip(served[-1], y)

    data = tf.data.Dataset.from_generator(
        samples,
        output_signature=(
            tf.TensorSpec((8, 8, 1), tf.float32),
            tf.TensorSpec((), y.dtype),
        ),
    )
    attached = whole.attach(data, verify=False)
    epochs = []

    def after(epoch, logs):
        epochs.append(logs["lp_loss"])
        served.append(change(x))

    then = keras.callbacks.LambdaCallback(on_epoch_end=after)
    distiller = LPDistiller(whole, plain_student())
    with pytest.raises(ValueError, match="not the samples|more or fewer|another count"):
        distiller.fit(in_order(attached), epochs=3, verbose=0, callbacks=then)
    assert len(epochs) == 1 and epochs[0] > 0


def test_data_shuffled_anew_each_epoch_are_found(build, whole, teacher):
    anew = dataset().shuffle(COUNT)
    with pytest.raises(ValueError, match="order, each time"):
        build(teacher, anew)
    with pytest.raises(ValueError, match="not the samples"):
        train_plainly(whole, in_order(whole.attach(anew, verify=False)))


def test_another_teacher_is_refused(build, teacher, whole):
    attached = in_order(whole.attach(dataset()))
    other = keras.models.clone_model(teacher)
    with pytest.raises(ValueError, match="another teacher's.*weights"):
        train_plainly(other, attached)
    other.set_weights(teacher.get_weights())  # A copy is as good as the teacher.
    train_plainly(other, attached)
    kernel = other.get_layer("logits").kernel
    kernel.assign_add(np.eye(*kernel.shape) * 1e-6)
    with pytest.raises(ValueError, match="another teacher's.*weights"):
        train_plainly(other, attached)


def test_features_must_come_and_be_those_of_the_cache(build, teacher, whole):
    with pytest.raises(ValueError, match="without its features.*attach"):
        train_plainly(whole, in_order(dataset()))
    with pytest.raises(ValueError, match="without its features.*attach"):
        LPDistiller(whole, plain_student()).fit(*digits(), verbose=0)
    projected = build(teacher, project=8)
    other = build(teacher, project=8, projection="gaussian")
    foreign = build(quick_teacher())
    for mine, theirs in (
        (whole, foreign),
        (whole, projected),
        (projected, whole),
        (projected, other),
    ):
        with pytest.raises(ValueError, match="of another cache"):
            train_plainly(mine, in_order(theirs.attach(dataset())))


def test_a_refused_fit_can_be_mended(whole):
    distiller = LPDistiller(whole, plain_student())
    with pytest.raises(ValueError, match="without its features"):
        distiller.fit(in_order(dataset()), verbose=0)
    distiller.fit(in_order(whole.attach(dataset())), verbose=0)
    expected = train_plainly(whole, in_order(whole.attach(dataset())))
    assert same(distiller.student.get_weights(), expected)


def test_losses_that_ask_for_more_than_is_kept_are_refused(build, teacher):
    cache = build(teacher)
    student = plain_student()
    attached = in_order(cache.attach(dataset()))
    deeper = LocalityPreserving(teacher_layer_name="body/conv")
    for losses, said in ((logits_too(), "outputs.*`outputs=True`"), (deeper, "conv'")):
        with pytest.raises(ValueError, match=f"ask for.*{said}"):
            LPDistiller(cache, student, distillation_losses=losses)
        with pytest.raises(ValueError, match=f"ask for.*{said}"):
            train_plainly(teacher, attached, distillation_losses=losses)
    with pytest.raises(ValueError, match="ask for.*layer 'logits'"):
        LPDistiller(cache, student, teacher_layer="logits")

    several = build(teacher, layers=["body/conv", "features"])
    with pytest.raises(ValueError, match="'body/conv', 'features'.*`teacher_layer="):
        LPDistiller(several, student)
    LPDistiller(several, student, teacher_layer="features")

    outputs = build(teacher, layers=[], outputs=True)
    with pytest.raises(ValueError, match="`teacher_layer="):
        LPDistiller(outputs, student)
    logits = keras.distillation.LogitsDistillation()
    only = LPDistiller(outputs, student, gamma=None, distillation_losses=logits)
    only.fit(in_order(outputs.attach(dataset())), verbose=0)

    narrow = make_student(shape=(8, 8, 1), classes=7)
    with pytest.raises(ValueError, match="outputs of teacher and student"):
        LPDistiller(outputs, narrow, gamma=None, distillation_losses=logits)


# Builds that are refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"dtype": "float64"}, "`dtype` must be"),
        ({"layers": ["nowhere"]}, "no layer 'nowhere'"),
        ({"layers": []}, "nothing to keep"),
    ],
    ids=str,
)
def test_builds_that_can_not_be(build, tmp_path, arguments, said):
    with pytest.raises(ValueError, match=said):
        build(quick_teacher(), path=tmp_path / "cache", **arguments)
    assert not list(tmp_path.iterdir())


UNFIT = {
    "batched": (lambda: dataset().batch(32), "batches.*unbatch"),
    "endless": (lambda: dataset().repeat(), "no end"),
    "empty": (lambda: dataset().take(0), "empty"),
    "empty, uncounted": (lambda: uncounted(dataset()).take(0), "empty"),
    "another shape": (lambda: dataset(digits()[0][:, :5]), "don't fit teacher"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_data_to_build_from_that_can_not_be(build, tmp_path, name):
    make, said = UNFIT[name]
    with pytest.raises(ValueError, match=said):
        build(quick_teacher(), make(), tmp_path / "cache")
    assert not list(tmp_path.iterdir())


def scaled_teacher(scale=1.0, offset=0.0):
    """Its features are those of `quick_teacher`, scaled and shifted."""
    teacher = quick_teacher()
    layer = teacher.get_layer("features")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * scale, bias * scale + offset])
    return teacher


def test_half_precision_is_refused_where_it_would_not_do(build, tmp_path):
    cases = {
        "reaches.*float16 ends at.*float32": scaled_teacher(1e6),
        "float16 is too coarse.*float32": scaled_teacher(1e-2, 100.0),
        "too coarse": scaled_teacher(1e-9),
    }
    for said, teacher in cases.items():
        with pytest.raises(ValueError, match=said):
            build(teacher, path=tmp_path / "cache")
        assert nothing_opens(tmp_path / "cache")
        assert not list(tmp_path.iterdir())
        exact = build(teacher, dtype="float32")
        expected = features_of(teacher, digits()[0])
        np.testing.assert_allclose(exact["features"], expected, rtol=1e-4)


def test_half_precision_is_taken_for_ordinary_features(build):
    """Also where it makes another neighbour of one sample in the first batch."""
    teacher = quick_teacher()
    teacher.get_layer("features").activation = keras.activations.linear
    assert build(teacher, batch_size=32)["features"].dtype == np.float16


def test_half_precision_is_refused_also_late(build, tmp_path):
    x = digits()[0].copy()
    x[300] *= 1e7
    with pytest.raises(ValueError, match="float16 ends at"):
        build(quick_teacher(), dataset(x), tmp_path / "cache", batch_size=32)
    assert nothing_opens(tmp_path / "cache")


def test_features_that_are_no_numbers_are_refused(build, tmp_path):
    x = digits()[0].copy()
    x[300, 1, 1] = np.nan
    linear = quick_teacher()  # A ReLU would make 0 of it.
    linear.get_layer("features").activation = keras.activations.linear
    with pytest.raises(ValueError, match="NaN or infinite.*'features'"):
        build(linear, dataset(x), tmp_path / "cache", dtype="float32", batch_size=32)
    assert nothing_opens(tmp_path / "cache")

    broken = quick_teacher()
    broken.get_layer("logits").bias.assign([np.nan] * 10)
    with pytest.raises(ValueError, match="NaN or infinite.*weights"):
        build(broken, path=tmp_path / "cache")
    assert nothing_opens(tmp_path / "cache")


# Damaged files are refused


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_single_altered_byte_is_found(own):
    """Anywhere in the arrays, their headers included."""
    arrays = sorted(own.path.glob("*.npy"))
    assert len(arrays) == 3
    for file in arrays:
        size = file.stat().st_size
        for at in (0, 9, 30, 255, 256, size // 2, size - 1):
            flip(file, at)
            with pytest.raises(ValueError, match=f"{file.name} was altered"):
                TeacherCache.open(own.path)
            flip(file, at)
    assert same(contents(TeacherCache.open(own.path)), contents(own))


def test_an_altered_manifest_is_found(own):
    manifest = own.path / "manifest.json"
    known = json.loads(manifest.read_text())
    for at in range(manifest.stat().st_size):
        flip(manifest, at)
        try:  # The last digit of a number need not make it another.
            harmless = json.loads(manifest.read_text()) == known
        except ValueError:
            harmless = False
        if not harmless:
            with pytest.raises(ValueError, match=r"manifest\.json"):
                TeacherCache.open(own.path, verify=False)
        flip(manifest, at)
    TeacherCache.open(own.path)

    known.pop("checksum")
    row_files.write_sealed(manifest, {**known, "version": 99})
    with pytest.raises(ValueError, match="another version"):
        TeacherCache.open(own.path)


@pytest.mark.parametrize("verify", [True, False])
def test_files_cut_off_lengthened_or_missing_are_found(own, verify):
    for file in sorted(own.path.iterdir()):
        data = file.read_bytes()
        damages = [data[:-2], data[: len(data) // 2], data[:100], b""]
        if file.suffix == ".npy":
            damages.append(data + b"\0")
        for damage in damages:
            file.write_bytes(damage)
            with pytest.raises(ValueError, match=f"can't be used.*{file.name}"):
                TeacherCache.open(own.path, verify=verify)
        file.unlink()
        missing = ValueError if file.suffix == ".npy" else FileNotFoundError
        with pytest.raises(missing, match=r"missing|no teacher cache"):
            TeacherCache.open(own.path, verify=verify)
        file.write_bytes(data)
    TeacherCache.open(own.path, verify=verify)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("verify", [True, False])
def test_nothing_is_ever_unpickled(own, tmp_path, verify):
    sprung = tmp_path / "sprung"
    for file in sorted(own.path.iterdir()):
        data = file.read_bytes()
        with file.open("wb") as opened:
            trap = np.array([Trap(sprung)], dtype=object)
            np.save(opened, trap, allow_pickle=True)
            opened.write(bytes(max(0, len(data) - opened.tell())))
        with pytest.raises(ValueError, match=file.name):
            TeacherCache.open(own.path, verify=verify)
        file.write_bytes(pickle.dumps(Trap(sprung)))
        with pytest.raises(ValueError, match=file.name):
            TeacherCache.open(own.path, verify=verify)
        assert not sprung.exists()
        file.write_bytes(data)
    TeacherCache.open(own.path, verify=verify)

    pickle.loads(pickle.dumps(Trap(sprung)))  # The trap does work.
    assert sprung.exists()


def test_damage_after_opening_is_not_handed_on(own, whole):
    """The features are altered, and the fingerprints with them, while it is open."""
    attached = in_order(own.attach(dataset()))
    file = next(file for file in own.path.glob("*.npy") if "elements" in file.name)
    flip(file, file.stat().st_size - 1)
    with pytest.raises(ValueError, match="not the samples"):
        train_plainly(own, attached)


def test_a_cache_that_is_gone_is_not_taken_for_another(build, own):
    """Its folder is deleted, or has another cache now, after it was attached."""
    attached = in_order(own.attach(dataset()))
    shutil.rmtree(own.path)
    with pytest.raises(ValueError, match="is gone.*[Aa]ttach it again"):
        train_plainly(own, attached)
    build(quick_teacher(), path=own.path, outputs=True, dtype="float32")
    with pytest.raises(tf.errors.OpError, match="No such file"):
        list(attached)
    with pytest.raises(ValueError, match="missing"):
        own.attach(dataset())


def test_what_is_no_cache_does_not_open(tmp_path):
    assert nothing_opens(tmp_path / "nowhere")
    assert nothing_opens(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert nothing_opens(tmp_path / "file")


# Building where there is something already


def test_the_same_build_again_does_not_run_the_teacher_again(build, teacher, whole):
    """But on a few samples, to know it."""
    before, files = seen_by(teacher), list(whole.path.iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    again = build(
        teacher, path=whole.path, outputs=True, dtype="float32", batch_size=32
    )
    assert again.path == whole.path and same(contents(again), contents(whole))
    assert seen_by(teacher) - before <= FEW
    assert times == [file.stat().st_mtime_ns for file in files]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float16"}, "`dtype`"),
        ({"outputs": False}, "`outputs`"),
        ({"layers": ["body/conv"]}, "`layers`"),
        ({"project": 8}, "`project`"),
        ({"augment": "noisy"}, "`augment`"),
        ({"augment": "noisy", "views": 2}, "`views`"),
        ({"teacher": "another"}, "the teacher's weights"),
        ({"data": "altered"}, "the data differ"),
        ({"data": "swapped"}, "the order differs"),
        ({"data": "fewer"}, "the count differs"),
        ({"data": "fewer, uncounted"}, "the count differs"),
        ({"data": "doubles"}, "dtypes"),
    ],
    ids=str,
)
def test_another_build_leaves_the_cache_as_it_is(build, teacher, whole, change, said):
    arguments = {"teacher": teacher, "outputs": True, "dtype": "float32", **change}
    if "teacher" in change:
        arguments["teacher"] = quick_teacher()
    if "augment" in change:
        arguments["augment"] = noisy
    if "data" in change:
        make, _ = OTHERS[change["data"]]
        arguments["data"] = make(digits()[0])
    before = [(file.name, file.read_bytes()) for file in whole.path.iterdir()]
    with pytest.raises((FileExistsError, ValueError), match=said):
        build(path=whole.path, **arguments)
    assert before == [(file.name, file.read_bytes()) for file in whole.path.iterdir()]
    TeacherCache.open(whole.path)
    assert not list(whole.path.parent.glob(f"{whole.path.name}.*"))


def test_another_seed_is_another_build(build, teacher, views):
    with pytest.raises(FileExistsError, match="`seed`"):
        build(
            teacher,
            dataset(*digits(70)),
            path=views.path,
            augment=noisy,
            views=3,
            seed=12,
            dtype="float32",
        )


def test_files_of_others_are_left_alone(build, teacher, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "cache.building").mkdir()
    (tmp_path / "cache.building" / "thesis.txt").write_text("mine")
    for name in ("folder", "file", "cache"):
        with pytest.raises(FileExistsError, match="path"):
            build(teacher, path=tmp_path / name)
    left = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert left - {tmp_path / "cache.lock"} == {
        tmp_path / "folder" / "thesis.txt",
        tmp_path / "file",
        tmp_path / "cache.building" / "thesis.txt",
    }
    assert all(file.read_text() == "mine" for file in left if file.suffix != ".lock")


# Interrupted builds

RESUMED = {
    "layers": "features",
    "project": 8,
    "outputs": True,
    "dtype": "float32",
    "batch_size": 32,
}


class Unplugged(Exception):
    pass


def unplugged_after(count):
    """A data set that breaks off with an error; `True` plugs it in again."""
    plugged = []
    x, y = digits()

    def samples():
        for index, sample in enumerate(zip(x, y)):
            if index == count and not plugged:
                raise Unplugged
            yield sample

    signature = (tf.TensorSpec((8, 8, 1), tf.float32), tf.TensorSpec((), y.dtype))
    data = tf.data.Dataset.from_generator(samples, output_signature=signature)
    return data, plugged


def test_a_build_goes_on_where_an_error_stopped_it(build, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "CHECKPOINT_SECONDS", -1.0)
    path, teacher = tmp_path / "cache", quick_teacher()
    data, plugged = unplugged_after(290)
    with pytest.raises(tf.errors.OpError, match="Unplugged"):
        build(teacher, data, path, batch_size=16, dtype="float32")
    with pytest.raises(FileNotFoundError, match="unfinished one.*goes on"):
        TeacherCache.open(path)
    plugged.append(True)
    before = seen_by(teacher)
    cache = build(teacher, data, path, batch_size=25, dtype="float32")
    assert seen_by(teacher) - before <= COUNT - 288 + 25 + FEW
    undisturbed = build(teacher, dtype="float32", batch_size=16)
    assert same(contents(cache), contents(undisturbed))
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]


def test_an_unfinished_build_takes_nothing_but_its_own(build, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "CHECKPOINT_SECONDS", -1.0)
    path, teacher = tmp_path / "cache", quick_teacher()
    counted = teacher.get_layer("counted")

    def fail_late():  # When it is through with PCA, and has written a good deal.
        if counted.samples > 1.7 * COUNT:
            raise Unplugged

    counted.tell = fail_late
    with pytest.raises(tf.errors.OpError, match="Unplugged"):
        build(teacher, path=path, **RESUMED)
    counted.tell = lambda: None

    x, y = digits()
    refused = {
        "teacher's weights": {"teacher": quick_teacher(seed=1)},
        "`dtype`": {"dtype": "float16"},
        "`project`": {"project": 9},
        "`projection`": {"projection": "gaussian"},
        "`layers`": {"layers": "logits"},
        "`augment`": {"augment": noisy},
        "other data": {"data": dataset(altered(x, at=40))},
        "another order": {"data": dataset(swapped(x, at=40))},
        "only gives 100": {"data": dataset(x[:100], y[:100])},
    }
    for said, change in refused.items():
        arguments = {"teacher": teacher, "data": dataset(), **RESUMED, **change}
        with pytest.raises((FileExistsError, ValueError), match=said):
            build(path=path, **arguments)
        assert nothing_opens(path)

    # A part that is cut off, as by a crash of the whole machine.
    for file in sorted(path.with_name("cache.building").glob("*.npy")):
        whole_file = file.read_bytes()
        file.write_bytes(whole_file[: len(whole_file) // 2])
        with pytest.raises(ValueError, match=f"{file.name} was cut off"):
            build(teacher, path=path, **RESUMED)
        assert nothing_opens(path)
        file.write_bytes(whole_file + b"what was written last")

    # None of them has spoilt it: the right one still goes on.
    before = seen_by(teacher)
    cache = build(teacher, path=path, **RESUMED)
    assert seen_by(teacher) - before < 0.6 * COUNT
    assert same(contents(cache), contents(build(teacher, **RESUMED)))


def watch(teacher, tell, patch=setattr):
    """Calls `tell` before each run of the teacher and each step on the disk."""
    teacher.get_layer("counted").tell = lambda: tell("teacher")
    patch(building, "CHECKPOINT_SECONDS", -1.0)
    steps = [(os, "fsync")]
    steps += [(pathlib.Path, name) for name in ("replace", "rename", "unlink", "rmdir")]
    for owner, name in steps:
        original = getattr(owner, name)

        def step(*args, name=name, original=original, **kwargs):
            tell(name)
            return original(*args, **kwargs)

        patch(owner, name, step)


def build_until_killed(path, moment):
    """Builds with `watch`, and is killed at the step numbered `moment`."""
    teacher, steps = quick_teacher(), iter(range(moment))

    def tell(name):
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(teacher, tell)
    TeacherCache.build(teacher, dataset(), path, verbose=0, **RESUMED)


def killed(path, moment):
    process = PROCESSES.Process(target=build_until_killed, args=(path, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(build):
    """What is kept, the steps of the build, and how many samples the teacher saw."""
    teacher, steps = quick_teacher(), []
    with pytest.MonkeyPatch.context() as patch:
        watch(teacher, steps.append, patch.setattr)
        cache = build(teacher, **RESUMED)
    assert {"teacher", "fsync", "replace", "rename"} <= set(steps)
    return contents(cache), steps, seen_by(teacher)


@pytest.mark.parametrize("moment", ["fitting", "middle", -10, -7, -5, -4, -2], ids=str)
def test_a_killed_build_goes_on(build, undisturbed, tmp_path, moment):
    """SIGKILL while PCA is fitted, in the middle, and at the last steps."""
    expected, steps, whole = undisturbed
    path = tmp_path / "cache"
    runs = [step for step, name in enumerate(steps) if name == "teacher"]
    named = {"fitting": runs[5], "middle": len(steps) // 2}
    step = named.get(moment, moment) % len(steps)
    killed(path, step)

    finished = "rename" in steps[:step]
    if finished:
        assert same(contents(TeacherCache.open(path)), expected)
    else:
        assert nothing_opens(path)
    teacher = quick_teacher()
    cache = build(teacher, path=path, **RESUMED)
    assert same(contents(cache), expected)
    assert same(contents(TeacherCache.open(path)), expected)
    if finished:
        assert seen_by(teacher) <= FEW
    elif moment != "fitting":
        assert seen_by(teacher) < whole * (1 - step / len(steps) / 2)


def test_a_build_killed_time_and_again_gets_done(build, undisturbed, tmp_path):
    expected, steps, whole = undisturbed
    path, quarter = tmp_path / "cache", len(steps) // 4
    for _ in range(3):
        killed(path, quarter)
        assert nothing_opens(path)
    shutil.copytree(tmp_path, tmp_path.with_name("others"))
    teacher = quick_teacher()
    assert same(contents(build(teacher, path=path, **RESUMED)), expected)
    assert seen_by(teacher) < whole / 2

    refused = {
        "teacher's weights": (quick_teacher(seed=1), dataset()),
        "other data": (teacher, dataset(altered(digits()[0], at=40))),
    }
    path = tmp_path.with_name("others") / "cache"
    for said, (model, data) in refused.items():
        with pytest.raises((FileExistsError, ValueError), match=said):
            build(model, data, path, **RESUMED)
        assert nothing_opens(path)


# A full disk


def build_within(path, limits):
    """What comes of builds while files may only have so many bytes."""
    errors = []
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        try:
            TeacherCache.build(
                quick_teacher(),
                dataset(),
                path,
                dtype="float32",
                batch_size=32,
                verbose=0,
            )
            errors.append(None)
        except Exception as error:
            errors.append(type(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        with contextlib.suppress(FileNotFoundError):
            TeacherCache.open(path)
            errors.append("opens")
    return errors


def test_a_full_disk_leaves_what_was_there(build, tmp_path):
    teacher = quick_teacher()
    older = build(teacher, path=tmp_path / "older", dtype="float32", batch_size=32)
    (tmp_path / "thesis.txt").write_text("mine")
    path = tmp_path / "cache"
    # Fingerprints take 8 bytes a sample, features 96; the manifest some 1,500.
    limits = [10, 400, 2000, 10_000, 30_000]
    errors = in_fresh_process(build_within, path, limits)
    assert errors == [OSError] * len(limits)
    assert nothing_opens(path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    expected = contents(TeacherCache.open(older.path))
    assert same(expected, contents(older))

    cache = build(teacher, path=path, dtype="float32", batch_size=32)
    assert same(contents(cache), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cache",
        "older",
        "thesis.txt",
    ]


def test_a_disk_too_small_is_told_of_beforehand(build, tmp_path, monkeypatch):
    teacher = quick_teacher()
    needed = COUNT * 24 * 4
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=needed - 1)
    )
    with pytest.raises(OSError, match="MB free") as refusal:
        build(teacher, path=tmp_path / "cache", dtype="float32", batch_size=32)
    assert refusal.value.errno == errno.ENOSPC
    assert seen_by(teacher) <= 32 + FEW
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=2 * needed)
    )
    build(teacher, path=tmp_path / "cache", dtype="float32")


# Two processes


def build_slowly(path, started, go_on):
    teacher = quick_teacher()
    counted = teacher.get_layer("counted")

    def wait():
        if counted.samples > 150:
            started.touch()
            while not go_on.exists():
                time.sleep(0.02)

    counted.tell = wait
    TeacherCache.build(teacher, dataset(), path, batch_size=32, verbose=0)


def test_of_two_processes_one_builds_and_the_other_says_so(build, tmp_path):
    path, started, go_on = (tmp_path / name for name in ("cache", "started", "go"))
    first = PROCESSES.Process(target=build_slowly, args=(path, started, go_on))
    first.start()
    try:
        while not started.exists():
            assert first.is_alive()
            time.sleep(0.02)
        teacher = quick_teacher()
        with pytest.raises(RuntimeError, match="[Aa]nother process is building"):
            build(teacher, path=path, batch_size=32)
        assert seen_by(teacher) <= FEW
        assert nothing_opens(path)
        assert same(
            contents(build(teacher, path=tmp_path / "beside")), contents(build(teacher))
        )
    finally:
        go_on.touch()
        first.join()
    assert first.exitcode == 0
    cache = TeacherCache.open(path)
    assert same(contents(cache), contents(build(teacher, batch_size=32)))
    build(teacher, path=path, batch_size=32)  # The lock is gone with the first.


# Memory


def memory_peak():
    """The most memory this process ever took, in MB.

    Not by `resource.getrusage`: that begins with the peak of the parent.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory_of_a_million(folder, count):
    """Builds and attaches; gives by how much each of them raised the peak."""
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential(
        [keras.Input((64,)), layers.Dense(64, name="features"), layers.Dense(2)]
    )

    def sample(index):
        seed = tf.stack([index, tf.constant(1, tf.int64)])
        return tf.random.stateless_normal((64,), seed)

    def build_and_attach(count):
        data = tf.data.Dataset.range(count).map(sample, tf.data.AUTOTUNE)
        peaks = [memory_peak()]
        cache = TeacherCache.build(
            teacher, data, folder / str(count), batch_size=1000, verbose=0
        )
        peaks.append(memory_peak())
        seen = 0
        for batch in cache.attach(data).batch(1000):
            seen += len(batch["inputs"])
        peaks.append(memory_peak())
        assert seen == count
        return np.diff(peaks)

    build_and_attach(20_000)
    return build_and_attach(count)


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="reads /proc"
)
def test_memory_does_not_grow_with_the_data(tmp_path):
    """A million samples, whose features take 128 MB and which take 256 MB."""
    built, attached = in_fresh_process(memory_of_a_million, tmp_path, 1_000_000)
    assert built < 40
    assert attached < 40
