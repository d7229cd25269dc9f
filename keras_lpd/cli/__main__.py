"""`python -m keras_lpd.cli` is `keras-lpd`."""

import sys

from keras_lpd.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
