"""A progress bar with the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import keras

from keras_lpd.log import logger


@contextlib.contextmanager
def progress(
    total: int | None, title: str, shown: bool = True, delay: float = 0.0
) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves the bar on by so many samples.

    Args:
        total: How many there are in all, if that is known.
        title: What is being done.
        shown: Whether there is anything to be seen.
        delay: Seconds that have to pass before there is.
    """
    live = sys.stdout.isatty() or "ipykernel" in sys.modules
    bar = keras.utils.Progbar(total, interval=0.2 if live else 10.0, unit_name="sample")
    start, done, visible = time.monotonic(), 0, False

    def advance(count: int) -> None:
        nonlocal done, visible
        done += count
        if not shown or (not visible and time.monotonic() - start < delay):
            return
        if not visible:
            logger.info("%s:", title)
            visible = True
        bar.update(done)

    yield advance
    if visible and done != total:
        bar.update(done, finalize=True)
