"""Batches of labelled and unlabelled samples, and training on them."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LocalityPreserving, LPDistiller, TeacherCache
from keras_lpd.datasets import mix_unlabelled
from keras_lpd.taught import Mark, join
from tests.helpers import cross_entropy, same
from tests.pipelines import uncounted

layers = keras.layers

KNOWN, OTHERS = 10, 37
"""How many samples there are of each kind, where a test does not say."""


def slices(*components):
    """A data set of single samples."""
    whole = components if len(components) > 1 else components[0]
    return tf.data.Dataset.from_tensor_slices(whole)


def numbered(known=KNOWN, others=OTHERS):
    """Samples that are numbers: labelled ones from 0, the others from 1,000."""
    return slices(np.arange(known), np.arange(known)), slices(1000 + np.arange(others))


def vectors(known=KNOWN, others=OTHERS, seed=0):
    """Vectors of four numbers, those of the labelled side with one of three labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(known + others, 4)).astype("float32")
    return x[:known], random.integers(0, 3, known), x[known:]


def batches_of(data):
    return list(data.as_numpy_iterator())


def model(seed=0, features=5):
    """Neither dropout nor batch normalization: rows know nothing of each other."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(features, activation="tanh", name="features"),
            layers.Dense(3, name="logits"),
        ]
    )


def losses_of(logits, labels):
    """The oracle: the cross-entropy of each row."""
    logits = logits.astype("float64")
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -logs[np.arange(len(labels)), labels]


# What a batch holds


@pytest.mark.parametrize(
    ("ratio", "batch_size", "known"),
    [
        (1, 8, 4),
        (3, 8, 2),
        (1 / 3, 8, 6),
        (1 / 3, 128, 96),
        (0.333333333, 128, 96),
        (np.float32(1 / 3), 128, 96),
        (127, 128, 1),
        (1.5, 5, 2),
        (1, 2, 1),
    ],
)
def test_every_batch_holds_the_ratio(ratio, batch_size, known):
    mix = mix_unlabelled(*numbered(), ratio, batch_size=batch_size)
    x, y, weights = mix.element_spec
    assert x.shape == y.shape == weights.shape == (batch_size,)
    assert weights.dtype == tf.float32
    for x, y, weights in mix.as_numpy_iterator():
        labelled = x < 1000
        assert labelled.sum() == known
        np.testing.assert_array_equal(y[labelled], x[labelled])
        np.testing.assert_allclose(weights, labelled * batch_size / known, rtol=1e-6)
        assert np.isin(y, x[labelled]).all()


@pytest.mark.parametrize(
    ("known", "others", "ratio", "steps"),
    [
        (10, 37, 1, 10),  # ceil(37 / 4)
        (10, 37, 3, 7),  # ceil(37 / 6), 14 labelled samples
        (37, 10, 1, 10),
        (37, 10, 1 / 3, 7),
        (8, 24, 3, 4),  # without a rest on either side
        (1, 30, 3, 5),
        (2, 2, 1, 1),  # fewer than a batch has room for
    ],
)
def test_an_epoch_has_every_sample(known, others, ratio, steps):
    mix = mix_unlabelled(*numbered(known, others), ratio, batch_size=8)
    assert len(mix) == steps
    rows = np.concatenate([x for x, _, _ in mix.as_numpy_iterator()])
    assert len(rows) == 8 * steps
    counts = collections.Counter(rows.tolist())
    for side in (range(known), range(1000, 1000 + others)):
        times = [counts.pop(sample, 0) for sample in side]
        assert min(times) >= 1
        assert max(times) <= min(times) + 1
    assert not counts


@pytest.mark.parametrize("ratio", [1, 3, 1 / 3, 7])
@pytest.mark.parametrize("replicas", [2, 4])
def test_labelled_rows_are_spread_over_the_batch(ratio, replicas):
    mix = mix_unlabelled(*numbered(), ratio, batch_size=32)
    for x, _, _ in mix.as_numpy_iterator():
        shares = [(part < 1000).sum() for part in np.split(x, replicas)]
        assert len(set(shares)) == 1


def test_uneven_shares_differ_by_one():
    mix = mix_unlabelled(*numbered(), 4, batch_size=30)
    for x, _, _ in mix.as_numpy_iterator():
        shares = [(part < 1000).sum() for part in np.split(x, 5)]
        assert min(shares) == 1 and max(shares) == 2


# Order


def test_each_epoch_has_another_order():
    mix = mix_unlabelled(*numbered(32, 32), batch_size=64)
    (first, *_), (second, *_) = batches_of(mix) + batches_of(mix)
    for side in (first < 1000, first >= 1000):
        assert not np.array_equal(first[side], second[side])
        assert set(first[side]) == set(second[side])


def test_the_smaller_side_is_reshuffled_within_an_epoch():
    mix = mix_unlabelled(*numbered(16, 32), batch_size=32)
    first, second = (x[x < 1000] for x, _, _ in mix.as_numpy_iterator())
    assert set(first) == set(second) == set(range(16))
    assert not np.array_equal(first, second)


def two_epochs(seed, **kwargs):
    mix = mix_unlabelled(*numbered(), batch_size=8, seed=seed, **kwargs)
    return [x for epoch in (1, 2) for x, _, _ in mix.as_numpy_iterator()]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_seed_decides_about_the_order(seed):
    assert same(two_epochs(seed), two_epochs(seed))
    assert not same(two_epochs(seed), two_epochs(seed + 1))


def test_the_sides_are_shuffled_apart():
    """Pairs of samples that are alike do not stay together."""
    mix = mix_unlabelled(*numbered(32, 32), batch_size=64)
    x, _, _ = next(iter(mix))
    assert not np.array_equal(x[x < 1000], x[x >= 1000] - 1000)


def test_a_small_buffer_keeps_samples_near_their_place():
    order = np.concatenate(two_epochs(0, shuffle_buffer=2))
    others = order[order >= 1000][:OTHERS] - 1000
    assert sorted(others) == list(range(OTHERS))
    assert not np.array_equal(others, np.arange(OTHERS))
    assert (np.arange(OTHERS) >= others - 1).all()  # none comes early by more


# Elements of all kinds


def test_inputs_may_be_dicts_and_labels_too():
    def inputs(numbers):
        return {"image": np.tile(numbers[:, None], 3), "more": {"id": numbers}}

    known, others = np.arange(6), 1000 + np.arange(9)
    labels = {"class": known, "name": np.array([f"number {n}" for n in known])}
    mix = mix_unlabelled(
        slices(inputs(known), labels), slices(inputs(others)), 2, batch_size=6
    )
    for x, y, weights in mix.as_numpy_iterator():
        number = x["more"]["id"]
        np.testing.assert_array_equal(x["image"], np.tile(number[:, None], 3))
        labelled = number < 1000
        np.testing.assert_array_equal(weights, labelled * 3.0)
        np.testing.assert_array_equal(y["class"][labelled], number[labelled])
        assert [name.decode() for name in y["name"]] == [
            f"number {n}" for n in y["class"]
        ]


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(KNOWN, dtype="uint8"),
        np.eye(KNOWN, dtype="float32"),
        np.array([f"{n}" for n in range(KNOWN)]),
        np.arange(KNOWN) % 2 == 0,
        np.arange(6 * KNOWN, dtype="float16").reshape(KNOWN, 2, 3),
    ],
    ids=["bytes", "one-hot", "strings", "booleans", "maps"],
)
def test_labels_of_any_type_stay_with_their_samples(labels):
    others = slices(1000 + np.arange(OTHERS))
    mix = mix_unlabelled(slices(np.arange(KNOWN), labels), others, batch_size=8)
    for x, y, _ in mix.as_numpy_iterator():
        labelled = x < 1000
        expected = labels[x[labelled]]
        if expected.dtype.kind == "U":
            y = np.array([label.decode() for label in y])
        np.testing.assert_array_equal(y[labelled], expected)
        np.testing.assert_array_equal(y[~labelled], expected)  # the same, at weight 0


def test_labels_of_the_unlabelled_side_are_left_out():
    """Whatever they are: these could not be put into batches."""
    known, others = numbered()
    ragged = others.map(lambda x: (x, tf.zeros(tf.cast(x % 3, tf.int32)), "extra"))
    Sample = collections.namedtuple("Sample", ["inputs", "labels"])
    named = others.map(lambda x: Sample(x, -1))
    alone = others.map(lambda x: (x,))
    expected = batches_of(mix_unlabelled(known, others, batch_size=8))
    for side in (ragged, named, alone):
        mix = batches_of(mix_unlabelled(known, side, batch_size=8))
        assert same(tf.nest.flatten(mix), tf.nest.flatten(expected))


def test_ragged_inputs():
    rows = tf.ragged.constant([[1], [2, 2], [3, 3, 3], [4, 4, 4, 4]])
    mix = mix_unlabelled(slices(rows, [1, 2, 3, 4]), slices(rows), batch_size=4)
    for x, y, weights in mix:
        lengths = x.row_lengths().numpy()
        np.testing.assert_array_equal(x.to_tensor()[:, 0], lengths)
        known = weights.numpy() > 0
        np.testing.assert_array_equal(y[known], lengths[known])


def test_ragged_inputs_with_ragged_labels_are_no_batches():
    rows = tf.ragged.constant([[1], [2, 2], [3, 3, 3], [4, 4, 4, 4]])
    x, y, _ = next(iter(mix_unlabelled(slices(rows, rows), slices(rows), batch_size=4)))
    np.testing.assert_array_equal(x[1], y[1])


def test_sizes_that_are_not_known_are_counted():
    known, others = numbered()
    expected = batches_of(mix_unlabelled(known, others, batch_size=8))
    mix = mix_unlabelled(uncounted(known), uncounted(others), batch_size=8)
    assert len(mix) == len(expected)
    assert same(tf.nest.flatten(batches_of(mix)), tf.nest.flatten(expected))


@pytest.mark.parametrize("endless", [0, 1])
def test_the_other_side_of_an_endless_one_decides(endless):
    sides = list(numbered(8, 12))
    sides[endless] = sides[endless].repeat()
    mix = mix_unlabelled(*sides, batch_size=8)
    assert len(mix) == (3, 2)[endless]
    assert len(batches_of(mix)) == len(mix)


# Weights


def test_the_cross_entropy_is_the_mean_over_labelled_rows():
    x_known, y_known, x_others = vectors()
    student = model()
    mix = mix_unlabelled(slices(x_known, y_known), slices(x_others), 3, batch_size=16)
    loss = cross_entropy()
    for x, y, weights in mix.as_numpy_iterator():
        known = weights > 0
        assert known.sum() == 4
        logits = student.predict(x, verbose=0)
        by_hand = losses_of(logits[known], y[known]).mean()
        np.testing.assert_allclose(loss(y, logits, weights), by_hand, rtol=1e-5)
        np.testing.assert_allclose(loss(y[known], logits[known]), by_hand, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_own_weights_come_on_top(dtype):
    x_known, y_known, x_others = vectors()
    own = np.arange(KNOWN).astype(dtype)
    mix = mix_unlabelled(
        slices(x_known, y_known, own), slices(x_others), 3, batch_size=16
    )
    student, loss = model(), cross_entropy()
    for x, y, weights in mix.as_numpy_iterator():
        assert weights.dtype == ("float32" if dtype == "int32" else dtype)
        rows = [np.flatnonzero((row == x_known).all(axis=1)) for row in x]
        known = np.array([len(found) == 1 for found in rows])
        own_of_known = own[np.concatenate(rows)]
        assert known.sum() == 4
        np.testing.assert_allclose(weights[known], 4.0 * own_of_known)
        assert not weights[~known].any()
        logits = student.predict(x, verbose=0)
        by_hand = (losses_of(logits[known], y[known]) * own_of_known).mean()
        np.testing.assert_allclose(loss(y, logits, weights), by_hand, rtol=1e-5)
        alone = loss(y[known], logits[known], own_of_known)
        np.testing.assert_allclose(alone, by_hand, rtol=1e-5)


def test_own_weights_may_have_axes_and_structure():
    steps = np.arange(3 * KNOWN, dtype="float32").reshape(KNOWN, 3)
    whole = np.arange(KNOWN, dtype="float32")
    own = {"steps": steps, "whole": whole}
    known = slices(np.arange(KNOWN), {"steps": steps, "whole": whole}, own)
    mix = mix_unlabelled(known, numbered()[1], 3, batch_size=8)
    for x, _, weights in mix.as_numpy_iterator():
        for name, array in own.items():
            expected = np.zeros((8, *array.shape[1:]))
            expected[x < 1000] = 4 * array[x[x < 1000]]
            np.testing.assert_allclose(weights[name], expected)


# Training


def test_fit_is_training_on_the_labelled_rows_alone():
    x_known, y_known, x_others = vectors()
    data = slices(x_known, y_known), slices(x_others)
    keras.utils.set_random_seed(0)  # It has a part in the order.
    steps = batches_of(mix_unlabelled(*data, 3, batch_size=16))

    mixed, alone = model(), model()
    for one in (mixed, alone):
        one.compile(keras.optimizers.SGD(0.5), cross_entropy())
    mixed.fit(mix_unlabelled(*data, 3, batch_size=16), verbose=0)
    for x, y, weights in steps:
        alone.train_on_batch(x[weights > 0], y[weights > 0])

    for one, other, first in zip(
        mixed.get_weights(), alone.get_weights(), model().get_weights()
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert not np.allclose(one, first, atol=1e-3)


def test_weights_go_to_all_of_several_outputs():
    x_known, y_known, x_others = vectors()
    inputs = keras.Input((4,))
    keras.utils.set_random_seed(0)
    student = keras.Model(
        inputs, {name: layers.Dense(3, name=name)(inputs) for name in ("one", "two")}
    )
    student.compile("sgd", {"one": cross_entropy(), "two": cross_entropy()})
    labels = {"one": y_known, "two": (y_known + 1) % 3}
    mix = mix_unlabelled(slices(x_known, labels), slices(x_others), batch_size=8)
    x, y, weights = next(mix.as_numpy_iterator())
    logits = {name: logit[weights > 0] for name, logit in student.predict(x).items()}
    by_hand = sum(losses_of(logits[k], y[k][weights > 0]).mean() for k in labels)
    loss = student.test_on_batch(x, y, weights)[0]
    np.testing.assert_allclose(loss, by_hand, rtol=1e-5)


def distilled(x_others, gamma):
    """A student's weights after an epoch."""
    x_known, y_known, _ = vectors()
    student = model(seed=1)
    distiller = LPDistiller(model(features=9), student, gamma=gamma)
    distiller.compile(keras.optimizers.SGD(0.5), cross_entropy())
    mix = mix_unlabelled(slices(x_known, y_known), slices(x_others), 3, batch_size=16)
    keras.utils.set_random_seed(0)
    distiller.fit(mix, verbose=0)
    return student.get_weights()


