"""The networks of "FitNets: Hints for Thin Deep Nets", out of maxout units.

The layers that the paper counts end with their pooling, where they have one:
the hint and the guided layer are what comes out of it, maps of much the same
size. Weights start at a variance of 1 / inputs, which keeps the scale of what
passes through maxout units of two pieces (ours; nor are kernels held under a
norm, as they are in the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_lpd.models.maxout import Maxout


class _Convolution(NamedTuple):
    """A maxout convolution; it is pooled with stride 2, if at all."""

    filters: int
    kernel: int
    padding: int
    pool: int | None = None


_TEACHER = (
    _Convolution(96, kernel=8, padding=4, pool=4),
    _Convolution(192, kernel=8, padding=3, pool=4),
    _Convolution(192, kernel=5, padding=3, pool=2),
)
_MNIST_TEACHER = (
    _Convolution(48, kernel=8, padding=0, pool=4),
    _Convolution(48, kernel=8, padding=3, pool=4),
    _Convolution(24, kernel=5, padding=3, pool=2),
)
_MNIST_STUDENT = (
    _Convolution(16, kernel=5, padding=0),
    _Convolution(16, kernel=3, padding=0, pool=4),
    _Convolution(16, kernel=5, padding=3),
    _Convolution(16, kernel=3, padding=0, pool=4),
    _Convolution(12, kernel=3, padding=3),
    _Convolution(12, kernel=3, padding=0, pool=2),
)
_STUDENTS = {
    1: ((16, 16, 16), (32, 32, 32), (48, 48, 64)),
    2: ((16, 32, 32), (48, 64, 80), (96, 96, 128)),
    3: ((32, 48, 64, 64), (80,) * 4, (128,) * 3),
    4: ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6),
}
"""Filters of FitNet 1 to 4; every group ends with a pooling."""


def fitnet_teacher(
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    dropout: float = 0.5,
    input_dropout: float = 0.2,
    name: str = "teacher",
) -> keras.Sequential:
    """The teacher on CIFAR-10: three wide maxout convolutions, 9.05M parameters.

    Convolutions of 96, 192 and 192 maxout units, 500 maxout units, the logits;
    all units have two pieces, which gives the 9M parameters of the paper.
    It is the CIFAR-10 network of the maxout paper, but for the 500 units, which
    have five pieces there.

    `"hint"`, the hint layer, is the second convolution after its pooling, of
    shape `(7, 7, 192)`; `"features"` are the 500 maxout units.

    Args:
        input_shape: Shape of an image, with channels; at least 10x10.
        classes: How many classes there are. Defaults to 10.
        dropout: Share of the units dropped behind every hidden layer. Defaults
            to 0.5, as in the maxout paper.
        input_dropout: Share of the image's values dropped. Defaults to 0.2, as
            in the maxout paper.
        name: Name of the model. Defaults to `"teacher"`.

    Returns:
        A `keras.Sequential` that gives logits.

    Raises:
        ValueError: If the image is too small, or of unknown size.

    Example:

    >>> model = fitnet_teacher()
    >>> model.count_params()
    9046330
    >>> model.get_layer("hint").output.shape
    (None, 7, 7, 192)

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550;
    Goodfellow et al., "Maxout Networks", arXiv 1302.4389.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Dropout(input_dropout),
            *_padded(input_shape, _TEACHER, {"pool_2": "hint"}, dropout),
            layers.Flatten(),
            *_maxout_dense(500),
            layers.Dropout(dropout),
            layers.Dense(classes, name="logits"),
        ],
        name=name,
    )


