"""Data to try things on: scikit-learn's digits, and image sets through tfds."""

from __future__ import annotations

import pathlib
import tempfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

NAMES = ("digits", "fashion_mnist")
"""What `load_arrays` can load."""

_DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")

# When the original gzip files were made, in seconds since 1970.
_FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": 1504176606,
    "train-labels-idx1-ubyte": 1504176606,
    "t10k-images-idx3-ubyte": 1504176627,
    "t10k-labels-idx1-ubyte": 1504176627,
}


class Arrays(NamedTuple):
    """A data set in memory: float32 images in [0, 1], integer labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: list[str]


def load_arrays(name: str, data_dir: str | None = None) -> Arrays:
    """Loads a small data set into memory.

    Args:
        name: `"digits"`, the 1,797 images of 8x8 that come with scikit-learn,
            a quarter of them for testing; or `"fashion_mnist"`, 70,000 images
            of 28x28, through tensorflow-datasets. On a machine without
            internet that one is made from the files of Debian's package
            `dataset-fashion-mnist`, where it is installed.
        data_dir: Where tensorflow-datasets keeps its data. Defaults to its
            own default, `~/tensorflow_datasets`.

    Returns:
        The images, of shape `(samples, height, width, 1)`, and labels, split
        the same way every time.

    Raises:
        ValueError: If the name is unknown.
        ImportError: If the package that has the data is not installed.
        RuntimeError: If the data can't be had; says what to do.

    Example:

    >>> data = load_arrays("digits")
    >>> data.x_train.shape
    (1347, 8, 8, 1)
    """
    if name == "digits":
        return _load_digits()
    if name == "fashion_mnist":
        return _load_fashion_mnist(data_dir)
    raise ValueError(f"Known data sets are {', '.join(NAMES)}. Received: {name!r}")


def _load_digits() -> Arrays:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise _missing("scikit-learn") from error

    digits = load_digits()
    images = (digits.images / 16.0).astype("float32")[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return Arrays(x_train, y_train, x_test, y_test, [str(c) for c in range(10)])


def _load_fashion_mnist(data_dir: str | None) -> Arrays:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise _missing("tensorflow-datasets") from error

    builder = tfds.builder("fashion_mnist", data_dir=data_dir)
    with tempfile.TemporaryDirectory() as folder:
        manual_dir = None
        try:
            if not builder.data_path.exists() and _DEBIAN.exists():
                manual_dir = folder
                for stem, time in _FASHION_MNIST_FILES.items():
                    file = pathlib.Path(folder, f"{stem}.gz")
                    packed = (_DEBIAN / file.name).read_bytes()
                    file.write_bytes(restore_gzip_header(packed, stem, time))
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        except Exception as error:
            raise RuntimeError(
                "Fashion-MNIST is not on this machine and can't be downloaded "
                f"({type(error).__name__}: {error}). Without internet, install "
                "Debian's package: `apt-get update && apt-get install "
                "dataset-fashion-mnist`; or copy a prepared `fashion_mnist` folder "
                f"of tensorflow-datasets to {builder.data_path.parent.parent}."
            ) from error

    (x_train, y_train), (x_test, y_test) = (
        tfds.as_numpy(
            builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        )
        for split in ("train", "test")
    )
    names = builder.info.features["label"].names
    return Arrays(_scaled(x_train), y_train, _scaled(x_test), y_test, names)


def _scaled(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255.0


def restore_gzip_header(packed: bytes, name: str, time: int) -> bytes:
    """Puts a file name and a time back into the header of a gzip file.

    Debian's package dropped both from the original files; with them back the
    checksums are those that tensorflow-datasets expects.
    """
    flags = packed[3] | 0x08  # FNAME
    if flags == packed[3]:
        return packed
    return b"".join(
        (
            packed[:3],
            bytes([flags]),
            time.to_bytes(4, "little"),
            packed[8:10],
            name.encode() + b"\0",
            packed[10:],
        )
    )


def _missing(package: str) -> ImportError:
    return ImportError(
        f"This needs {package}. Install it with `pip install 'keras-lpd[data]'`."
    )
