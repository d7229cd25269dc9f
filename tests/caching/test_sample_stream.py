"""The samples of a data set: their order, their views, their fingerprints."""

import collections
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.caching.sample_stream import (
    AUGMENTED,
    ELEMENTS,
    SampleStream,
    check_same,
    fingerprints,
)
from tests.pipelines import assert_same, uncounted

layers = keras.layers

X = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
Y = np.arange(10) % 3
WEIGHTS = np.linspace(0, 1, 10).astype("float32")
RANDOM = tf.random.Generator.from_non_deterministic_state()


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


def samples(*arrays, augment=None, **kwargs):
    return SampleStream(dataset(*arrays), augment, **kwargs)


def decoded(data, shape):
    """The same data set, not knowing its shape but for what is told of it."""

    def decode(x):
        there_and_back = tf.io.parse_tensor(tf.io.serialize_tensor(x), x.dtype)
        return tf.ensure_shape(there_and_back, shape)

    data = data.map(decode)
    assert data.element_spec.shape == tf.TensorShape(shape)
    return data


def together(batches):
    """Batches put together into one, as NumPy arrays."""
    return tf.nest.map_structure(
        lambda *parts: np.concatenate(parts), *batches.as_numpy_iterator()
    )


# Fingerprints

DTYPES = ["bool", "uint8", "int64", "float16", "bfloat16", "float32", "float64"]


def some(dtype, shape=(6, 3, 2)):
    bits = np.random.default_rng(1).integers(0, 2, shape)
    return bits.astype(tf.as_dtype(dtype).as_numpy_dtype)