def test_unlabelled_rows_have_a_say_in_distillation_losses_alone():
    one, other = vectors()[2], vectors(seed=1)[2]
    assert same(distilled(one, gamma=0.0), distilled(other, gamma=0.0))
    kernel, with_others = (distilled(x, gamma=1.0)[0] for x in (one, other))
    assert not np.allclose(kernel, with_others, atol=1e-3)


def test_the_logs_are_those_of_labelled_rows():
    x_known, y_known, x_others = vectors(known=8)
    student = model(seed=1)
    distiller = LPDistiller(model(features=9), student)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy(), metrics=["accuracy"])
    mix = mix_unlabelled(
        slices(x_known, y_known), slices(x_others[:24]), 3, batch_size=16
    )
    logs = distiller.fit(mix, verbose=0).history  # of each labelled sample once
    logits = student.predict(x_known, verbose=0)
    accuracy = np.mean(logits.argmax(axis=1) == y_known)
    np.testing.assert_allclose(logs["accuracy"], [accuracy], rtol=1e-6)
    by_hand = losses_of(logits, y_known).mean()
    np.testing.assert_allclose(logs["student_loss"], [by_hand], rtol=1e-5)


def test_the_gradient_of_an_unlabelled_row():
    """By its inputs: none out of the cross-entropy, some out of the other loss."""
    x_known, y_known, x_others = vectors()
    mix = mix_unlabelled(slices(x_known, y_known), slices(x_others), 3, batch_size=16)
    x, y, weights = next(iter(mix))
    student, known = model(seed=1), weights.numpy() > 0
    teacher, loss = model(features=9), LocalityPreserving()
    distiller = LPDistiller(teacher, student, distillation_losses=loss)
    distiller.compile("sgd", cross_entropy())
    features = keras.Model(student.inputs, student.get_layer("features").output)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        student_loss = distiller.compute_loss(x, y, student(x), weights)
        lp_loss = loss.compute_loss(teacher(x), features(x))
    own = np.abs(tape.gradient(student_loss, x)).max(axis=1)
    np.testing.assert_array_equal(own > 0, known)
    assert (np.abs(tape.gradient(lp_loss, x)).max(axis=1) > 0).all()


