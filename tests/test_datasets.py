import gzip
import io
import os
import pathlib
import sys
import types

import numpy as np
import pytest

from keras_lpd import datasets
from keras_lpd.datasets import load_arrays, restore_gzip_header

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
    message = "Known data sets are digits, fashion_mnist. Received: 'mnst'"
    with pytest.raises(ValueError, match=message):
        load_arrays("mnst")


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
