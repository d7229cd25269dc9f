"""How long something takes; with nothing but the standard library."""

from __future__ import annotations

import time
from collections.abc import Callable

_SECONDS = 3.0
_WARM_UP = 10


def times(run: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each run, after ten that warm up.

    Args:
        run: What is timed; it returns when it is done.
        runs: How many times; fewer where they would take more than three seconds, at
            least once.
    """
    for _ in range(_WARM_UP):
        run()
    found: list[float] = []
    while not found or (len(found) < runs and sum(found) < _SECONDS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found