def fitnet(
    number: int,
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    name: str = "student",
) -> keras.Sequential:
    """A student on CIFAR-10, FitNet 1 to 4: thinner than its teacher, and deeper.

    3x3 maxout convolutions in three groups, 500 maxout units, the logits; all
    units have two pieces.

    | | filters | layers | parameters |
    |---|---|---|---|
    | FitNet 1 | 16, 16, 16; 32, 32, 32; 48, 48, 64 | 11 | 251K |
    | FitNet 2 | 16, 32, 32; 48, 64, 80; 96, 96, 128 | 11 | 864K |
    | FitNet 3 | 32, 48, 64, 64; 4 x 80; 3 x 128 | 13 | 1.51M |
    | FitNet 4 | 3 x 32, 2 x 48; 6 x 80; 6 x 128 | 19 | 2.55M |

    The groups end with poolings of 2, 2 and 8; the last is global where less
    than 8x8 is left, as it is of 28x28 images.

    `"guided"`, the layer that the teacher's hint layer guides, is the end of
    the second group (layer 6, 6, 8 or 11) after its pooling: 8x8, of
    32x32 images. `"features"` are the 500 maxout units.

    Args:
        number: Which FitNet, 1 to 4.
        input_shape: Shape of an image, with channels; at least 4x4.
        classes: How many classes there are. Defaults to 10.
        name: Name of the model. Defaults to `"student"`.

    Returns:
        A `keras.Sequential` that gives logits.

    Raises:
        ValueError: If there is no FitNet of that number, or the image is too
            small, or of unknown size.

    Example:

    >>> model = fitnet(1)
    >>> model.count_params()
    251194
    >>> model.get_layer("guided").output.shape
    (None, 8, 8, 32)

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550.
    """
    if isinstance(number, bool) or number not in _STUDENTS:
        raise ValueError(f"`number` must be 1, 2, 3 or 4. Received: number={number!r}")
    left = [side // 4 for side in _sides(input_shape)]
    if min(left) < 1:
        raise ValueError(
            "A FitNet halves its images twice: they must be at least 4x4. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    poolings = [2, 2, tuple(min(8, side) for side in left)]

    layers = keras.layers
    stack = [keras.Input(input_shape)]
    count = 0
    for group, filters in enumerate(_STUDENTS[number]):
        for units in filters:
            count += 1
            stack += _maxout_convolution(units, 3, count, padding="same")
        label = ("pool_1", "guided", "pool_3")[group]
        stack.append(layers.MaxPooling2D(poolings[group], name=label))
    stack += [
        layers.Flatten(),
        *_maxout_dense(500),
        layers.Dense(classes, name="logits"),
    ]
    return keras.Sequential(stack, name=name)


def mnist_teacher(
    input_shape: Sequence[int] = (28, 28, 1),
    classes: int = 10,
    dropout: float = 0.5,
    input_dropout: float = 0.2,
    name: str = "teacher",
) -> keras.Sequential:
    """The teacher on MNIST: three wide maxout convolutions, 361K parameters.

    Convolutions of 48, 48 and 24 maxout units of two pieces, then the logits.
    It is the MNIST network of the maxout paper, with the number of pieces that
    gives the FitNets paper's 361K parameters.

    `"hint"`, the hint layer, is the second convolution after its pooling, of
    shape `(4, 4, 48)`; `"features"`, which the logits are made of, the third
    after its pooling, of shape `(3, 3, 24)`.

    Args:
        input_shape: Shape of an image, with channels; at least 18x18.
        classes: How many classes there are. Defaults to 10.
        dropout: Share of the units dropped behind every convolution. Defaults
            to 0.5, as in the maxout paper.
        input_dropout: Share of the image's values dropped. Defaults to 0.2, as
            in the maxout paper.
        name: Name of the model. Defaults to `"teacher"`.

    Returns:
        A `keras.Sequential` that gives logits.

    Raises:
        ValueError: If the image is too small, or of unknown size.

    Example:

    >>> mnist_teacher().count_params()
    361066

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550;
    Goodfellow et al., "Maxout Networks", arXiv 1302.4389.
    """
    names = {"pool_2": "hint", "pool_3": "features"}
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Dropout(input_dropout),
            *_padded(input_shape, _MNIST_TEACHER, names, dropout),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, name="logits"),
        ],
        name=name,
    )


