"""`LPDistiller` trained on what a cache keeps, in place of its teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache, locality_preserving_loss
from tests.caching.given import (
    COUNT,
    dataset,
    digits,
    features_of,
    flat_model,
    in_fresh_process,
    in_order,
    logits_too,
    plain_student,
    seen_by,
    shuffled,
    train_plainly,
)
from tests.helpers import cross_entropy, make_student, same
from tests.subclassed import TwoLayers, body_and_head

layers = keras.layers


def train(teacher, batches, losses=None):
    """A student with dropout and all: its weights after two epochs, its history."""
    student = make_student(shape=(8, 8, 1), classes=10)
    distiller = LPDistiller(teacher, student, distillation_losses=losses)
    keras.utils.set_random_seed(5)
    distiller.compile("adam", cross_entropy())
    history = distiller.fit(batches, epochs=2, verbose=0).history
    return student.get_weights(), history


def first_loss(student, features):
    """The locality preserving loss of the first 32 digits, before any training."""
    x, _ = digits()
    return float(locality_preserving_loss(features[:32], features_of(student, x[:32])))


def in_other_batches(data):
    keras.utils.set_random_seed(3)
    return data.shuffle(100, seed=3).batch(37).prefetch(1)


@pytest.mark.parametrize(
    ("given", "feed", "losses"),
    [
        ("teacher", in_order, lambda: None),
        ("cache", in_other_batches, logits_too),
    ],
    ids=["in order", "shuffled, with logits"],
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


def test_outputs_alone_are_enough_for_losses_on_them(build, teacher):
    cache = build(teacher, layers=[], outputs=True)
    logits = keras.distillation.LogitsDistillation()
    distiller = LPDistiller(
        cache, plain_student(), gamma=None, distillation_losses=logits
    )
    history = distiller.fit(in_order(cache.attach(dataset())), verbose=0).history
    assert history["logits_distillation_loss"][0] > 0


# Data and teachers of other kinds


def two_halves(width):
    halves = {name: keras.Input((32,), name=name) for name in ("upper", "lower")}
    joined = layers.Concatenate()([halves["upper"], halves["lower"]])
    hidden = layers.Dense(width, activation="relu", name="features")(joined)
    return keras.Model(halves, layers.Dense(10)(hidden))


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


def test_a_projected_cache_trains_nearly_as_the_whole_one(build, teacher, exact):
    cache = build(teacher, project=20)
    distiller = LPDistiller(cache, plain_student())
    expected = first_loss(distiller.student, exact["features"])
    history = distiller.fit(in_order(cache.attach(dataset())).take(1), verbose=0)
    assert history.history["lp_loss"][0] == pytest.approx(expected, rel=0.03)


# What is refused


def test_another_teacher_is_refused(teacher, whole):
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


def test_a_fit_without_features_is_refused_and_can_be_mended(whole):
    distiller = LPDistiller(whole, plain_student())
    for without in ((in_order(dataset()),), digits()):
        with pytest.raises(ValueError, match="without its features.*attach"):
            distiller.fit(*without, verbose=0)
    distiller.fit(in_order(whole.attach(dataset())), verbose=0)
    expected = train_plainly(whole, in_order(whole.attach(dataset())))
    assert same(distiller.student.get_weights(), expected)