def flipped(array, row, at):
    """A copy with one bit changed in one row."""
    data = np.array(array)
    data.reshape(len(data), -1)[row].view("uint8")[at] ^= 1
    return data


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fingerprint_is_of_one_sample(dtype):
    x = some(dtype)
    found = fingerprints(x).numpy()
    assert (found.shape, found.dtype) == ((6, 8), "uint8")
    for row in range(6):
        np.testing.assert_array_equal(fingerprints(x[row : row + 1])[0], found[row])
    np.testing.assert_array_equal(fingerprints(x[::-1]), found[::-1])
    in_a_graph = tf.function(fingerprints)(tf.constant(x))
    np.testing.assert_array_equal(in_a_graph, found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bit_makes_another_fingerprint(dtype):
    x = some(dtype)
    before = fingerprints(x).numpy()
    for at in (0, x[0].nbytes - 1):
        after = fingerprints(flipped(x, 4, at)).numpy()
        changed = (after != before).any(axis=1)
        assert changed.tolist() == [False] * 4 + [True, False]


def test_equal_samples_have_equal_fingerprints():
    x = np.repeat(some("float32"), 2, axis=0)
    x[:2] = np.nan
    found = fingerprints(x).numpy()
    np.testing.assert_array_equal(found[::2], found[1::2])
    assert len(np.unique(found[::2], axis=0)) == 6


def test_fingerprints_of_single_numbers():
    found = fingerprints(np.arange(5)).numpy()
    assert found.shape == (5, 8)
    assert len(np.unique(found, axis=0)) == 5


def test_fingerprints_of_strings():
    texts = np.array([["ab", "c"], ["a", "bc"], ["abc", ""], ["ab", "d"], ["ab", "c"]])
    found = fingerprints(tf.constant(texts)).numpy()
    np.testing.assert_array_equal(found[4], found[0])
    assert len(np.unique(found, axis=0)) == 4
    np.testing.assert_array_equal(fingerprints(tf.constant(texts[3:4]))[0], found[3])


def test_fingerprints_of_several_inputs():
    a, b = some("float32", (6, 3)), some("float32", (6, 3))[::-1]
    before = fingerprints({"a": a, "b": b}).numpy()
    assert before.shape == (6, 8)
    np.testing.assert_array_equal(fingerprints({"b": b[2:4], "a": a[2:4]}), before[2:4])
    for other in (
        {"a": flipped(a, 4, 0), "b": b},
        {"a": a, "b": flipped(b, 4, 11)},
    ):
        changed = (fingerprints(other).numpy() != before).any(axis=1)
        assert changed.tolist() == [False] * 4 + [True, False]
    exchanged = (fingerprints({"a": b, "b": a}).numpy() != before).any(axis=1)
    assert exchanged.tolist() == (a != b).any(axis=1).tolist()


def test_fingerprints_stay_what_they_are():
    """They lie on disks: another algorithm would know no cache again."""
    x = np.arange(4, dtype="float32")[None]
    one = [21, 19, 218, 176, 152, 160, 0, 216]
    assert fingerprints(x).numpy().tolist() == [one]
    two = [214, 129, 58, 186, 209, 242, 71, 115]
    assert fingerprints({"a": x, "b": x[:, :2]}).numpy().tolist() == [two]


# Batches

ELEMENTS_OF = {
    "inputs": X,
    "inputs in a tuple": (X,),
    "labels": (X, Y),
    "labels and weights": (X, Y, WEIGHTS),
    "a dict": {"a": X, "b": Y},
    "a dict and labels": ({"a": X, "b": Y}, Y),
    "two labels": (X, {"one": Y, "other": (WEIGHTS, Y)}),
}


@pytest.mark.parametrize("element", ELEMENTS_OF.values(), ids=ELEMENTS_OF)
def test_batches_give_all_in_order(element):
    as_tuple = element if isinstance(element, tuple) else (element,)
    seen = SampleStream(tf.data.Dataset.from_tensor_slices(element), None)
    batches = seen.batches(4)

    assert [len(prints[ELEMENTS]) for _, prints in batches] == [4, 4, 2]
    prints = {ELEMENTS: fingerprints(as_tuple[0]).numpy()}
    assert_same(together(batches), (as_tuple, prints))
    assert_same(together(seen.inputs(4)), (as_tuple[0], prints))
    assert_same(together(seen.singles().batch(3)), (as_tuple, prints))
    alone = np.concatenate([one[ELEMENTS] for one in seen.fingerprints()])
    np.testing.assert_array_equal(alone, prints[ELEMENTS])
    assert seen.total == 10


def test_elements_may_be_named_tuples():
    """Keras trains on such data sets, too: the first entry are the inputs."""
    pair = collections.namedtuple("Pair", ["image", "label"])
    seen = SampleStream(tf.data.Dataset.from_tensor_slices(pair(X, Y)), None)
    inputs, prints = together(seen.inputs(4))
    assert_same(inputs, X)
    np.testing.assert_array_equal(prints[ELEMENTS], fingerprints(X))


def labelled_in_many_lengths():
    return dataset(X, np.arange(10)).map(lambda x, row: (x, tf.range(row)))


def test_labels_of_many_lengths_pass():
    seen = SampleStream(labelled_in_many_lengths(), None)
    found = list(seen.batches(seen.chunk()).as_numpy_iterator())
    assert len(found) == 10
    for row, ((inputs, labels), _) in enumerate(found):
        np.testing.assert_array_equal(inputs, X[row : row + 1])
        np.testing.assert_array_equal(labels, [np.arange(row)])


def test_labels_do_not_matter_where_there_are_none():
    """A teacher may see samples in batches whose labels make none."""
    seen = SampleStream(labelled_in_many_lengths(), None)
    np.testing.assert_array_equal(together(seen.inputs(4))[0], X)
    spread = np.concatenate(list(seen.spread(5, 4).as_numpy_iterator()))
    np.testing.assert_array_equal(spread, X[::2])


def test_ragged_labels_pass():
    boxes = tf.ragged.constant([[[row] * 2] * (row % 3) for row in range(10)])
    seen = samples(X, boxes)
    assert seen.chunk() == 1
    found = [element[1] for element, _ in seen.batches(4)]
    assert tf.concat(found, axis=0).to_list() == boxes.to_list()


# Views


def shifted(inputs, seed):
    """Tells by how much which seed was given; far above the index is the view."""
    assert seed.shape == (2,)
    view, index = seed[1] // 2**40, seed[1] % 2**40
    return inputs + tf.cast(1000 * (seed[0] + view) + index, inputs.dtype)


def noisy(inputs, seed):
    return inputs + tf.random.stateless_normal(tf.shape(inputs), seed)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("views", "seed"), [(1, 0), (3, 0), (2, 7)])
def test_views_follow_one_another(views, seed, counted):
    x = np.arange(10, dtype="float32").reshape(5, 2)
    data = dataset(x, Y[:5])
    seen = SampleStream(data if counted else uncounted(data), shifted, views, seed)

    (inputs, labels), prints = together(seen.batches(4))

    shifts = [1000 * (seed + view) + row for view in range(views) for row in range(5)]
    clean = np.tile(x, (views, 1))
    augmented = clean + np.array(shifts, "float32")[:, None]
    np.testing.assert_array_equal(inputs, augmented)
    np.testing.assert_array_equal(labels, np.tile(Y[:5], views))
    np.testing.assert_array_equal(prints[ELEMENTS], fingerprints(clean))
    np.testing.assert_array_equal(prints[AUGMENTED], fingerprints(augmented))
    assert seen.total == (5 * views if counted else None)


