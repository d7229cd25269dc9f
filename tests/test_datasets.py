import collections
import gzip
import io
import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import TeacherCache, datasets
from keras_lpd.datasets import augmentation, load, load_arrays, restore_gzip_header

PREPARED = pathlib.Path("~/tensorflow_datasets/fashion_mnist").expanduser()
DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
CONTENT = b"pixels " * 1000


def gzip_without_name():
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(CONTENT)
    return buffer.getvalue()


# Digits


def test_digits_come_as_images_and_labels():
    pytest.importorskip("sklearn")
    data = load_arrays("digits")
    assert data.x_train.shape == (1347, 8, 8, 1)
    assert data.x_test.shape == (450, 8, 8, 1)
    assert data.y_train.shape == (1347,)
    assert data.y_test.shape == (450,)
    assert data.class_names == list("0123456789")
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        assert np.issubdtype(y.dtype, np.integer)
        assert set(y) == set(range(10))


def test_digits_are_split_without_overlap_or_loss():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    everything = sklearn_datasets.load_digits()
    data = load_arrays("digits")

    train = {x.tobytes(): y for x, y in zip(data.x_train, data.y_train, strict=True)}
    test = {x.tobytes(): y for x, y in zip(data.x_test, data.y_test, strict=True)}

    assert not train.keys() & test.keys()
    images = (everything.images / 16).astype("float32")
    assert {**train, **test} == {
        x.tobytes(): y for x, y in zip(images, everything.target, strict=True)
    }


def test_digits_are_split_evenly_over_the_classes():
    pytest.importorskip("sklearn")
    data = load_arrays("digits")
    train, test = np.bincount(data.y_train), np.bincount(data.y_test)
    np.testing.assert_allclose(test, (train + test) / 4, atol=1)


def test_digits_are_split_the_same_way_every_time():
    pytest.importorskip("sklearn")
    np.random.seed(1)
    one = load_arrays("digits")
    np.random.seed(2)
    other = load_arrays("digits")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_unknown_names_are_refused():
    pytest.importorskip("tensorflow_datasets")
    message = "Known data sets are digits and those .* Received: 'mnst'. .* 'mnist'?"
    with pytest.raises(ValueError, match=message):
        load_arrays("mnst")


def test_digits_in_another_size():
    pytest.importorskip("sklearn")
    data, plain = load_arrays("digits", image_size=(4, 16)), load_arrays("digits")
    assert data.x_train.shape == (1347, 4, 16, 1)
    assert data.x_test.shape == (450, 4, 16, 1)
    assert (data.x_train.min(), data.x_train.dtype) == (0, np.float32)
    expected = plain.x_test.reshape(450, 4, 2, 8, 1).mean(axis=2)
    np.testing.assert_allclose(data.x_test[:, :, ::2], expected, atol=0.3)
    np.testing.assert_array_equal(data.y_test, plain.y_test)


def test_a_fifth_of_each_class_is_held_out_the_same_way():
    labels = np.repeat([3, 0, 7], [50, 10, 25])
    chosen = datasets.held_out(labels)
    np.testing.assert_array_equal(np.bincount(labels[chosen])[[0, 3, 7]], [2, 10, 5])
    np.testing.assert_array_equal(chosen, datasets.held_out(labels))


# Any set of tensorflow-datasets, by small ones that are made here


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Registers small sets with tensorflow-datasets; gives the folder for them."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        splits = ("train", "test")
        shape = (4, 4, 3)
        unlabelled = ()

        def _info(self):
            label = tfds.features.ClassLabel(names=["ape", "bee"])
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {"image": tfds.features.Image(shape=self.shape), "label": label}
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            return {name: self._generate_examples(name) for name in self.splits}

        def _generate_examples(self, split):
            for index in range(20):
                image = np.full((4, 4 + (self.shape[1] is None) * index, 3), 10 * index)
                label = -1 if split in self.unlabelled else index % 2
                yield index, {"image": image.astype("uint8"), "label": label}

    class SmallImages(Small):
        pass

    class SmallTrainOnly(Small):
        splits = ("train",)

    class SmallUnlabelledTest(Small):
        splits = ("train", "test", "validation")
        unlabelled = ("test",)

    class SmallOfAllSizes(Small):
        shape = (None, None, 3)

    class SmallNumbers(Small):
        def _info(self):
            features = {"x": tfds.features.Scalar(np.float32)}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def download_and_prepare(self, **kwargs):
            raise AssertionError("it was about to be downloaded")

    return str(tmp_path_factory.mktemp("tfds"))


