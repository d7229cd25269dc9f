"""A plain convolutional teacher and student for small images."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def cnn_teacher(
    input_shape: Sequence[int] = (28, 28, 1), classes: int = 10, name: str = "teacher"
) -> keras.Sequential:
    """A convolutional network of some 830,000 parameters, for 28x28 images.

    Its feature layer, `"features"`, is 128 wide; the outputs are logits.

    Args:
        input_shape: Shape of an image, with channels; at least 8x8.
        classes: How many classes there are. Defaults to 10.
        name: Name of the model. Defaults to `"teacher"`.

    Returns:
        A `keras.Sequential` that gives logits.

    Example:

    >>> model = cnn_teacher()
    >>> model.count_params()
    831754
    >>> model.get_layer("features").output.shape
    (None, 128)
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv_3"),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv_4"),
            layers.MaxPooling2D(name="pool_2"),
            layers.Conv2D(256, 3, padding="same", activation="relu", name="conv_5"),
            layers.MaxPooling2D(name="pool_3"),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(128, activation="relu", name="features"),
            layers.Dropout(0.4),
            layers.Dense(classes, name="logits"),
        ],
        name=name,
    )


def cnn_student(
    input_shape: Sequence[int] = (28, 28, 1),
    classes: int = 10,
    width: int = 12,
    name: str = "student",
) -> keras.Sequential:
    """A convolutional network of some 15,000 parameters, for 28x28 images.

    Its feature layer, `"features"`, is 32 wide; the outputs are logits.

    Args:
        input_shape: Shape of an image, with channels; at least 8x8.
        classes: How many classes there are. Defaults to 10.
        width: Filters of the first convolution. Defaults to 12.
        name: Name of the model. Defaults to `"student"`.

    Returns:
        A `keras.Sequential` that gives logits.

    Example:

    >>> model = cnn_student()
    >>> model.count_params()
    15218
    >>> model.get_layer("features").output.shape
    (None, 32)
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(
                2 * width, 3, padding="same", activation="relu", name="conv_2"
            ),
            layers.MaxPooling2D(name="pool_2"),
            layers.Conv2D(
                2 * width, 3, padding="same", activation="relu", name="conv_3"
            ),
            layers.MaxPooling2D(name="pool_3"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="features"),
            layers.Dense(classes, name="logits"),
        ],
        name=name,
    )