def mnist_student(
    input_shape: Sequence[int] = (28, 28, 1), classes: int = 10, name: str = "student"
) -> keras.Sequential:
    """The student on MNIST: six thin maxout convolutions, 30K parameters.

    Convolutions of 16, 16, 16, 16, 12 and 12 maxout units of two pieces, then
    the logits. Kernels are 5, 3, 5, 3, 3 and 3 wide, as in the authors' own
    settings.

    `"guided"`, the layer that the teacher's hint layer guides, is the fourth
    convolution after its pooling, of shape `(4, 4, 16)`; `"features"`, which
    the logits are made of, the sixth after its pooling, of shape `(3, 3, 12)`.

    Args:
        input_shape: Shape of an image, with channels; at least 15x15.
        classes: How many classes there are. Defaults to 10.
        name: Name of the model. Defaults to `"student"`.

    Returns:
        A `keras.Sequential` that gives logits.

    Raises:
        ValueError: If the image is too small, or of unknown size.

    Example:

    >>> mnist_student().count_params()
    30130

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550.
    """
    names = {"pool_4": "guided", "pool_6": "features"}
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *_padded(input_shape, _MNIST_STUDENT, names),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, name="logits"),
        ],
        name=name,
    )


def _padded(
    input_shape: Sequence[int],
    convolutions: Sequence[_Convolution],
    names: dict[str, str],
    dropout: float | None = None,
) -> list[keras.layers.Layer]:
    """Convolutions over padded maps, with overlapping poolings and dropout.

    Args:
        input_shape: Shape of an image, with channels.
        convolutions: The convolutions, in their order.
        names: New names of layers, by those that they would have.
        dropout: Share of the units dropped behind each; `None`: no dropout.
    """
    layers = keras.layers
    sides = _sides(input_shape)
    stack: list[keras.layers.Layer] = []
    for number, layer in enumerate(convolutions, 1):
        paddings = []
        for position, side in enumerate(sides):
            before = after = layer.padding
            side += 2 * layer.padding - layer.kernel + 1
            if side < (layer.pool or 1):
                raise ValueError(
                    "The images are too small for these convolutions: nothing "
                    f"is left to pool at convolution {number} of {len(convolutions)}. "
                    f"Received: input_shape={tuple(input_shape)}"
                )
            if layer.pool is not None:
                # One more row where the last pooling window would stick out: the
                # papers' code pools there what it has, Keras would leave it out.
                missing = (side - layer.pool) % 2
                after += missing
                side = (side + missing - layer.pool) // 2 + 1
            paddings.append((before, after))
            sides[position] = side
        if any(map(any, paddings)):
            stack.append(layers.ZeroPadding2D(tuple(paddings), name=f"pad_{number}"))
        stack += _maxout_convolution(layer.filters, layer.kernel, number)
        if layer.pool is not None:
            label = f"pool_{number}"
            label = names.get(label, label)
            stack.append(layers.MaxPooling2D(layer.pool, strides=2, name=label))
        if dropout is not None:
            stack.append(layers.Dropout(dropout))
    return stack


def _maxout_convolution(
    units: int, kernel: int, number: int, padding: str = "valid"
) -> list[keras.layers.Layer]:
    return [
        keras.layers.Conv2D(
            2 * units,
            kernel,
            padding=padding,
            kernel_initializer="lecun_normal",
            name=f"conv_{number}",
        ),
        Maxout(2, name=f"maxout_{number}"),
    ]


def _maxout_dense(units: int) -> list[keras.layers.Layer]:
    return [
        keras.layers.Dense(2 * units, kernel_initializer="lecun_normal", name="hidden"),
        Maxout(2, name="features"),
    ]


def _sides(input_shape: Sequence[int]) -> list[int]:
    """Height and width of the images, which have to be known."""
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(shape):
        raise ValueError(
            "`input_shape` must be the height, width and channels of an image. "
            f"Received: input_shape={shape}"
        )
    first = keras.config.image_data_format() == "channels_first"
    return list(shape[1:] if first else shape[:2])
