"""Keeps to itself what others print."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_STDERR = 2
_LOGGERS = ("tensorflow", "absl")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Lets nothing through to standard error: no warnings, no logs, nor C++'s.

    Errors that are raised come out as ever.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), _standard_error_aside():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


@contextlib.contextmanager
def _standard_error_aside() -> Iterator[None]:
    """Sends to a file of its own what is written to standard error, in any language.

    It has a twin in `keras_lpd_command`, which can't import this: Keras would come too.
    """
    try:
        before = os.dup(_STDERR)
    except OSError:  # There is none.
        yield
        return
    with tempfile.TemporaryFile() as aside:
        _flush()
        os.dup2(aside.fileno(), _STDERR)
        try:
            yield
        finally:
            _flush()
            os.dup2(before, _STDERR)
            os.close(before)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
