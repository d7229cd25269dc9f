"""The logger `keras_lpd`, on which the package says what it chose by itself."""

import logging

logger = logging.getLogger("keras_lpd")


class _Fallback(logging.StreamHandler):
    """Prints to standard error, until the application sets up logging itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not logging.getLogger().handlers and bool(super().filter(record))


if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)
if not logger.handlers:
    _handler = _Fallback()
    _handler.setFormatter(logging.Formatter("keras-lpd: %(message)s"))
    logger.addHandler(_handler)
