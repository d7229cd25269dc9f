"""Against scikit-learn, and against what is slow and obvious."""

import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from keras_lpd import metrics
from keras_lpd.metrics import (
    Neighborhoods,
    continuity,
    feature_spread,
    knn_accuracy,
    nearest,
    neighbor_overlap,
    trustworthiness,
)
from tests import oracles
from tests.helpers import fresh_process

TWO_SIDED = [neighbor_overlap, trustworthiness, continuity]


@pytest.fixture
def sides(rng):
    """A teacher's features, and a student's that have something of them."""
    teacher = rng.normal(size=(90, 3)) @ rng.normal(size=(3, 20)) + 5
    student = teacher @ rng.normal(size=(20, 4)) + 10 * rng.normal(size=(90, 4))
    return teacher, student


@pytest.fixture
def labels(sides):
    """Four classes that the teacher's neighbourhoods know something of."""
    return np.digitize(sides[0][:, 0], [3, 5, 7])


# The same, slowly: of samples equally far the first come first.


def slow_ranks(features):
    """`ranks[i, j]`: sample j is the so many-th nearest of sample i."""
    n = len(features)
    _, nearest_first = oracles.nearest_neighbors(np.asarray(features, "float64"), n)
    ranks = np.zeros((n, n), int)
    for i in range(n):
        for rank, j in enumerate(nearest_first[i], 1):
            ranks[i, j] = rank
    return ranks


def slow_overlap(teacher, student, k):
    shares = []
    for one, other in zip(slow_ranks(teacher), slow_ranks(student), strict=True):
        both = [j for j in range(len(one)) if 1 <= one[j] <= k and 1 <= other[j] <= k]
        shares.append(len(both) / k)
    return np.array(shares)


def slow_trustworthiness(teacher, student, k):
    teacher, student = slow_ranks(teacher), slow_ranks(student)
    n, cost = len(teacher), 0
    for i in range(n):
        for j in range(n):
            if 1 <= student[i, j] <= k:
                cost += max(0, teacher[i, j] - k)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * cost


# Features that are hard: ties, duplicates, nothing but one point


def of_few_whole_numbers(rng):
    return rng.integers(0, 3, (40, 3))


def with_duplicates(rng):
    rows = rng.normal(size=(8, 7)) + 3
    return rows[rng.integers(0, 8, 40)]


def half_dead(rng):
    rows = rng.normal(size=(40, 5))
    return np.where(np.arange(40)[:, None] % 2, rows, 0.0)


def collapsed(rng):
    return np.full((40, 6), 0.1)


def one_hot(rng):
    return np.eye(40)


def around_one(rng):
    """Many are equally far from the first, but for the last digit of a product."""
    return np.concatenate([np.zeros((1, 15)), 0.1 * np.eye(15), rng.random((24, 15))])


def far_out(rng):
    rows = rng.normal(size=(40, 5))
    rows[7] = 1e6
    return rows


def tight_far_away(rng):
    return 1e4 + 1e-3 * rng.normal(size=(40, 5))


HARD = [
    of_few_whole_numbers,
    with_duplicates,
    half_dead,
    collapsed,
    one_hot,
    far_out,
    tight_far_away,
]


@pytest.fixture(params=HARD, ids=lambda make: make.__name__)
def hard(request, rng):
    return request.param(rng)


@pytest.fixture(params=[1, 37, 10_000], ids="blocks of {}".format)
def block(request, monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", request.param)


# nearest


@pytest.mark.parametrize("k", [1, 5, 89])
def test_nearest_equal_those_of_scikit_learn(sides, k):
    for features in sides:
        brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features)
        expected, expected_indices = brute.kneighbors()
        distances, indices = nearest(features, k)
        assert distances.dtype == "float64"
        np.testing.assert_allclose(distances, expected, rtol=1e-10)
        np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize("k", [1, 4, 39])
@pytest.mark.parametrize("make", [*HARD, around_one])
@pytest.mark.usefixtures("block")
def test_nearest_in_hard_cases(rng, make, k):
    features = make(rng)
    squared, expected = oracles.nearest_neighbors(features, k)
    distances, indices = nearest(features, k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, np.sqrt(squared), rtol=1e-12, atol=0)