def test_views_are_the_same_each_time_and_whatever_the_batches():
    seen = samples(X, augment=noisy, views=2)
    first = together(seen.batches(4))
    (inputs,), _ = first
    assert len(np.unique(inputs, axis=0)) == 20
    assert_same(together(seen.batches(4)), first)
    assert_same(together(seen.batches(7)), first)
    assert_same(together(seen.singles().batch(7)), first)
    assert_same(together(samples(X, augment=noisy, views=2).batches(1)), first)
    (others,), _ = together(samples(X, augment=noisy, views=2, seed=2).batches(4))
    assert (others != inputs).any(axis=1).all()


def test_views_of_several_inputs():
    def only_a(inputs, seed):
        return {**inputs, "a": shifted(inputs["a"], seed)}

    seen = samples({"a": X, "b": X}, augment=only_a)
    (inputs,), prints = together(seen.batches(4))
    np.testing.assert_array_equal(inputs["b"], X)
    np.testing.assert_array_equal(
        inputs["a"], X + np.arange(10, dtype="float32")[:, None]
    )
    np.testing.assert_array_equal(prints[AUGMENTED], fingerprints(inputs))


# Samples from all over the data set


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    ("count", "wanted"),
    [(100, 1), (100, 7), (100, 33), (100, 50), (100, 60), (100, 99), (100, 100)],
)
def test_spread_reaches_all_over_the_data(count, wanted, counted):
    data = tf.data.Dataset.range(count)
    seen = SampleStream(data if counted else uncounted(data), None)
    places = np.concatenate(list(seen.spread(wanted, 8).as_numpy_iterator()))
    assert len(places) == wanted
    gaps = np.diff([-1, *places, count])
    assert gaps.min() >= 1
    assert gaps.max() <= 2 * -(-count // wanted)


def test_spread_of_fewer_than_are_wanted():
    batches = list(samples(X, Y).spread(99, 4).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches), X)


@pytest.mark.parametrize("views", [1, 2])
def test_spread_sees_what_augmenting_makes(views):
    few = np.concatenate(list(samples(X, augment=noisy, views=views).spread(5, 4)))
    assert few.shape == (5, 4)
    assert (few != X[::2]).any(axis=1).all()


# What is refused at once


@pytest.mark.parametrize("data", [X, (X, Y), [X], None, "mnist"])
def test_what_is_no_data_set(data):
    with pytest.raises(TypeError, match=r"must be a `tf.data.Dataset`.*from_tensor_s"):
        SampleStream(data, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "`views` must be an integer of at least 1. Received: views=0"),
        ({"views": 1.5}, "`views` must be"),
        ({"views": "2"}, "`views` must be"),
        ({"views": True}, "`views` must be"),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
        ({"seed": None}, "`seed` must be"),
        ({"views": 2}, "`views=2` needs `augment`"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        samples(X, **options)


def test_data_without_an_end():
    with pytest.raises(ValueError, match="no end. Leave `repeat`"):
        SampleStream(dataset(X).repeat(), None)


def test_data_that_are_known_to_be_empty():
    with pytest.raises(ValueError, match="data set is empty"):
        SampleStream(dataset(X).take(0), None)


def test_data_that_turn_out_to_be_empty():
    seen = SampleStream(dataset(X).filter(lambda x: False), None)
    with pytest.raises(ValueError, match="data set is empty"):
        seen.check_repeats()


@pytest.mark.parametrize(
    "inputs",
    [
        tf.ragged.constant([[1], [1, 2]]),
        {"a": X[:2], "b": tf.ragged.constant([[1], [1, 2]])},
        tf.sparse.from_dense(X),
    ],
    ids=["ragged", "ragged among others", "sparse"],
)
@pytest.mark.parametrize("in_tuple", [True, False])
def test_inputs_that_make_no_batches(inputs, in_tuple):
    with pytest.raises(TypeError, match="Inputs must be dense tensors"):
        SampleStream(
            tf.data.Dataset.from_tensor_slices((inputs,) if in_tuple else inputs), None
        )


# What is refused beside a teacher


def teacher(*shape, name="wise"):
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(2)], name=name
    )


def images(*shape):
    return samples(np.zeros((4, *shape), "float32"), Y[:4])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), (28, 28, 1)),
        ((28, 28), (28, 28, 1)),
        ((28, 28, 1), (28, 28)),
        ((), (1,)),
    ],
)
def test_samples_that_fit(shape, expected):
    images(*shape).check_fits(teacher(*expected))


