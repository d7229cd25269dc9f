"""`--dataset`: what has a name, folders of images, and `.npz` files."""

from __future__ import annotations

import pathlib
import zipfile
from typing import Any

import keras
import numpy as np

from keras_lpd.cli.arguments import Options
from keras_lpd.cli.models import input_shape
from keras_lpd.datasets import IMAGE_SETS, Arrays, held_out, load_arrays, resized
from keras_lpd.features import is_graph

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_TESTS = ("test", "validation")

Shape = tuple[int | None, ...] | None


def load_data(options: Options, model: keras.Model) -> Arrays:
    """Loads what `--dataset` says, in the shape that the model takes.

    Images of a folder and arrays of a file come in an order that was drawn once, the
    same one every time: `default_rng(0).permutation(len(x))` of NumPy, for training
    and test samples each. As they are they may well be sorted by class, and the first
    ones are no fair part of them then.

    Args:
        options: With `dataset`, `data_dir` and `image_size`.
        model: What is to be run on it. Images of a folder become as large and as
            colourful as it takes them; images without channels get an axis for
            them where it wants one.
    """
    name, shape = options.dataset, input_shape(model)
    if name in ("digits", *IMAGE_SETS):
        return load_arrays(name, options.data_dir, options.image_size)
    path = pathlib.Path(name)
    if path.suffix == ".npz":
        return _mixed(_from_npz(path, options.image_size, shape))
    if path.is_dir():
        _check_takes_images(path, model, shape)
        return _mixed(_from_folder(path, options.image_size, shape))
    if path.exists():
        raise ValueError(f"{path} is neither a folder nor an .npz file.")
    if name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"There is no folder {path}.")
    return load_arrays(name, options.data_dir, options.image_size)


def _mixed(data: Arrays) -> Arrays:
    """The samples in the order that `load_data` tells of."""
    train, test = (
        np.random.default_rng(0).permutation(len(y))
        for y in (data.y_train, data.y_test)
    )
    return data._replace(
        x_train=data.x_train[train],
        y_train=data.y_train[train],
        x_test=data.x_test[test],
        y_test=data.y_test[test],
    )


# Folders


def _check_takes_images(path: pathlib.Path, model: keras.Model, shape: Shape) -> None:
    """Refuses models that no image can be given to, of whatever size."""
    inputs = len(model.inputs) if is_graph(model) else 1
    if inputs == 1 and (shape is None or len(shape) == 3):
        return
    taken = f"{inputs} inputs" if inputs > 1 else f"inputs of shape {shape}"
    raise ValueError(
        f"{path} is a folder, of images of height, width and channels. The model takes "
        f"{taken}. Give a model of such images"
        + ("." if inputs > 1 else ", or an .npz file of arrays as this one takes them.")
    )


def _from_folder(
    path: pathlib.Path, image_size: tuple[int, int] | None, shape: Shape
) -> Arrays:
    if image_size is None:
        height, width, _ = shape or (None, None, None)
        if height is None or width is None:
            raise ValueError(
                "The model tells no size of images: say with --image-size which one "
                f"those of {path} shall have."
            )
        image_size = height, width
    grey = shape is not None and shape[-1] == 1
    read = (image_size, "grayscale" if grey else "rgb")
    if not (path / "train").is_dir():
        x, y, names = _images(path, *read)
        test = held_out(y)
        return Arrays(x[~test], y[~test], x[test], y[test], names)
    tests = [path / name for name in _TESTS if (path / name).is_dir()]
    if not tests:
        raise ValueError(
            f"{path} has a folder `train`, but none beside it that is called "
            f"{' or '.join(_TESTS)}."
        )
    x_train, y_train, names = _images(path / "train", *read)
    x_test, y_test, others = _images(tests[0], *read)
    if names != others:
        raise ValueError(
            f"{path / 'train'} and {tests[0]} have different classes: "
            f"{', '.join(sorted({*names} ^ {*others}))} are in one of them only."
        )
    return Arrays(x_train, y_train, x_test, y_test, names)