# With a teacher cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A teacher, all samples, and the cache built of both."""
    x_known, y_known, x_others = vectors()
    teacher = model(features=9)
    labels = np.concatenate([y_known, np.full(OTHERS, -1)])  # not labels at all
    samples = slices(np.concatenate([x_known, x_others]), labels)
    path = tmp_path_factory.mktemp("caches") / "cache"
    built = TeacherCache.build(teacher, samples, path, dtype="float32", verbose=0)
    return teacher, samples, built


def distilled_on(teacher, known, others):
    student = model(seed=1)
    distiller = LPDistiller(teacher, student, gamma=1.0)
    distiller.compile(keras.optimizers.SGD(0.5), cross_entropy())
    keras.utils.set_random_seed(0)
    mix = mix_unlabelled(known, others, 3, batch_size=16)
    logs = distiller.fit(mix, epochs=2, verbose=0).history
    return student.get_weights(), logs


def test_on_a_cache_the_student_is_the_one_of_the_teacher(cache):
    teacher, samples, cache = cache
    attached = cache.attach(samples)
    cached, cached_logs = distilled_on(
        cache, attached.take(KNOWN), attached.skip(KNOWN)
    )
    online, logs = distilled_on(teacher, samples.take(KNOWN), samples.skip(KNOWN))
    for one, other in zip(cached, online):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert set(logs) == set(cached_logs)
    assert np.isfinite(logs["student_loss"] + cached_logs["student_loss"]).all()


