"""Image sets as tensorflow-datasets has them: known by name, and put on disk."""

from __future__ import annotations

import difflib
import pathlib
import tempfile
from typing import Any, NamedTuple

import numpy as np


class ImageSet(NamedTuple):
    """What is known of an image set before it is there."""

    title: str
    train_size: int
    padding: int | None  # Of its augmentation, if it has one.


_IMAGE_SETS = {
    "fashion_mnist": ImageSet("Fashion-MNIST", 60_000, 2),
    "mnist": ImageSet("MNIST", 60_000, None),
    "cifar10": ImageSet("CIFAR-10", 50_000, 4),
    "cifar100": ImageSet("CIFAR-100", 50_000, 4),
    "svhn_cropped": ImageSet("SVHN", 73_257, None),
}

IMAGE_SETS = tuple(_IMAGE_SETS)
"""What `load` can load."""

DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")

# When the original gzip files were made, in seconds since 1970.
_FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": 1504176606,
    "train-labels-idx1-ubyte": 1504176606,
    "t10k-images-idx3-ubyte": 1504176627,
    "t10k-labels-idx1-ubyte": 1504176627,
}


def image_set(name: str) -> ImageSet:
    """What is known of an image set; refuses unknown names."""
    if name in IMAGE_SETS:
        return _IMAGE_SETS[name]
    message = f"Known image sets are {', '.join(IMAGE_SETS)}. Received: {name!r}."
    if name == "digits":
        message += f" `load_arrays` has {name!r}."
    elif near := difflib.get_close_matches(str(name).lower(), IMAGE_SETS, 1, 0.5):
        message += f" Did you mean {near[0]!r}?"
    raise ValueError(message)


def builder_of(name: str, data_dir: str | None) -> Any:
    """The builder of tensorflow-datasets, which knows what a set is like."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "This needs tensorflow-datasets. Install it with "
            "`pip install 'keras-lpd[data]'`."
        ) from error

    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        message = (
            "Known data sets are digits and those of tensorflow-datasets, such as "
            f"{', '.join(IMAGE_SETS)}. Received: {name!r}."
        )
        if near := difflib.get_close_matches(str(name).lower(), known, 1, 0.5):
            message += f" Did you mean {near[0]!r}?"
        raise ValueError(message) from None


def prepare(name: str, builder: Any) -> None:
    """Sees to it that the data is on disk."""
    import tensorflow_datasets as tfds

    title = _IMAGE_SETS[name].title if name in _IMAGE_SETS else f"{name!r}"
    in_debian = name == "fashion_mnist"
    with tempfile.TemporaryDirectory() as folder:
        manual_dir = None
        try:
            if in_debian and not builder.data_path.exists() and DEBIAN.exists():
                manual_dir = folder
                for stem, time in _FASHION_MNIST_FILES.items():
                    file = pathlib.Path(folder, f"{stem}.gz")
                    packed = (DEBIAN / file.name).read_bytes()
                    file.write_bytes(restore_gzip_header(packed, stem, time))
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        except Exception as error:
            package = (
                "install Debian's package: `apt-get update && apt-get install "
                "dataset-fashion-mnist`; or "
            )
            raise RuntimeError(
                f"{title} is not on this machine and can't be "
                f"downloaded ({type(error).__name__}: {error}). Without internet, "
                f"{package if in_debian else ''}name the folder that has it with "
                f"`data_dir=`; or copy a prepared `{name}` folder of "
                f"tensorflow-datasets to {builder.data_path.parent.parent}."
            ) from error


def whole(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, as bytes, and their labels, in a fixed order."""
    import tensorflow_datasets as tfds

    return tfds.as_numpy(
        builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
    )


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
