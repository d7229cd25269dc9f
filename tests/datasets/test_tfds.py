"""What tensorflow-datasets has, and how it is had."""

import gzip
import io
import pathlib
import subprocess
import sys
import types

import pytest

from keras_lpd.datasets import augmentation, load, load_arrays, tfds
from keras_lpd.datasets.tfds import restore_gzip_header

CONTENT = b"pixels " * 1000


def gzip_without_name():
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(CONTENT)
    return buffer.getvalue()


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


# What is put on disk, with stand-ins for tensorflow-datasets


class Builder:
    """What `prepare` sees of a builder whose data can't be had."""

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
    monkeypatch.setattr(tfds, "DEBIAN", tmp_path / "debian")
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


# What is not known, or not installed


def test_unknown_names_are_refused():
    pytest.importorskip("tensorflow_datasets")
    message = "Known data sets are digits and those .* Received: 'mnst'. .* 'mnist'?"
    with pytest.raises(ValueError, match=message):
        load_arrays("mnst")


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
def test_unknown_image_sets_are_refused(function, name, hint):
    with pytest.raises(ValueError) as error:
        function(name)
    message = str(error.value)
    assert message.startswith(
        "Known image sets are fashion_mnist, mnist, cifar10, cifar100, svhn_cropped. "
        f"Received: {name!r}."
    )
    assert message.endswith(hint)


@pytest.mark.parametrize("function", [load, load_arrays])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, function):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"needs tensorflow-datasets.*pip install 'keras-lpd\[data\]'"
    with pytest.raises(ImportError, match=message):
        function("fashion_mnist")


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, keras_lpd; before = set(sys.modules); import keras_lpd.datasets;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert not new & {'tensorflow', 'tensorflow_datasets', 'sklearn'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
