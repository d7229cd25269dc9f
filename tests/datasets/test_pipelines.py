"""Image sets as pipelines: order, batches, what is held back."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.datasets import load, load_arrays, pipelines
from tests.datasets.helpers import PREPARED, all_views, arrays_of, counted

# Small sets in the files of tensorflow-datasets

SHAPES = {
    "fashion_mnist": (28, 28, 1),
    "mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "svhn_cropped": (32, 32, 3),
}
TRAIN, TEST = 50, 11


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder where all sets are prepared, with few images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = str(tmp_path_factory.mktemp("tensorflow_datasets"))
    rng = np.random.default_rng(0)

    def split(features, size):
        samples = {
            "image": rng.integers(0, 256, (size, *features["image"].shape), "uint8"),
            "label": np.arange(size) % 10,
            "coarse_label": np.zeros(size, int),
            "id": np.full(size, b"id"),
        }
        return tf.data.Dataset.from_tensor_slices(
            {name: samples[name] for name in features}
        )

    tfds.disable_progress_bar()
    for name in SHAPES:
        builder = tfds.builder(name, data_dir=folder)
        features = builder.info.features
        tfds.dataset_builders.store_as_tfds_dataset(
            name,
            str(builder.version),
            features=features,
            split_datasets={
                "train": split(features, TRAIN),
                "test": split(features, TEST),
            },
            data_dir=folder,
        )
    tfds.enable_progress_bar()
    return folder


@pytest.fixture
def load_small(small):
    """`load` with fewer samples held back."""

    def load_small(name="cifar10", **arguments):
        return load(
            name, **{"validation": 20, "batch_size": 8, "data_dir": small, **arguments}
        )

    return load_small


def stored(name, split, folder):
    """What tensorflow-datasets gives, scaled."""
    import tensorflow_datasets as tfds

    dataset = tfds.load(name, split=split, data_dir=folder, as_supervised=True)
    images, labels = zip(*dataset.as_numpy_iterator())
    return np.stack(images).astype("float32") / 255, np.stack(labels)


@pytest.mark.parametrize("name", SHAPES)
def test_all_sets_come_in_batches(name, load_small):
    data = load_small(name)
    sizes = {"train": TRAIN - 20, "validation": 20, "test": TEST}
    for part, size in sizes.items():
        dataset = getattr(data, part)
        batches = list(dataset.as_numpy_iterator())
        assert [len(y) for _, y in batches] == [
            min(8, size - start) for start in range(0, size, 8)
        ]
        assert int(dataset.cardinality()) == len(batches)
        assert dataset.element_spec[0].shape.as_list() == [None, *SHAPES[name]]
        for x, y in batches:
            assert x.dtype == np.float32
            assert x.shape == (len(y), *SHAPES[name])
            assert x.min() >= 0
            assert 0.9 < x.max() <= 1
            assert np.issubdtype(y.dtype, np.integer)
    assert data.image_shape == SHAPES[name]
    assert data.train_size == TRAIN - 20
    assert len(data.class_names) == (100 if name == "cifar100" else 10)


@pytest.mark.parametrize("name", SHAPES)
def test_validation_and_test_come_in_order_and_as_they_are(name, load_small, small):
    data = load_small(name)
    x, y = stored(name, "train", small)
    for _ in range(2):
        for dataset, expected in (
            (data.validation, (x[30:], y[30:])),
            (data.test, stored(name, "test", small)),
        ):
            for got, one in zip(arrays_of(dataset), expected, strict=True):
                np.testing.assert_array_equal(got, one)


def test_each_sample_comes_once_an_epoch_in_changing_order(load_small, small):
    x, y = stored("cifar10", "train", small)
    train = load_small(augment=False).train
    epochs = [arrays_of(train) for _ in range(3)]
    for images, labels in epochs:
        assert counted(images, labels) == counted(x[:30], y[:30])
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not np.array_equal(epochs[one][0], epochs[other][0])
    assert not np.array_equal(epochs[0][0], x[:30])


@pytest.mark.slow
def test_shuffling_is_even(load_small):
    """Each of few samples takes each place about as often."""
    train = load_small(augment=False, validation=46, batch_size=4).train
    seen = collections.Counter()
    for _ in range(160):
        images, _ = arrays_of(train)
        seen.update((place, one.tobytes()) for place, one in enumerate(images))
    assert len(seen) == 16
    assert min(seen.values()) > 20  # 40 expected
    assert max(seen.values()) < 65


@pytest.mark.slow
def test_the_seed_alone_decides_about_batches(load_small):
    keras.utils.set_random_seed(1)
    one = load_small(seed=7).train
    keras.utils.set_random_seed(2)
    same, other = load_small(seed=7).train, load_small(seed=8).train
    for _ in range(3):
        first, second, third = arrays_of(one), arrays_of(same), arrays_of(other)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        assert not np.array_equal(first[0], third[0])


def test_an_unfinished_epoch_counts(load_small):
    one, other = load_small().train, load_small().train
    arrays_of(one)
    next(iter(other))
    np.testing.assert_array_equal(arrays_of(one)[0], arrays_of(other)[0])


def test_training_images_are_views_of_the_originals(load_small, small):
    x, y = stored("cifar10", "train", small)
    views = {
        view.tobytes(): (index, number)
        for index, image in enumerate(x[:30])
        for number, view in enumerate(all_views(image, 4))
    }
    train = load_small().train
    epochs = []
    for _ in range(2):
        images, labels = arrays_of(train)
        found = dict(views[image.tobytes()] for image in images)
        indices = [views[image.tobytes()][0] for image in images]
        assert sorted(indices) == list(range(30))
        np.testing.assert_array_equal(labels, y[indices])
        epochs.append(found)
    assert len(set(epochs[0].values())) > 10
    assert sum(epochs[0][i] != epochs[1][i] for i in range(30)) > 20


@pytest.mark.parametrize("name", ["mnist", "svhn_cropped"])
def test_sets_without_augmentation_are_trained_on_as_they_are(name, load_small, small):
    x, y = stored(name, "train", small)
    images, labels = arrays_of(load_small(name).train)
    assert counted(images, labels) == counted(x[:30], y[:30])


def test_a_fraction_or_nothing_can_be_held_back(load_small, small):
    x, _ = stored("cifar10", "train", small)
    data = load_small(validation=0.1)
    np.testing.assert_array_equal(arrays_of(data.validation)[0], x[45:])
    assert data.train_size == 45
    data = load_small(validation=0, augment=False)
    assert data.validation is None
    assert data.train_size == len(arrays_of(data.train)[0]) == TRAIN


def test_labelled_takes_the_first_and_leaves_validation_alone(load_small, small):
    x, y = stored("cifar10", "train", small)
    data = load_small(labelled=10, augment=False)
    assert data.train_size == 10
    assert int(data.train.cardinality()) == 2
    assert counted(*arrays_of(data.train)) == counted(x[:10], y[:10])
    np.testing.assert_array_equal(arrays_of(data.validation)[0], x[30:])
    assert load_small(labelled=30).train_size == 30


def test_a_model_fits_pipelines(load_small):
    data = load_small()
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(
        data.train, validation_data=data.validation, epochs=2, verbose=0
    )
    assert history.params["steps"] == 4
    assert np.isfinite(history.history["val_loss"]).all()


# Refusals of `load`


@pytest.fixture
def nothing_loaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("it was about to load")

    monkeypatch.setattr(pipelines, "builder_of", refuse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1.*=0"),
        ({"batch_size": 32.0}, "`batch_size` must be .*batch_size=32.0"),
        ({"batch_size": True}, "`batch_size` must be .*batch_size=True"),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
        ({"augment": len}, "`augment` must be True or False.*map `train`"),
        ({"validation": -1}, "`validation` must be a number .* Received: -1"),
        ({"validation": 1.0}, "a fraction between 0 and 1. Received: 1.0"),
        ({"validation": True}, "`validation` must be .* Received: True"),
        ({"validation": None}, "`validation` must be .* Received: None"),
        ({"validation": 60_000}, "a part of the 60,000 training .* is 60,000 of"),
        ({"validation": 1e-6}, "a part of the 60,000 .*: 1e-06, which is 0 of them"),
        ({"labelled": 0}, "`labelled` must be an integer of at least 1"),
        ({"labelled": 55_001}, "at most the 55,000 .* `validation=5000` leaves"),
    ],
)
def test_arguments_out_of_range_are_refused_first(nothing_loaded, arguments, message):
    with pytest.raises(ValueError, match=message):
        load("mnist", **arguments)


# Pipelines of Fashion-MNIST itself


@pytest.mark.slow
@pytest.mark.skipif(
    not any(PREPARED.glob("*/dataset_info.json")),
    reason="Fashion-MNIST is not prepared on this machine",
)
def test_pipelines_of_fashion_mnist_itself():
    pytest.importorskip("tensorflow_datasets")
    arrays = load_arrays("fashion_mnist")
    plain = load("fashion_mnist", augment=False)
    assert plain.train_size == 55_000
    assert int(plain.train.cardinality()) == 430
    assert plain.class_names == arrays.class_names
    x, y = arrays_of(plain.train)
    expected = counted(arrays.x_train[:-5000], arrays.y_train[:-5000])
    assert counted(x, y) == expected
    for dataset, x, y in (
        (plain.validation, arrays.x_train[-5000:], arrays.y_train[-5000:]),
        (plain.test, arrays.x_test, arrays.y_test),
    ):
        got = arrays_of(dataset)
        np.testing.assert_array_equal(got[0], x)
        np.testing.assert_array_equal(got[1], y)

    one, same = (load("fashion_mnist", seed=3).train for _ in range(2))
    epochs = []
    for _ in range(2):
        first, second = arrays_of(one), arrays_of(same)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        epochs.append(first[0])
    assert not np.array_equal(*epochs)