def test_features_stay_with_their_samples(cache):
    teacher, samples, cache = cache
    attached = cache.attach(samples)
    layer = keras.Model(teacher.inputs, teacher.get_layer("features").output)
    mix = mix_unlabelled(attached.take(KNOWN), attached, 3, batch_size=16)
    for x, y, _ in mix.as_numpy_iterator():
        (features,) = (one for key, one in x.items() if key != "inputs")
        expected = layer.predict(x["inputs"], verbose=0)
        np.testing.assert_allclose(features["features"], expected, rtol=1e-4)
        assert (y >= 0).all()


@pytest.mark.parametrize("side", ["labelled", "unlabelled"])
def test_a_cache_on_one_side_is_refused(cache, side):
    _, samples, cache = cache
    sides = {"labelled": samples, "unlabelled": samples}
    sides[side] = cache.attach(samples)
    with pytest.raises(ValueError, match=f"only `{side}` is attached.*take"):
        mix_unlabelled(**sides)


def test_caches_of_different_teachers_are_refused():
    def taught(*mark):
        return slices({"features": np.ones((4, 2))}).map(
            lambda features: (join(tf.zeros(3), Mark(*mark), features), 1)
        )

    one = taught("0123456789abcdef")
    mix_unlabelled(one, one, batch_size=2)
    for other in (
        taught("fedcba9876543210"),
        taught("0123456789abcdef", "pca-16-0a1b2c3d"),
    ):
        with pytest.raises(ValueError, match="different teachers or projections"):
            mix_unlabelled(one, other, batch_size=2)


# Refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 1}, "`batch_size` must be an integer of at least 2"),
        ({"batch_size": 8.0}, "`batch_size` must be an integer"),
        ({"ratio": 0}, "`ratio` must be a positive number"),
        ({"ratio": -1}, "`ratio` must be a positive number"),
        ({"ratio": float("inf")}, "`ratio` must be a positive number"),
        ({"ratio": float("nan")}, "`ratio` must be a positive number"),
        ({"ratio": True}, "`ratio` must be a positive number"),
        ({"ratio": "1"}, "`ratio` must be a positive number"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"shuffle_buffer": 0}, "`shuffle_buffer` must be an integer of at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        mix_unlabelled(*numbered(), **changed)


@pytest.mark.parametrize(
    ("ratio", "batch_size", "hint"),
    [
        (2, 128, "batch_size=126 or batch_size=129"),
        (1.7, 128, "batch_size=108 or batch_size=135"),
        (1, 3, "batch_size=2 or batch_size=4"),
        (2, 2, "batch_size=3"),
        (127, 64, "batch_size=128"),
        (0.77771, 128, "ratio=56/72 or ratio=55/73"),
        (1000, 128, "ratio=127/1"),
        (1e-9, 128, "ratio=1/127"),
    ],
)
def test_ratios_that_do_not_fit_are_refused_with_some_that_do(ratio, batch_size, hint):
    with pytest.raises(ValueError, match=f"Give {hint}\\.$"):
        mix_unlabelled(*numbered(), ratio, batch_size=batch_size)
    for fitting in hint.split(" or "):
        name, value = fitting.split("=")
        changed = {"ratio": ratio, "batch_size": batch_size, name: eval(value)}
        assert len(mix_unlabelled(*numbered(), **changed))