def test_any_images_with_classes_are_loaded(made):
    data = load_arrays("small_images", made)
    assert data.class_names == ["ape", "bee"]
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert (x.shape, x.dtype) == ((20, 4, 4, 3), np.float32)
        index = np.rint(x[:, 0, 0, 0] * 25.5)
        np.testing.assert_array_equal(np.sort(index), np.arange(20))
        np.testing.assert_array_equal(y, index % 2)


def test_without_a_test_split_a_fifth_is_tested_on(made):
    data = load_arrays("small_train_only", made)
    assert (data.x_train.shape, data.x_test.shape) == ((16, 4, 4, 3), (4, 4, 4, 3))
    np.testing.assert_array_equal(np.bincount(data.y_test), [2, 2])


def test_a_test_split_without_labels_is_passed_over(made):
    data = load_arrays("small_unlabelled_test", made)
    assert len(data.x_test) == 20
    assert data.y_test.min() == 0


def test_images_of_all_sizes_need_one(made):
    with pytest.raises(ValueError, match=r"'small_of_all_sizes' differ in size.*size="):
        load_arrays("small_of_all_sizes", made)
    data = load_arrays("small_of_all_sizes", made, image_size=(6, 5))
    assert data.x_train.shape == (20, 6, 5, 3)
    index = data.x_train[:, 0, 0, 0] * 25.5
    np.testing.assert_allclose(np.sort(index), np.arange(20), atol=1e-4)


