"""Thumbnails of images on one sheet, as TensorBoard's Projector wants them."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import keras
import numpy as np

LARGEST = 64
"""How many pixels a thumbnail has at most, a side."""

SHEET = 8192
"""How many pixels a sheet has at most, a side; the Projector takes no more."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""What Pillow calls images of so many channels."""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Thumbnails side by side, row by row, in the order of the images.

    Args:
        png: The sheet, as a PNG file.
        width: Of a thumbnail, in pixels.
        height: Of a thumbnail.
        columns: How many there are in a row. There are as many rows, of which the
            last ones may be empty.
    """

    png: bytes
    width: int
    height: int
    columns: int


def sprite_sheet(images: Any) -> Sheet | None:
    """Lays out images for the Projector.

    The Projector draws all thumbnails as squares, and counts on as many rows as
    columns. So images that are no squares stand in the middle of a transparent one.

    Args:
        images: Array of shape `(n, height, width, channels)` with 1, 3 or 4 channels
            (`(n, channels, height, width)` under `channels_first`), or `(n, side,
            side)`. Of uint8 as they are; others in [0, 1] times 255, in [0, 255] as
            they are, and else stretched so that the set's own least and greatest
            values come out black and white. NaN comes out black.

    Returns:
        A `Sheet` of thumbnails: as large as the images, or scaled down to 64 pixels
        on the longer side, and further where the sheet would have more than 8,192.
        `None` for what are no images.

    Raises:
        ImportError: If Pillow is missing.

    Example:

    >>> sheet = sprite_sheet(np.random.rand(10, 28, 28, 1))
    >>> sheet.width, sheet.height, sheet.columns
    (28, 28, 4)
    """
    pixels = _as_images(images)
    if pixels is None:
        return None
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Sheets of images need Pillow. Install it with "
            "`pip install 'keras-lpd[tensorboard]'`."
        ) from error

    count, height, width, channels = pixels.shape
    columns = math.isqrt(count - 1) + 1
    side = min(max(height, width), LARGEST, SHEET // columns)
    scale = min(1.0, side / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2

    mode = MODES[channels] if height == width else "RGBA"
    sheet = Image.new(mode, (columns * side, columns * side))
    black, white = _range(pixels)
    for i, image in enumerate(pixels):
        shown = _as_bytes(image, black, white)
        thumbnail = Image.fromarray(shown[..., 0] if channels == 1 else shown)
        if thumbnail.size != size:
            thumbnail = thumbnail.resize(size, Image.Resampling.BOX)
        row, column = divmod(i, columns)
        sheet.paste(thumbnail, (column * side + left, row * side + top))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return Sheet(file.getvalue(), side, side, columns)


def _as_images(images: Any) -> np.ndarray | None:
    """Images with the channels last, or `None` if they are none."""
    try:
        array = np.asarray(images)
    except (TypeError, ValueError):
        return None  # Images of several sizes, for instance.
    is_number = array.dtype.kind in "buif" or "float" in array.dtype.name
    if not is_number or not array.size:
        return None
    if array.ndim == 3 and array.shape[1] == array.shape[2]:
        return array[..., None]
    if array.ndim == 4:
        if keras.config.image_data_format() == "channels_first":
            array = np.moveaxis(array, 1, -1)
        if array.shape[-1] in MODES:
            return array
    return None


def _range(pixels: np.ndarray) -> tuple[float, float]:
    """Which values are to come out as 0 and as 255."""
    if pixels.dtype == "uint8":
        return 0.0, 255.0
    low, high = math.inf, -math.inf
    for image in pixels:  # One at a time: a copy of all may not fit.
        finite = image[np.isfinite(image)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low >= 0 and high <= 1.001:  # Resizing may leave a trace more than 1.
        return 0.0, 1.0
    if low >= 0 and high <= 255.5:
        return 0.0, 255.0
    return (low, high) if low < high else (0.0, 1.0)


def _as_bytes(image: np.ndarray, black: float, white: float) -> np.ndarray:
    if image.dtype == "uint8":
        return np.ascontiguousarray(image)
    # Halves, for the difference of two numbers may be too large to be one.
    shown = (image.astype("float64") / 2 - black / 2) / (white / 2 - black / 2)
    return np.round(255 * np.nan_to_num(np.clip(shown, 0, 1))).astype("uint8")