def test_duplicates_are_at_distance_zero_in_their_order(rng):
    features = rng.normal(size=(50, 300)) + 100
    features[[7, 30, 41]] = features[3]
    distances, indices = nearest(features, 4)
    for i, others in ((3, [7, 30, 41]), (30, [3, 7, 41])):
        assert indices[i, :3].tolist() == others
        assert distances[i, :3].tolist() == [0, 0, 0]
        assert distances[i, 3] > 1


def test_minus_zero_is_zero():
    distances, indices = nearest([[0.0], [-0.0], [0.0], [-0.0]], 2)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert not distances.any()


def test_nobody_is_their_own_neighbor(hard):
    _, indices = nearest(hard, 10)
    for i, row in enumerate(indices):
        assert i not in row
        assert len({*row}) == 10


# The metrics


@pytest.mark.parametrize("k", [1, 5, 10, 44])
def test_trustworthiness_is_that_of_scikit_learn(sides, k):
    teacher, student = sides
    expected = sklearn_trustworthiness(teacher, student, n_neighbors=k)
    assert expected < 0.95
    np.testing.assert_allclose(trustworthiness(*sides, k), expected, rtol=1e-12)
    expected = sklearn_trustworthiness(student, teacher, n_neighbors=k)
    np.testing.assert_allclose(continuity(*sides, k), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_accuracy_is_that_of_scikit_learn_without_the_sample_itself(sides, labels, k):
    features, right = sides[1], 0
    for i in range(len(features)):
        others = np.arange(len(features)) != i
        classifier = KNeighborsClassifier(k, algorithm="brute")
        classifier.fit(features[others], labels[others])
        right += classifier.predict(features[i : i + 1])[0] == labels[i]
    expected = right / len(features)
    assert 0.3 < expected < 0.9
    assert knn_accuracy(features, labels, k) == expected


@pytest.mark.parametrize("k", [1, 5, 10, 89])
def test_overlap_by_the_formula(sides, k):
    expected = slow_overlap(*sides, k)
    shares = neighbor_overlap(*sides, k, reduction=None)
    assert shares.shape == (90,)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)
    np.testing.assert_allclose(neighbor_overlap(*sides, k), expected.mean(), rtol=1e-12)


@pytest.mark.usefixtures("block")
def test_hard_cases_by_the_formula(hard, rng):
    easy = rng.normal(size=(40, 3))
    for sides in ((easy, hard), (hard, easy), (hard, hard[::-1])):
        for k in (1, 4):
            shares = neighbor_overlap(*sides, k, reduction=None)
            np.testing.assert_allclose(shares, slow_overlap(*sides, k), rtol=1e-12)
            expected = slow_trustworthiness(*sides, k)
            np.testing.assert_allclose(trustworthiness(*sides, k), expected, rtol=1e-12)
            np.testing.assert_allclose(
                continuity(*sides[::-1], k), expected, rtol=1e-12
            )


def test_ranks_of_many_wide_duplicates(rng):
    """Products of equal samples may differ in their last digit."""
    teacher = rng.normal(size=(40, 301))[rng.integers(0, 40, 203)]
    student = rng.normal(size=(203, 2))
    expected = slow_trustworthiness(teacher, student, 5)
    np.testing.assert_allclose(trustworthiness(teacher, student), expected, rtol=1e-12)


def test_by_hand():
    teacher = np.array([[0.0], [1.0], [3.0], [7.0]])
    student = np.array([[0.0], [1.0], [5.0], [7.0]])
    # The nearest are 1, 0, 1, 2; in the student 1, 0, 3, 2.
    assert neighbor_overlap(teacher, student, k=1) == 0.75
    assert neighbor_overlap(teacher, student, 1, None).tolist() == [1, 1, 0, 1]
    # In the teacher, 3 is the third nearest of 2: two too far.
    np.testing.assert_allclose(trustworthiness(teacher, student, k=1), 1 - 2 / 16 * 2)
    # In the student, 1 is the second nearest of 2: one too far.
    np.testing.assert_allclose(continuity(teacher, student, k=1), 1 - 2 / 16)


def test_results_are_plain_floats(sides, labels):
    for metric in TWO_SIDED:
        assert type(metric(*sides, k=5)) is float
    assert type(knn_accuracy(sides[0], labels)) is float
    assert type(feature_spread(sides[0])) is float