def test_samples_that_fit_a_teacher_of_all_sizes():
    inputs = keras.Input((None, None, 3))
    pooled = layers.GlobalAveragePooling2D()(inputs)
    images(9, 7, 3).check_fits(keras.Model(inputs, layers.Dense(2)(pooled)))


@pytest.mark.parametrize("shape", [(32, 32, 1), (28, 28, 3), (28,), (784,)])
def test_samples_of_another_shape(shape):
    with pytest.raises(ValueError, match="don't fit teacher 'wise'") as refusal:
        images(*shape).check_fits(teacher(28, 28, 1))
    assert "(28, 28, 1)" in str(refusal.value)
    assert str(shape) in str(refusal.value)
    assert "unbatch" not in str(refusal.value)


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28)])
@pytest.mark.parametrize("drop_remainder", [True, False])
def test_batches_in_place_of_samples(shape, drop_remainder):
    batches = tf.data.Dataset.from_tensor_slices(np.zeros((8, *shape), "float32"))
    seen = SampleStream(batches.batch(4, drop_remainder), None)
    with pytest.raises(ValueError, match="These are batches: give `dataset.unbatch"):
        seen.check_fits(teacher(28, 28, 1))


def test_what_augmenting_makes_of_samples_is_what_has_to_fit():
    def crop(inputs, seed):
        return tf.image.stateless_random_crop(inputs, (28, 28, 1), seed)

    large = np.zeros((4, 32, 32, 1), "float32")
    samples(large, augment=crop).check_fits(teacher(28, 28, 1))


def test_several_inputs_for_a_teacher_of_one():
    """As tensorflow-datasets gives them, unless it is asked for pairs."""
    image = keras.Input((4,), name="image")
    model = keras.Model(image, layers.Dense(2)(image), name="wise")
    samples({"image": X, "id": Y}).check_fits(model)  # Keras takes what it knows
    with pytest.raises(ValueError, match="'wise' takes one input.*`as_supervised"):
        samples({"picture": X, "id": Y}).check_fits(model)


def test_what_can_not_be_known_before_is_let_through():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    several = {"a": keras.Input((4,), name="a"), "b": keras.Input((9,), name="b")}
    outputs = layers.Dense(2)(layers.Concatenate()(list(several.values())))
    images(3).check_fits(Subclassed())
    samples({"a": X, "b": X}).check_fits(keras.Model(several, outputs))
    SampleStream(decoded(dataset(X), None), None).check_fits(teacher(4))


# What is refused on another day


def known(seen):
    """What a manifest tells of the inputs."""
    return json.loads(json.dumps(seen.about))["inputs"]


@pytest.mark.parametrize("inputs", [X, Y, {"a": X, "b": Y}, np.array(["a", "b"])])
def test_inputs_of_the_same_dtypes_and_shapes(inputs):
    samples(inputs).check_alike(known(samples(inputs)), "The cache:")


def test_shapes_that_are_known_in_part_only():
    """Decoding may leave sizes open which are all the same in the end."""
    for shape in (None, [None]):
        seen = SampleStream(decoded(dataset(X), shape), None)
        samples(X).check_alike(known(seen), "The cache:")
        seen.check_alike(known(samples(X)), "The cache:")


@pytest.mark.parametrize(
    "other",
    [X.astype("float64"), X[:, :3], X[:, 0], {"a": X, "b": X}, Y],
    ids=["dtype", "width", "rank", "number", "both"],
)
def test_inputs_of_another_dtype_or_shape(other):
    with pytest.raises(ValueError, match="The cache: the inputs' dtype or") as refusal:
        samples(other, Y).check_alike(known(samples(X)), "The cache:")
    assert "Expected: float32 [4]" in str(refusal.value)
    assert "batches" not in str(refusal.value)


def test_batches_on_another_day():
    batches = SampleStream(dataset(X, Y).batch(5), None)
    with pytest.raises(ValueError, match="look like batches: attach before `batch`"):
        batches.check_alike(known(samples(X)), "The cache:")


def test_about_tells_what_matters():
    about = samples(X, Y).about
    assert json.loads(json.dumps(about)) == about
    assert samples(X, WEIGHTS).about == about  # labels do not
    assert samples(X, seed=3).about == about  # without augmentation
    others = [
        samples(X[:, :2]).about,
        samples(X.astype("float64")).about,
        samples(X, augment=shifted).about,
        samples(X, augment=shifted, views=2).about,
        samples(X, augment=shifted, seed=3).about,
    ]
    assert all(others.count(other) == 1 for other in others)
    assert about not in others