def test_what_has_no_images_is_refused_before_any_download(made):
    with pytest.raises(ValueError, match="'small_numbers' .* Expected: images of"):
        load_arrays("small_numbers", made)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("fashion_mnist", "tensorflow_datasets", "tensorflow-datasets"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"needs {package}.*pip install 'keras-lpd\[data\]'"
    with pytest.raises(ImportError, match=message):
        load_arrays(name)


# The gzip header


def test_a_gzip_file_gets_its_name_and_time_back():
    packed = gzip_without_name()
    assert not packed[3] & 0x08

    restored = restore_gzip_header(packed, "pixels-idx3", 1504176606)

    assert gzip.decompress(restored) == CONTENT
    assert restored[:3] == packed[:3]
    assert restored[3] == packed[3] | 0x08
    assert int.from_bytes(restored[4:8], "little") == 1504176606
    assert restored[8:10] == packed[8:10]
    assert restored[10:22] == b"pixels-idx3\0"
    assert restored[22:] == packed[10:]


def test_the_gzip_module_reads_the_restored_file(tmp_path):
    file = tmp_path / "pixels.gz"
    file.write_bytes(restore_gzip_header(gzip_without_name(), "pixels", 1504176627))
    with gzip.open(file) as opened:
        assert opened.read() == CONTENT
        assert opened.mtime == 1504176627


def test_the_header_is_the_one_that_gzip_writes(tmp_path):
    with gzip.GzipFile(tmp_path / "pixels.gz", "wb", mtime=1504176606) as file:
        file.write(CONTENT)
    original = (tmp_path / "pixels.gz").read_bytes()
    restored = restore_gzip_header(gzip_without_name(), "pixels", 1504176606)
    assert restored == original


# Fashion-MNIST, with stand-ins for tensorflow-datasets


class Builder:
    """What `_load_fashion_mnist` sees of a builder whose data can't be had."""

    def __init__(self, folder):
        self.data_path = folder / "fashion_mnist" / "3.0.1"
        self.found = None

    def download_and_prepare(self, download_config):
        manual_dir = download_config.manual_dir
        if manual_dir is not None:
            self.found = {
                file.name: file.read_bytes()
                for file in pathlib.Path(manual_dir).iterdir()
            }
        raise ConnectionError("no route to host")


@pytest.fixture
def builder(monkeypatch, tmp_path):
    builder = Builder(tmp_path / "data")
    module = types.ModuleType("tensorflow_datasets")
    module.builder = lambda name, data_dir=None: builder
    module.download = types.SimpleNamespace(DownloadConfig=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    monkeypatch.setattr(datasets, "_DEBIAN", tmp_path / "debian")
    return builder


def test_where_the_data_can_not_be_had_the_error_says_what_to_do(builder, tmp_path):
    with pytest.raises(RuntimeError) as error:
        load_arrays("fashion_mnist")
    message = str(error.value)
    assert "can't be downloaded (ConnectionError: no route to host)" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "copy a prepared `fashion_mnist` folder of tensorflow-datasets" in message
    assert message.endswith(f"to {tmp_path / 'data'}.")
    assert isinstance(error.value.__cause__, ConnectionError)
    assert builder.found is None


def test_debian_files_are_restored_for_tensorflow_datasets(builder, tmp_path):
    folder = tmp_path / "debian"
    folder.mkdir()
    stems = [
        f"{part}-{kind}-ubyte"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    for stem in stems:
        (folder / f"{stem}.gz").write_bytes(gzip_without_name())

    with pytest.raises(RuntimeError):
        load_arrays("fashion_mnist")

    assert builder.found.keys() == {f"{stem}.gz" for stem in stems}
    for stem in stems:
        restored = builder.found[f"{stem}.gz"]
        assert gzip.decompress(restored) == CONTENT
        assert restored[10:].startswith(stem.encode() + b"\0")
        assert int.from_bytes(restored[4:8], "little") == (
            1504176606 if stem.startswith("train") else 1504176627
        )


def test_prepared_data_is_not_made_again(builder, tmp_path):
    (tmp_path / "debian").mkdir()
    builder.data_path.mkdir(parents=True)
    with pytest.raises(RuntimeError):
        load_arrays("fashion_mnist")
    assert builder.found is None


# Fashion-MNIST itself


@pytest.mark.parametrize(
    "source", ["prepared", pytest.param("debian", marks=pytest.mark.slow)]
)
def test_fashion_mnist_itself(source, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    if source == "prepared":
        if not any(PREPARED.glob("*/dataset_info.json")):
            pytest.skip("Fashion-MNIST is not prepared on this machine")
        os.symlink(PREPARED, tmp_path / "fashion_mnist")
    elif not DEBIAN.exists():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")

    data = load_arrays("fashion_mnist", data_dir=str(tmp_path))

    assert data.x_train.shape == (60_000, 28, 28, 1)
    assert data.x_test.shape == (10_000, 28, 28, 1)
    for x, y, count in (
        (data.x_train, data.y_train, 6000),
        (data.x_test, data.y_test, 1000),
    ):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        np.testing.assert_array_equal(np.bincount(y), [count] * 10)
    assert data.class_names[0] == "T-shirt/top"
    assert len(data.class_names) == 10


# Pipelines, of small sets in the files of tensorflow-datasets

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


def arrays_of(dataset):
    images, labels = zip(*dataset.as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


def stored(name, split, folder):
    """What tensorflow-datasets gives, scaled."""
    import tensorflow_datasets as tfds

    dataset = tfds.load(name, split=split, data_dir=folder, as_supervised=True)
    images, labels = zip(*dataset.as_numpy_iterator())
    return np.stack(images).astype("float32") / 255, np.stack(labels)


def counted(images, labels):
    return collections.Counter(
        (x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)
    )


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

    monkeypatch.setattr(datasets, "_prepared", refuse)


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


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar_10", "Did you mean 'cifar10'?"),
        ("Fashion-MNIST", "Did you mean 'fashion_mnist'?"),
        ("svhn", "Did you mean 'svhn_cropped'?"),
        ("digits", "`load_arrays` has 'digits'."),
        (None, "Received: None."),
    ],
)
@pytest.mark.parametrize("function", [load, augmentation])
def test_unknown_image_sets_are_refused(nothing_loaded, function, name, hint):
    with pytest.raises(ValueError) as error:
        function(name)
    message = str(error.value)
    assert message.startswith(
        "Known image sets are fashion_mnist, mnist, cifar10, cifar100, svhn_cropped. "
        f"Received: {name!r}."
    )
    assert message.endswith(hint)


def test_load_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-lpd\[data\]'"):
        load("cifar10")


def test_load_says_what_to_do_without_data(builder, tmp_path):
    (tmp_path / "debian").mkdir()  # has no part in the others
    with pytest.raises(RuntimeError) as error:
        load("cifar100")
    message = str(error.value)
    assert message.startswith("CIFAR-100 is not on this machine")
    assert "(ConnectionError: no route to host)" in message
    assert "`data_dir=`" in message
    assert "copy a prepared `cifar100` folder" in message
    assert message.endswith(f"to {tmp_path / 'data'}.")
    assert "Debian" not in message
    assert builder.found is None

    with pytest.raises(RuntimeError, match="apt-get install dataset-fashion-mnist"):
        load("fashion_mnist")


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, keras_lpd; before = set(sys.modules); import keras_lpd.datasets;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert not new & {'tensorflow', 'tensorflow_datasets', 'sklearn'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Augmentation


def all_views(image, padding):
    """Every crop of the padded image, and every one flipped, one after another."""
    height, width, _ = image.shape
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[top : top + height, left : left + width]
            yield crop
            yield crop[:, ::-1]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize(
    ("name", "padding", "shape"),
    [
        ("cifar10", 4, (32, 32, 3)),
        ("cifar100", 4, (32, 32, 3)),
        ("fashion_mnist", 2, (28, 28, 1)),
        ("cifar10", 4, (5, 7, 2)),
    ],
)
def test_all_shifts_and_flips_occur_about_as_often(name, padding, shape, dtype):
    image = np.random.default_rng(0).integers(1, 256, shape).astype(dtype)
    views = [view.tobytes() for view in all_views(image, padding)]
    number = {view: index for index, view in enumerate(views)}
    assert len(number) == 2 * (2 * padding + 1) ** 2

    augment, each = augmentation(name), 100
    batch = np.repeat(image[None], each * len(number), axis=0)
    augmented = augment(batch, (3, 5)).numpy()

    assert augmented.dtype == dtype
    seen = np.bincount([number[one.tobytes()] for one in augmented])
    assert len(seen) == len(number)
    assert seen.min() > each / 2
    assert seen.max() < each * 1.6


def test_single_images_are_changed_as_the_seed_says():
    augment = augmentation("cifar10")
    image = np.random.default_rng(0).random((32, 32, 3), "float32")
    views = {view.tobytes() for view in all_views(image, 4)}
    seen = set()
    for index in range(40):
        seed = tf.constant([0, index], tf.int64)
        once, again = augment(image, seed), augment(tf.constant(image), seed)
        assert once.shape == (32, 32, 3)
        assert once.dtype == tf.float32
        np.testing.assert_array_equal(once, again)
        seen.add(once.numpy().tobytes())
    assert seen <= views
    assert len(seen) > 25


def test_mnist_and_svhn_have_no_augmentation():
    assert augmentation("mnist") is None
    assert augmentation("svhn_cropped") is None


def test_augmentation_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*\(28, 28\)"):
        augmentation("fashion_mnist")(np.zeros((28, 28)), (0, 0))


def test_augmentation_serves_a_teacher_cache(tmp_path):
    images = np.random.default_rng(0).random((6, 8, 8, 3), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(6)))
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    teacher = keras.Model(inputs, keras.layers.Dense(10)(features))

    augment = augmentation("cifar10")
    cache = TeacherCache.build(
        teacher, dataset, tmp_path / "cache", views=2, augment=augment, verbose=0
    )
    attached = list(cache.attach(dataset, augment=augment).as_numpy_iterator())

    assert len(attached) == 12
    for index, (x, label) in enumerate(attached):
        assert label == index % 6
        views = {view.tobytes() for view in all_views(images[index % 6], 4)}
        assert x["inputs"].tobytes() in views


# Pipelines of Fashion-MNIST itself


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