def test_of_labels_with_as_many_votes_the_smallest_wins():
    line = np.array([0.0, 1.0, 2.0])
    assert knn_accuracy(line, [1, 0, 1], k=2) == 0  # 0 of {0, 1}, 1, 0 of {0, 1}
    assert knn_accuracy(line, [0, 1, 0], k=2) == 2 / 3
    assert knn_accuracy(line, ["a", "b", "a"], k=2) == 2 / 3
    assert knn_accuracy(line, [[0], [1], [0]], k=2) == 2 / 3
    assert knn_accuracy(line, tf.constant([[0], [1], [0]]), k=2) == 2 / 3


@pytest.mark.usefixtures("block")
def test_accuracy_of_many_classes(rng):
    features, labels = rng.normal(size=(90, 2)), rng.permutation(90)
    assert knn_accuracy(features, labels, 3) == 0
    assert knn_accuracy(np.repeat(features, 2, 0), np.repeat(labels, 2), 1) == 1


@pytest.mark.parametrize("shift", [0, 1e6])
def test_spread_is_the_root_of_the_variance(sides, shift):
    for features in sides:
        np.testing.assert_allclose(
            feature_spread(features + shift),
            np.sqrt(oracles.feature_variance(features)),
            rtol=1e-8,
        )


def test_spread_of_one_point_is_exactly_zero(rng):
    assert feature_spread(collapsed(rng)) == 0
    assert feature_spread(rng.normal(size=(1, 7))) == 0


def test_what_has_collapsed_is_not_praised(rng):
    teacher, student = rng.normal(size=(400, 5)), np.full((400, 3), 0.1)
    assert neighbor_overlap(teacher, student) < 0.1
    assert trustworthiness(teacher, student) < 0.6
    assert continuity(teacher, student) < 0.6
    assert knn_accuracy(student, np.arange(400) % 2) <= 0.5


# What changes nothing


def copied(x, rng):
    return x.copy()


def scaled_and_moved(x, rng):
    return 1e-3 * x + 7


def rotated(x, rng):
    rotation, _ = np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))
    return x @ rotation


def widened(x, rng):
    return np.pad(x, ((0, 0), (2, 3)))


@pytest.mark.parametrize("change", [copied, scaled_and_moved, rotated, widened])
@pytest.mark.parametrize("metric", TWO_SIDED)
def test_who_keeps_all_neighborhoods_gets_one(sides, rng, metric, change):
    assert metric(sides[0], change(sides[0], rng), k=5) == 1


@pytest.mark.parametrize("metric", TWO_SIDED)
@pytest.mark.parametrize("make", [*HARD, around_one])
def test_a_copy_gets_one_in_hard_cases(rng, metric, make):
    features = make(rng)
    assert metric(features, features.copy(), k=5) == 1


@pytest.mark.parametrize("metric", TWO_SIDED)
def test_the_order_of_samples_does_not_matter(sides, rng, metric):
    order = rng.permutation(len(sides[0]))
    np.testing.assert_allclose(
        metric(*(side[order] for side in sides), k=5), metric(*sides, k=5), rtol=1e-12
    )


def test_the_order_of_samples_does_not_matter_to_one_side(sides, labels, rng):
    order = rng.permutation(len(labels))
    features = sides[1]
    assert knn_accuracy(features[order], labels[order]) == knn_accuracy(
        features, labels
    )
    np.testing.assert_allclose(
        feature_spread(features[order]), feature_spread(features), rtol=1e-12
    )
    shares = neighbor_overlap(*sides, reduction=None)
    moved = neighbor_overlap(*(side[order] for side in sides), reduction=None)
    np.testing.assert_array_equal(moved, shares[order])


@pytest.mark.usefixtures("block")
def test_the_size_of_blocks_does_not_matter(sides, labels):
    teacher, student = sides
    trusted = sklearn_trustworthiness(teacher, student, n_neighbors=5)
    np.testing.assert_allclose(trustworthiness(teacher, student), trusted, rtol=1e-12)
    brute = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(teacher)
    np.testing.assert_array_equal(nearest(teacher, 5)[1], brute.kneighbors()[1])
    votes = labels[NearestNeighbors(n_neighbors=1).fit(student).kneighbors()[1][:, 0]]
    assert knn_accuracy(student, labels, 1) == np.mean(votes == labels)


# What comes in


def in_jax(x, dtype=None):
    return pytest.importorskip("jax.numpy").asarray(x, dtype)


