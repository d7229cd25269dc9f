"""Sheets are decoded again, and held against the images that went in."""

import io
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_lpd.tensorboard.thumbnails import sprite_sheet


def decoded(sheet):
    with Image.open(io.BytesIO(sheet.png)) as image:
        assert image.format == "PNG"
        return np.array(image)


def cells(sheet):
    """The thumbnails, in the order in which the Projector counts them."""
    pixels = decoded(sheet)
    side = sheet.columns
    assert pixels.shape[:2] == (side * sheet.height, side * sheet.width)
    return [
        pixels[
            row * sheet.height : (row + 1) * sheet.height,
            column * sheet.width : (column + 1) * sheet.width,
        ]
        for row in range(side)
        for column in range(side)
    ]


def assert_shows(images, expected):
    """Expected are bytes, in the shape in which they are shown."""
    shown = cells(sprite_sheet(images))
    for thumbnail, image in zip(shown, expected, strict=False):
        np.testing.assert_array_equal(thumbnail, image)
    for empty in shown[len(expected) :]:
        assert not empty.any()


@pytest.fixture
def images(rng):
    """Five images of 8 x 8 in three colours, from black to white."""
    images = rng.integers(0, 256, (5, 8, 8, 3)).astype("uint8")
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    return images


# Kinds of images


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_come_out_as_they_went_in(rng, channels):
    images = rng.integers(0, 256, (5, 8, 8, channels)).astype("uint8")
    assert_shows(images, images)


def test_images_of_one_channel_are_grey(images):
    grey = images[..., :1]
    assert_shows(grey, grey[..., 0])
    assert_shows(grey[..., 0], grey[..., 0])


@pytest.mark.usefixtures("channels_first")
def test_channels_may_come_first(images):
    assert_shows(np.moveaxis(images, -1, 1), images)
    assert_shows(images[..., 0], images[..., 0])
    assert sprite_sheet(images) is None


def test_tensors_and_lists_are_taken(images):
    assert_shows(tf.constant(images), images)
    assert_shows(images.tolist(), images)
    assert_shows(tf.constant(images / 255, "float32"), images)


def test_images_are_not_changed(images):
    floats = images / 255
    before = floats.copy()
    sprite_sheet(floats)
    np.testing.assert_array_equal(floats, before)


# Kinds of numbers


