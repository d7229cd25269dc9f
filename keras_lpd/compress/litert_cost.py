"""What a LiteRT file costs to run, measured in a process where nothing else runs.

Run as a program it needs no more than NumPy and an interpreter, and imports neither
Keras nor TensorFlow, whose memory would hide that of the file.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import warnings
from typing import Any, NamedTuple

if __name__ == "__main__":  # The package would bring Keras along, its file does not.
    times = runpy.run_path(str(pathlib.Path(__file__).parents[1] / "timing.py"))[
        "times"
    ]
else:
    from keras_lpd.timing import times


class Cost(NamedTuple):
    """What one sample costs.

    Args:
        latencies: Median milliseconds of a sample, by the number of threads.
        runs: How many runs each median is of, after those that warm up.
        memory: By how many bytes the process grew at most, from before the file
            was opened to the end of its first run. `None` where that isn't known.
    """

    latencies: dict[int, float]
    runs: int
    memory: int | None


def measure(path: str | os.PathLike[str], runs: int) -> Cost:
    """Measures a file, in a new process.

    Args:
        path: The file.
        runs: How many runs the medians are taken of; fewer where they would take
            more than three seconds, at least one.

    Raises:
        ValueError: If the file can't be run.
    """
    command = [sys.executable, __file__, os.fspath(path), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        crashed = f"It ends the interpreter with code {done.returncode}."
        raise broken(path, said[-1] if done.returncode == 1 and said else crashed)
    latencies, least, memory = json.loads(done.stdout.splitlines()[-1])
    return Cost({int(threads): t for threads, t in latencies.items()}, least, memory)


def broken(path: str | os.PathLike[str], why: str) -> ValueError:
    """The error that a file can't be run."""
    return ValueError(
        f"{path} can't be run: {why} It was cut off or altered, or is of a newer "
        "format than the interpreter. Make it again, or upgrade ai-edge-litert."
    )


def open_interpreter(path: str, threads: int = 1) -> Any:
    """An interpreter with the file, made ready for it.

    It is that of ai-edge-litert, or else the older one in TensorFlow, which goes
    without its faster kernels (XNNPACK): in TensorFlow 2.18 they get small dense layers
    of int8 wrong on processors with AVX-512, by 0.41 where 0.01 is right.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = _older_interpreter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The older one tells of its own end.
        interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def _older_interpreter() -> Any:
    try:
        import tensorflow as tf

        kernels = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return functools.partial(
            tf.lite.Interpreter, experimental_op_resolver_type=kernels
        )
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "LiteRT files are run by ai-edge-litert. Install it with "
            "`pip install 'keras-lpd[compress]'`."
        ) from error


def _measure_here(path: str, runs: int) -> Cost:
    _forget_peak()
    before = _memory("VmRSS")
    interpreter = open_interpreter(path)
    _run(interpreter)
    after = _memory("VmHWM")
    latencies, least = {}, runs
    for threads in (1, 2):
        interpreter = open_interpreter(path, threads)
        _run(interpreter)
        found = times(interpreter.invoke, runs)
        latencies[threads] = 1000.0 * statistics.median(found)
        least = min(least, len(found))
    memory = None if before is None or after is None else after - before
    return Cost(latencies, least, memory)


def _run(interpreter: Any) -> None:
    """One run, on zeros."""
    import numpy as np

    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], np.zeros(one["shape"], one["dtype"]))
    interpreter.invoke()


def _forget_peak() -> None:
    """Lets Linux count the peak of memory from now on."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _memory(line: str) -> int | None:
    """Bytes of this process: in use (`VmRSS`), or at most until now (`VmHWM`)."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            (found,) = (text for text in file if text.startswith(f"{line}:"))
    except (OSError, ValueError):  # No Linux.
        return None
    return 1024 * int(found.split()[1])


def _main() -> None:
    import numpy as np  # noqa: F401  # Its memory is none of the file's.

    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError:
        _older_interpreter()
    try:
        cost = _measure_here(sys.argv[1], int(sys.argv[2]))
    except (ValueError, RuntimeError) as error:
        sys.exit(" ".join(str(error).split()))
    print(json.dumps(cost))


if __name__ == "__main__":
    sys.path.pop(0)  # The folder of this file, whose modules are no top-level ones.
    _main()