@pytest.mark.parametrize(
    "repeats",
    [
        lambda data: data,
        lambda data: data.shuffle(64, seed=0, reshuffle_each_iteration=False),
        lambda data: data.map(lambda x: x + 1),
    ],
    ids=["as they are", "in one order", "mapped"],
)
@pytest.mark.parametrize("augment", [None, noisy])
def test_data_that_are_the_same_each_time(repeats, augment):
    data = tf.data.Dataset.range(64).map(lambda x: tf.cast(x, tf.float32))
    SampleStream(repeats(data), augment).check_repeats()


@pytest.mark.parametrize(
    "changes",
    [
        lambda data: data.shuffle(64),
        lambda data: data.map(lambda x: x + RANDOM.uniform(())),
    ],
    ids=["shuffled", "random"],
)
@pytest.mark.parametrize("augment", [None, noisy])
def test_data_that_are_others_each_time(changes, augment):
    data = tf.data.Dataset.range(64).map(lambda x: tf.cast(x, tf.float32))
    with pytest.raises(ValueError, match="gives other samples.*before `shuffle`"):
        SampleStream(changes(data), augment).check_repeats()


def test_augmentation_that_is_another_each_time():
    def careless(inputs, seed):
        return inputs + RANDOM.uniform(())

    with pytest.raises(ValueError, match="`augment` gives something else.*stateless"):
        samples(X, augment=careless).check_repeats()


# How much at a time


@pytest.mark.parametrize("width", [1, 100, 10_000, 300_000])
def test_a_chunk_is_of_moderate_size(width):
    seen = samples(np.zeros((2, width), "float32"), Y[:2])
    assert 1 <= seen.chunk() <= 256
    assert seen.chunk() == 1 or seen.chunk() * 4 * width <= 1 << 20
    # Neither is it so small that each sample costs as much as a chunk.
    assert seen.chunk() == 256 or (seen.chunk() + 1) * (4 * width + 16) > 1 << 20


def test_what_comes_with_a_sample_counts_too():
    seen = samples(np.zeros((2, 100), "float32"))
    assert 1 < seen.chunk(100_000) < seen.chunk()
    assert seen.chunk(1 << 21) == 1


def test_large_labels_count_too():
    """As in segmentation: they are put together as well."""
    assert samples(X[:2], np.zeros((2, 300_000), "float32")).chunk() == 1


@pytest.mark.parametrize("shape", [[None], None])
def test_what_may_differ_in_shape_comes_one_by_one(shape):
    rows = tf.data.Dataset.range(4).map(lambda row: tf.zeros(row))
    seen = SampleStream(decoded(rows, shape), None)
    assert seen.chunk() == 1
    assert [len(prints[ELEMENTS]) for prints in seen.fingerprints()] == [1] * 4


def test_many_chunks_give_the_fingerprints_in_order():
    x = np.arange(600, dtype="float32")
    found = [prints[ELEMENTS] for prints in samples(x).fingerprints()]
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found), fingerprints(x))


# Comparing with what is known


PRINTS = fingerprints(X).numpy()
TWO_VIEWS = np.concatenate([PRINTS, fingerprints(-X).numpy()])


@pytest.mark.parametrize(("at", "stop"), [(0, 10), (4, 7), (9, 10)])
def test_the_same_samples_pass(at, stop):
    check_same("The cache:", ELEMENTS, PRINTS, at, PRINTS[at:stop], 10)


@pytest.mark.parametrize(
    ("name", "at", "given", "message"),
    [
        (ELEMENTS, 4, PRINTS[[4, 6, 5]], "the order differs.*as sample 5 had"),
        (ELEMENTS, 0, PRINTS[::-1], "the order differs.*as sample 0 had"),
        (ELEMENTS, 8, TWO_VIEWS[[8, 19]], "the data differ.*as sample 9 was not"),
        (ELEMENTS, 8, PRINTS[[8, 9, 0]], "the count differs. Expected: 10 samples"),
        (ELEMENTS, 9, PRINTS[[8, 0]], "the order differs.*sample 9"),
        (AUGMENTED, 3, PRINTS[[3, 5]], "the augmentation differs.*of sample 4 another"),
    ],
    ids=["exchanged", "backwards", "another", "more", "moved and more", "view"],
)
def test_other_samples_are_told_apart(name, at, given, message):
    with pytest.raises(ValueError, match=f"The cache: {message}"):
        check_same("The cache:", name, PRINTS, at, given, 10)


def test_samples_are_counted_within_their_view():
    given = TWO_VIEWS[[13, 15]]
    with pytest.raises(ValueError, match="augmentation differs.*sample 4 "):
        check_same("The cache:", AUGMENTED, TWO_VIEWS, 13, given, 10)