@pytest.mark.parametrize("wrap", [lambda data: data, uncounted])
def test_an_empty_side_is_named(wrap):
    known, others = numbered()
    with pytest.raises(ValueError, match="`labelled` is empty"):
        mix_unlabelled(wrap(known.take(0)), others)
    with pytest.raises(ValueError, match="`unlabelled` is empty"):
        mix_unlabelled(known, wrap(others.take(0)))


def test_two_endless_sides_are_refused():
    known, others = numbered()
    with pytest.raises(ValueError, match="Both data sets are endless"):
        mix_unlabelled(known.repeat(), others.repeat())


@pytest.mark.parametrize(
    "given", [np.ones(3), [1, 2], (np.ones(3), np.ones(3)), None], ids=type
)
def test_what_is_no_data_set_is_refused(given):
    known, others = numbered()
    with pytest.raises(TypeError, match="`labelled` must be.*from_tensor_slices"):
        mix_unlabelled(given, others)
    with pytest.raises(TypeError, match="`unlabelled` must be.*from_tensor_slices"):
        mix_unlabelled(known, given)


def test_a_labelled_side_without_labels_is_refused():
    _, others = numbered()
    expected = "must have elements `\\(inputs, labels\\)`"
    for given in (
        others,
        others.map(lambda x: (x,)),
        others.map(lambda x: (x, x, x, x)),
    ):
        with pytest.raises(ValueError, match=expected) as error:
            mix_unlabelled(given, others)
        assert "as_supervised" not in str(error.value)
    as_dict = others.map(lambda x: {"image": x, "label": x})
    with pytest.raises(ValueError, match=f"{expected}.*'image'.*as_supervised=True"):
        mix_unlabelled(as_dict, others)


@pytest.mark.parametrize(
    "others",
    [
        np.ones((9, 5), "float32"),
        np.ones((9, 4), "float64"),
        np.ones((9, 2, 2), "float32"),
        {"image": np.ones((9, 4), "float32")},
        {"other": np.ones((9, 4), "float32")},
    ],
    ids=["shape", "type", "rank", "structure", "name"],
)
def test_inputs_that_differ_are_refused(others):
    known = np.ones((9, 4), "float32")
    if isinstance(others, dict) and "other" in others:
        known = {"image": known}
    known, others = slices(known, np.arange(9)), slices(others)
    with pytest.raises(ValueError, match="same structure, type and shape") as error:
        mix_unlabelled(known, others)
    for side in (known.element_spec[0], others.element_spec):
        assert str(side) in str(error.value)
    assert "unbatch" not in str(error.value)


@pytest.mark.parametrize("kwargs", [{}, {"drop_remainder": True}])
def test_batches_are_refused(kwargs):
    x_known, y_known, x_others = vectors()
    known, others = slices(x_known, y_known), slices(x_others)
    batches, other_batches = known.batch(2, **kwargs), others.batch(2, **kwargs)
    hint = "these look like batches" if not kwargs else "`labelled` looks like batches"
    with pytest.raises(ValueError, match=f"{hint}.*unbatch"):
        mix_unlabelled(batches, others)
    with pytest.raises(ValueError, match="`unlabelled` looks like batches.*unbatch"):
        mix_unlabelled(known, other_batches)


def test_batches_on_both_sides_are_refused():
    x_known, y_known, x_others = vectors()
    with pytest.raises(ValueError, match="these look like batches.*unbatch"):
        mix_unlabelled(slices(x_known, y_known).batch(2), slices(x_others).batch(2))


def test_sparse_tensors_are_refused():
    sparse = slices(tf.sparse.from_dense(np.eye(3)))
    with pytest.raises(TypeError, match="dense or ragged.*tf.sparse.to_dense"):
        mix_unlabelled(sparse.map(lambda x: (x, 1)), sparse)
