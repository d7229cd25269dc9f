"""The command `keras-lpd`, started without what TensorFlow says as it is loaded."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # "0" shows all of it.
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":
        with _standard_error_aside():
            import keras_lpd.cli  # noqa: F401
    from keras_lpd.cli import main

    return main()


@contextlib.contextmanager
def _standard_error_aside() -> Iterator[None]:
    """The twin of the one in `keras_lpd.quiet`, which can't be had without Keras."""
    try:
        before = os.dup(2)
    except OSError:  # There is none.
        yield
        return
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
