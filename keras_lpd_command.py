"""The command `keras-lpd`, started without what TensorFlow says as it is loaded."""

import os
import sys
import tempfile


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # "0" shows all of it.
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "3":
        return _command()
    with tempfile.TemporaryFile() as aside:
        before = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            import keras_lpd.cli  # noqa: F401
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
    return _command()


def _command() -> int:
    from keras_lpd.cli import main

    return main()
