"""Residual networks for small images, as distillation is compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lpd.arguments import as_integer, is_integer


def resnet(
    depth: int,
    width: int = 1,
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    name: str | None = None,
) -> keras.Model:
    """A residual network of basic blocks for CIFAR, such as ResNet-20 or ResNet-8x4.

    A 3x3 convolution of 16 filters (32 in a network wider than 1), three groups
    of `(depth - 2) / 6` blocks with 16, 32 and 64 times `width` filters, global
    average pooling, the logits. Where a block changes the shape its shortcut is
    a 1x1 convolution. With 100 classes these are the networks of the CRD
    benchmark:

    | depth | width | trainable parameters |
    |---|---|---|
    | 8 | 4 | 1,233,540 |
    | 20 | 1 | 278,324 |
    | 32 | 1 | 472,756 |
    | 32 | 4 | 7,433,860 |
    | 56 | 1 | 861,620 |
    | 110 | 1 | 1,736,564 |

    `"group_1"` to `"group_3"` are the ends of the groups, after their ReLU;
    `"features"`, the averages over space, are 64 times `width` wide.

    Args:
        depth: How many layers have weights, shortcuts aside: 6n + 2, such as
            8, 14 or 20.
        width: What the filters of the groups are multiplied by. Defaults to 1.
        input_shape: Shape of an image, with channels.
        classes: How many classes there are. Defaults to 10.
        name: Name of the model. Defaults to one such as `"resnet8x4"`.

    Returns:
        A Functional `keras.Model` that gives logits.

    Raises:
        ValueError: If `depth` is not 6n + 2, or `width` is no positive integer.

    Example:

    >>> model = resnet(8, width=4, classes=100)
    >>> model.name, model.get_layer("features").output.shape
    ('resnet8x4', (None, 256))

    Source: He et al., "Deep Residual Learning for Image Recognition", arXiv
    1512.03385; the widths and shortcuts of Tian et al., "Contrastive
    Representation Distillation", arXiv 1910.10699.
    """
    if not is_integer(depth, least=8) or (depth - 2) % 6:
        raise ValueError(
            "`depth` must be 6n + 2: 8, 14, 20, 26, 32 and so on. "
            f"Received: depth={depth!r}"
        )
    width = as_integer("width", width, least=1)
    if name is None:
        name = f"resnet{depth}" if width == 1 else f"resnet{depth}x{width}"

    layers = keras.layers
    inputs = keras.Input(input_shape)
    filters = 16 if width == 1 else 32
    x = _convolution(inputs, filters, 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    blocks = (depth - 2) // 6
    for group in (1, 2, 3):
        wanted = 16 * 2 ** (group - 1) * width
        for block in range(1, blocks + 1):
            stride = 2 if group > 1 and block == 1 else 1
            label = f"group_{group}_block_{block}"
            shortcut = x
            if stride > 1 or filters != wanted:
                shortcut = _convolution(x, wanted, 1, stride, f"{label}_shortcut")
            x = _convolution(x, wanted, 3, stride, f"{label}_1")
            x = layers.ReLU(name=f"{label}_relu")(x)
            x = _convolution(x, wanted, 3, 1, f"{label}_2")
            x = layers.Add(name=f"{label}_add")([x, shortcut])
            last = block == blocks
            x = layers.ReLU(name=f"group_{group}" if last else label)(x)
            filters = wanted
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


def _convolution(x: Any, filters: int, kernel: int, stride: int, label: str) -> Any:
    """A convolution and its batch normalisation."""
    layers = keras.layers
    if kernel > 1:
        # Both sides alike: "same" with a stride pads the end alone, and the maps
        # would lie a pixel off those of the shortcut.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{label}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=f"{label}_conv",
    )(x)
    first = keras.config.image_data_format() == "channels_first"
    return layers.BatchNormalization(
        axis=1 if first else -1, momentum=0.9, epsilon=1e-5, name=f"{label}_norm"
    )(x)
