"""What the scripts that take times share: figures of rounds, and memory (on Linux)."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

STATUS = pathlib.Path("/proc/self/status")


def summary(values: np.ndarray) -> dict[str, float]:
    """The median, and where 80 % lie."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "p10": float(low), "p90": float(high)}


def cell(values: dict[str, float]) -> str:
    return "{median:.3g} ({p10:.3g}-{p90:.3g})".format(**values)


def in_fresh_process(script: str, *arguments: Any) -> float:
    """The number that a script prints last, run in a process of its own."""
    command = [sys.executable, script, *map(str, arguments)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(output.stdout.split()[-1])


def peak(function: Callable[[], Any]) -> float:
    """Megabytes that a call takes at its peak, besides what is there already.

    For a process that has done little else: memory is only ever counted at the
    highest it has been.
    """
    # What was freed since the highest is held once more, or it would hide the call's.
    ballast = np.ones(max(0, memory("VmHWM") - memory("VmRSS")), "uint8")
    before = memory("VmHWM")
    function()
    del ballast
    return max(0, memory("VmHWM") - before) / 1e6


def memory(field: str) -> int:
    """Bytes in use now (`VmRSS`), or the most there ever were (`VmHWM`)."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