KINDS = {
    "list": np.ndarray.tolist,
    "float16": lambda x: x.astype("float16"),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "int8": lambda x: x.astype("int8"),
    "bool": lambda x: x > 0,
    "tensorflow": tf.constant,
    "tensorflow bfloat16": lambda x: tf.constant(x, "bfloat16"),
    "jax": in_jax,
    "jax bfloat16": lambda x: in_jax(x, "bfloat16"),
    "variable": lambda x: keras.Variable(x, dtype="float32"),
    "columns first": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_arrays_are_taken(rng, kind):
    plain = rng.integers(0, 2 if kind == "bool" else 100, (30, 8)).astype("float64")
    other = rng.normal(size=(30, 2))
    given = KINDS[kind](plain)
    for one, same in zip(nearest(given, 4), nearest(plain, 4), strict=True):
        np.testing.assert_array_equal(one, same)
    for metric in TWO_SIDED:
        assert metric(given, other, k=4) == metric(plain, other, k=4)
        assert metric(other, given, k=4) == metric(other, plain, k=4)
    labels = np.arange(30) % 3
    assert knn_accuracy(given, labels, 4) == knn_accuracy(plain, labels, 4)
    assert feature_spread(given) == feature_spread(plain)


def test_features_are_not_changed(sides):
    before = [side.copy() for side in sides]
    trustworthiness(*sides)
    feature_spread(sides[0])
    for side, same in zip(sides, before, strict=True):
        np.testing.assert_array_equal(side, same)


def test_feature_maps_are_flattened(rng):
    maps = rng.normal(size=(30, 4, 5, 2))
    flat = maps.reshape(30, 40)
    other = rng.normal(size=(30, 3))
    np.testing.assert_array_equal(nearest(maps, 3), nearest(flat, 3))
    assert trustworthiness(maps, other) == trustworthiness(flat, other)
    assert feature_spread(maps) == feature_spread(flat)
    assert feature_spread(other[:, 0]) == feature_spread(other[:, :1])


def test_neighborhoods_stand_for_features_and_are_searched_once(
    sides, labels, monkeypatch
):
    known = [Neighborhoods.of(side, k=10) for side in sides]
    expected = {
        (metric, k): metric(*sides, k=k) for metric in TWO_SIDED for k in (5, 10)
    }
    accuracy, spread = knn_accuracy(sides[1], labels, 7), feature_spread(sides[1])
    searched = nearest(sides[1], 3)

    monkeypatch.setattr(metrics, "_search", None)
    for (metric, k), value in expected.items():
        assert metric(*known, k=k) == value
    assert knn_accuracy(known[1], labels, 7) == accuracy
    assert feature_spread(known[1]) == spread
    for one, other in zip(nearest(known[1], 3), searched, strict=True):
        np.testing.assert_array_equal(one, other)
    assert Neighborhoods.of(known[0], k=3).indices.shape == (90, 3)


@pytest.mark.parametrize("metric", TWO_SIDED)
def test_one_side_may_be_neighborhoods(sides, metric):
    teacher, student = sides
    expected = metric(teacher, student, k=5)
    assert metric(Neighborhoods.of(teacher, k=5), student, k=5) == expected
    assert metric(teacher, Neighborhoods.of(student, k=5), k=5) == expected


# What is refused


def each_with(features, labels, k=2):
    """Calls that each bring in these features."""
    fine = np.arange(len(np.atleast_1d(features)), dtype="float64")
    yield lambda: nearest(features, k)
    yield lambda: Neighborhoods.of(features, k)
    yield lambda: knn_accuracy(features, labels, k)
    for metric in TWO_SIDED:
        yield lambda metric=metric: metric(features, fine, k)
        yield lambda metric=metric: metric(fine, features, k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_features_must_be_finite(rng, value):
    features = rng.normal(size=(20, 3))
    features[[4, 9], 1] = value
    message = r"must be finite.*2 of 20 samples, first in sample 4\. Check the model"
    for call in [*each_with(features, np.zeros(20)), lambda: feature_spread(features)]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("features", [1.0, np.zeros((0, 3)), np.zeros((9, 0))])
def test_features_must_have_a_batch_axis_and_some_width(features):
    calls = each_with(features, np.zeros(9))
    message = r"must have a batch axis and some width.*Received: shape \("
    for call in [*calls, lambda: feature_spread(features)]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("k", [0, -1, True, 2.5, None, "5"])
def test_k_must_be_a_positive_integer(sides, k):
    for call in each_with(sides[1], np.zeros(90), k):
        with pytest.raises(ValueError, match="`k` must be an integer of at least 1"):
            call()


def test_k_may_be_an_integer_of_numpy(sides):
    assert neighbor_overlap(*sides, np.int64(5)) == neighbor_overlap(*sides, 5)


@pytest.mark.parametrize("k", [20, 21])
def test_there_must_be_k_others(rng, k):
    features = rng.normal(size=(20, 3))
    message = f"`k` must be below the number of samples, 20. Received: k={k}. Use"
    calls = (
        lambda: nearest(features, k),
        lambda: neighbor_overlap(features, features, k),
        lambda: knn_accuracy(features, np.zeros(20), k),
    )
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("metric", [trustworthiness, continuity])
@pytest.mark.parametrize(("n", "k"), [(20, 10), (21, 11), (2, 1), (1, 1)])
def test_k_must_be_below_half_as_in_scikit_learn(rng, metric, n, k):
    features = rng.normal(size=(n, 3))
    with pytest.raises(ValueError, match="should be less than n_samples / 2"):
        sklearn_trustworthiness(features, features, n_neighbors=k)
    message = f"`k` must be below half the number of samples, {n}. Received: k={k}."
    with pytest.raises(ValueError, match=message):
        metric(features, features, k)


@pytest.mark.parametrize("metric", [trustworthiness, continuity])
@pytest.mark.parametrize(("n", "k"), [(20, 9), (21, 10), (3, 1)])
def test_k_may_be_just_below_half(rng, metric, n, k):
    sides = rng.normal(size=(2, n, 3))
    given = sides if metric is trustworthiness else sides[::-1]
    expected = sklearn_trustworthiness(*given, n_neighbors=k)
    np.testing.assert_allclose(metric(*sides, k), expected, rtol=1e-12)


@pytest.mark.parametrize("metric", TWO_SIDED)
@pytest.mark.parametrize("known", [False, True])
def test_both_sides_must_be_of_the_same_samples(sides, metric, known):
    teacher, student = sides[0], sides[1][:80]
    if known:
        teacher = Neighborhoods.of(teacher)
    message = "Received: 90 samples of the teacher, 80 of the student"
    with pytest.raises(ValueError, match=message):
        metric(teacher, student)


def test_neighborhoods_must_have_as_many_neighbors(sides):
    few = Neighborhoods.of(sides[0], k=4)
    message = r"at most 4.*Received: k=5\. .*`Neighborhoods.of\(features, k=5\)`"
    for call in (
        lambda: nearest(few, 5),
        lambda: trustworthiness(few, sides[1], 5),
        lambda: continuity(sides[1], few, 5),
        lambda: knn_accuracy(few, np.zeros(90), 5),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("shape", [(89,), (91,), (90, 3), (1, 90), ()])
def test_labels_must_be_one_a_sample(sides, shape):
    message = r"of shape \(90,\)\. Received: shape \(.*np.argmax"
    with pytest.raises(ValueError, match=message):
        knn_accuracy(sides[0], np.zeros(shape))


@pytest.mark.parametrize("reduction", ["sum", "none", True, 0])
def test_reduction_must_be_mean_or_none(sides, reduction):
    message = "`reduction` must be 'mean' or None. Received: reduction="
    with pytest.raises(ValueError, match=message):
        neighbor_overlap(*sides, reduction=reduction)


# Memory, and what it takes to be imported


MEASURE = """
import numpy as np
from keras_lpd import metrics


def status(field):
    with open("/proc/self/status") as lines:
        return next(int(s.split()[1]) * 1024 for s in lines if s.startswith(field))


features = np.random.default_rng(0).random((4096, 16), "float32")
metrics.trustworthiness(features[:64], features[:64])
before = status("VmRSS")
metrics.trustworthiness(features, features[:, :8])
metrics.trustworthiness(np.zeros((4096, 16)), features[:, :8])
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_no_matrix_of_all_by_all_is_held():
    assert int(fresh_process(MEASURE).split()[-1]) < 4096**2 * 8


def test_neither_scikit_learn_nor_tensorflow_is_imported():
    script = "import sys, keras_lpd; had = {*sys.modules}; import keras_lpd.metrics; "
    script += "new = {m.split('.')[0] for m in {*sys.modules} - had}; print(new)"
    assert fresh_process(script).strip() in ("{'keras_lpd'}", "set()")
