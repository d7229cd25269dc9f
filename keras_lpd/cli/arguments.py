"""What several commands have in common: their frame, and arguments of one kind."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

Options = argparse.Namespace


def add_command(
    commands: Any,
    name: str,
    run: Callable[[Options], None],
    *,
    help: str,
    description: str,
    example: str,
    kept: Callable[[Options], str],
) -> argparse.ArgumentParser:
    """Adds a command.

    Args:
        commands: The subparsers.
        name: Name of the command.
        run: What it does.
        help: What it is for, in a line.
        description: What it does, in a few.
        example: A call of it.
        kept: What is left when it is interrupted, and how to go on.
    """
    command = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"Example: {example}",
    )
    command.add_argument(
        "--debug", action="store_true", help="show where an error comes from"
    )
    command.set_defaults(run=run, kept=kept)
    return command


def add_data(required: Any, optional: Any) -> None:
    """Adds what `keras_lpd.cli.data.load_data` reads."""
    required.add_argument(
        "--dataset",
        required=True,
        metavar="DATA",
        help="digits, fashion_mnist, or another set of images with classes in "
        "tensorflow-datasets, by its name; or a folder with a folder of images for "
        "each class, or with `train` and `test` (or `validation`) of that kind, and "
        "otherwise a fifth of each class is tested on; or an .npz file of x_train, "
        "y_train, x_test and y_test. Integers from 0 to 255 are scaled to [0, 1], "
        "floats stay as they are. Samples of a folder or a file come in an order that "
        "was drawn, always the same. All of it is kept in memory. Write ./NAME for a "
        "folder that is called as a data set is.",
    )
    optional.add_argument(
        "--data-dir", metavar="DIR", help="where tensorflow-datasets keeps its data"
    )
    optional.add_argument(
        "--image-size",
        type=size,
        metavar="HxW",
        help="resize images to this height and width, as in 32x32 (default: as they "
        "are; those of a folder, as the model takes them)",
    )


def positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, not {text}")
    return number


def natural(text: str) -> int:
    """An integer of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"it must be at least 0, not {text}")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"it must be above 0 and finite, not {text}")
    return number


def size(text: str) -> tuple[int, int]:
    """Height and width, `HxW`; or one number for both."""
    try:
        height, width = map(int, text.split("x")) if "x" in text else [int(text)] * 2
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(
            f"it must be height and width, as in 32x32, not {text}"
        )
    return height, width