FLOATS = ["float32", "float64", ml_dtypes.bfloat16, "float16"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("brightest", [1, 0.5])
def test_floats_up_to_one_are_times_255(images, dtype, brightest):
    floats = (brightest * images / 255).astype(dtype)
    assert_shows(floats, np.round(255 * floats.astype("float64")))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64"])
def test_numbers_up_to_255_stay(images, dtype):
    assert_shows(images.astype(dtype), images)


def test_dark_images_of_bytes_stay_dark(images):
    assert_shows(images // 128, images // 128)
    assert_shows((images // 100).astype("float32"), images // 100)


def test_truth_and_masks_are_black_and_white(images):
    mask = images > 128
    expected = np.where(mask, 255, 0)
    assert_shows(mask, expected)
    assert_shows(mask.astype("int64"), expected)
    assert_shows(mask.astype("float32"), expected)


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [
        (2, -1, "float32"),
        (3.7, -1.9, "float64"),
        (510, 0, "float32"),
        (65535, 0, "uint16"),
        (255, -128, "int8"),
    ],
)
def test_others_are_stretched(images, scale, offset, dtype):
    given = images / 255 * scale + offset
    given = (np.round(given) if "int" in dtype else given).astype(dtype)
    shown = cells(sprite_sheet(given))
    for thumbnail, image in zip(shown, images, strict=False):
        np.testing.assert_allclose(thumbnail, image.astype("f8"), atol=1)
    assert np.array(shown[:5]).min() == 0
    assert np.array(shown[:5]).max() == 255


@pytest.mark.filterwarnings("error")
def test_the_greatest_of_numbers_are_stretched():
    image = np.array([[[-1.7e308, 1.7e308], [0, 8.5e307]]])
    assert_shows(image, [[[0, 255], [128, 191]]])


def test_the_whole_set_is_stretched_alike():
    images = np.zeros((2, 4, 4), "float32")
    images[0], images[1, 0, 0] = -1, 3
    first, second, *_ = cells(sprite_sheet(images))
    assert not first.any()
    assert second[0, 0] == 255
    assert (second.ravel()[1:] == 64).all()


def test_a_trace_more_than_one_is_not_taken_for_bytes(images):
    floats = (images / 255).astype("float32")
    floats[0, 0, 1] = 1.0000002
    assert_shows(floats, images)


@pytest.mark.parametrize("value", [0, 0.5, 1, 77, -3, 1e9, np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_constant_images_are_no_problem(value):
    for dtype in ("float32", "float64"):
        shown = cells(sprite_sheet(np.full((3, 4, 4, 1), value, dtype)))
        assert len({*np.array(shown[:3]).ravel()}) == 1


@pytest.mark.filterwarnings("error")
def test_nan_is_black_and_infinity_an_end(images):
    floats = images.astype("float32") - 300
    floats[1, 2, 3, 0] = np.nan
    floats[2, 2, 3, 0] = np.inf
    floats[3, 2, 3, 0] = -np.inf
    expected = images.copy()
    expected[[1, 2, 3], 2, 3, 0] = 0, 255, 0
    assert_shows(floats, expected)


# Sizes


def test_large_images_are_averaged_down(rng):
    coarse = rng.integers(0, 256, (3, 64, 64, 3)).astype("uint8")
    fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
    assert_shows(fine, coarse)
    board = np.zeros((1, 128, 128), "uint8")
    board[:, ::2, ::2] = 200
    np.testing.assert_array_equal(cells(sprite_sheet(board))[0], np.full((64, 64), 50))


@pytest.mark.parametrize(
    ("height", "width", "side", "shown"),
    [
        (8, 8, 8, (8, 8)),
        (64, 64, 64, (64, 64)),
        (65, 65, 64, (64, 64)),
        (8, 12, 12, (8, 12)),
        (12, 8, 12, (12, 8)),
        (100, 200, 64, (32, 64)),
        (224, 160, 64, (64, 46)),
        (1, 1000, 64, (1, 64)),
        (1, 1, 1, (1, 1)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_aspect_ratio_is_kept(height, width, side, shown, channels):
    sheet = sprite_sheet(np.full((3, height, width, channels), 255, "uint8"))
    assert (sheet.width, sheet.height, sheet.columns) == (side, side, 2)
    for cell in cells(sheet)[:3]:
        # Around what is no square there is nothing to be seen.
        bright = cell[..., -1] > 0 if cell.ndim == 3 else cell > 0
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        assert (len(rows), len(columns)) == shown
        assert bright.sum() == shown[0] * shown[1]
        for taken in (rows, columns):
            before, after = taken[0], side - 1 - taken[-1]
            assert after - before in (0, 1)


def test_the_colours_of_oblong_images(rng):
    images = rng.integers(0, 256, (2, 4, 6, 3)).astype("uint8")
    for given, expected in ((images, images), (images[..., :1], images[..., [0] * 3])):
        first, second, *_ = cells(sprite_sheet(given))
        np.testing.assert_array_equal(first[1:5, :, :3], expected[0])
        np.testing.assert_array_equal(second[1:5, :, :3], expected[1])
        assert (first[1:5, :, 3] == 255).all()
        assert not first[[0, 5]].any()


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (99, 10)]
)
def test_there_are_as_many_rows_as_columns(count, columns):
    images = np.arange(count, dtype="uint8")[:, None, None] + np.zeros((2, 2), "uint8")
    assert sprite_sheet(images).columns == columns
    assert_shows(images, images)


@pytest.mark.parametrize(
    ("count", "columns", "side"), [(10_000, 100, 64), (20_000, 142, 57)]
)
def test_many_large_images_fit_on_a_sheet(count, columns, side):
    image = np.arange(96 * 96, dtype="uint16").astype("uint8").reshape(1, 96, 96)
    sheet = sprite_sheet(np.broadcast_to(image, (count, 96, 96)))
    assert (sheet.columns, sheet.width, sheet.height) == (columns, side, side)
    shown = cells(sheet)
    assert columns * side <= 8192
    np.testing.assert_array_equal(shown[0], shown[count - 1])
    assert shown[0].any()
    assert all(not empty.any() for empty in shown[count:])


# What are no images, and what is missing


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((5, 20)),
        np.zeros((5, 8, 7)),
        np.zeros((5, 8, 8, 2)),
        np.zeros((5, 8, 8, 5)),
        np.zeros((5, 8, 8, 8, 3)),
        np.zeros((0, 8, 8, 3)),
        np.zeros((5, 0, 0, 3)),
        np.zeros(5),
        np.float32(1),
        np.full((5, 8, 8), "text"),
        np.zeros((5, 8, 8), complex),
        np.full((5, 8, 8), None),
        [np.zeros((8, 8)), np.zeros((9, 9))],
        {"image": np.zeros((5, 8, 8))},
        ["a", "b"],
        None,
        keras.Input((8, 8, 3)),
        tf.constant([["text"]]),
        tf.ragged.constant([[1, 2], [3]]),
    ],
    ids=lambda inputs: f"{type(inputs).__name__}-{getattr(inputs, 'shape', '')}",
)
def test_what_are_no_images_gives_none(inputs):
    assert sprite_sheet(inputs) is None


def test_without_pillow_the_extra_is_named(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    message = r"need Pillow.*`pip install 'keras-lpd\[tensorboard\]'`"
    with pytest.raises(ImportError, match=message):
        sprite_sheet(images)
    assert sprite_sheet(np.zeros((5, 20))) is None