def _images(
    path: pathlib.Path, image_size: tuple[int, int], colours: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images of a folder, the labels, and the classes: its folders, sorted."""
    import tensorflow as tf

    if not any(one.is_dir() for one in path.iterdir()):
        raise ValueError(f"{path} has no folders in it, one for each class.")
    try:
        dataset = keras.utils.image_dataset_from_directory(
            path,
            image_size=image_size,
            color_mode=colours,
            shuffle=False,
            batch_size=256,
            verbose=False,
        )
    except ValueError as error:
        if "No images found" not in str(error):
            raise
        raise ValueError(
            f"{path} has folders in it, but they have no images. Expected: one folder "
            "for each class, with .png, .jpg, .gif or .bmp files."
        ) from error
    try:
        batches = list(dataset.as_numpy_iterator())
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"{_damaged(dataset.file_paths)} is no image.") from error
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return images.astype("float32") / 255.0, labels, dataset.class_names


def _damaged(files: list[str]) -> str:
    """The first file that can't be read."""
    import tensorflow as tf

    for file in files:
        try:
            tf.io.decode_image(tf.io.read_file(file), expand_animations=False)
        except tf.errors.InvalidArgumentError:
            return file
    return "One of the files"


# Arrays


def _from_npz(
    path: pathlib.Path, image_size: tuple[int, int] | None, shape: Shape
) -> Arrays:
    arrays = _read(path)
    found: dict[str, Any] = {}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        found[x] = _inputs(path, x, arrays[x])
        found[y] = _labels(path, y, arrays[y])
        if len(found[x]) != len(found[y]) or not len(found[x]):
            raise ValueError(
                f"{path}: {x} has {len(found[x]):,} samples and {y} has "
                f"{len(found[y]):,}. Expected: as many, and at least one."
            )
        if found[x].ndim == 3 and shape is not None and len(shape) == 3:
            found[x] = found[x][..., None]
        if image_size is not None:
            if found[x].ndim != 4:
                raise ValueError(
                    f"{path}: {x} has shape {found[x].shape}. For --image-size it has "
                    "to be (samples, height, width, channels)."
                )
            found[x] = resized(found[x], image_size)
    if found["x_train"].shape[1:] != found["x_test"].shape[1:]:
        raise ValueError(
            f"{path}: x_train and x_test are of different shapes, "
            f"{found['x_train'].shape[1:]} and {found['x_test'].shape[1:]}."
        )
    classes = 1 + int(max(found["y_train"].max(), found["y_test"].max()))
    return Arrays(**found, class_names=[str(c) for c in range(classes)])


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file. Make one with `np.savez`.")
    arrays = {}
    with np.load(path, allow_pickle=False) as file:
        if missing := [name for name in _ARRAYS if name not in file]:
            raise ValueError(
                f"{path} lacks {', '.join(missing)}. Expected: {', '.join(_ARRAYS)}. "
                f"It has: {', '.join(file) or 'nothing'}."
            )
        for name in _ARRAYS:
            try:
                arrays[name] = file[name]
            except ValueError as error:
                raise ValueError(
                    f"{path}: {name} can't be read without running pickled code, which "
                    f"isn't done. Save it as an array of numbers. ({error})"
                ) from error
    return arrays


def _inputs(path: pathlib.Path, name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "biuf" or x.ndim < 2:
        raise ValueError(
            f"{path}: {name} must be an array of numbers, a row or an image for each "
            f"sample. Received: {x.dtype}, of shape {x.shape}."
        )
    if x.dtype.kind in "iu" and x.size:
        if x.min() < 0 or x.max() > 255:
            raise ValueError(
                f"{path}: {name} has integers from {x.min()} to {x.max()}. Expected: "
                "integers from 0 to 255, which are scaled to [0, 1], or floats."
            )
        return x.astype("float32") / 255.0
    x = x.astype("float32")
    if not np.isfinite(x).all():
        raise ValueError(f"{path}: {name} has NaN or infinite values.")
    return x


def _labels(path: pathlib.Path, name: str, y: np.ndarray) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "iu" or y.ndim != 1 or (y.size and y.min() < 0):
        raise ValueError(
            f"{path}: {name} must be the class of each sample, as an integer from 0. "
            f"Received: {y.dtype}, of shape {y.shape}"
            + (f", from {y.min()}." if y.size and y.dtype.kind == "i" else ".")
        )
    return y.astype("int64")
