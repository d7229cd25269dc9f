"""Real workers: the same function in several processes, joined over 127.0.0.1.

`Workers` starts them; each is `python -m tests.workers MODULE FUNCTION FOLDER`, makes
the strategy and calls `FUNCTION(strategy, FOLDER, index)` of the test module.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class Workers:
    """Processes that train together; in a `with` statement, none is left behind.

    Args:
        function: What each of them runs, `(strategy, folder, index)`, in the module
            of a test.
        folder: Theirs, to read from and write to. Their logs come there too.
        count: How many.
        **environment: Environment variables for them.
    """

    def __init__(
        self,
        function: Callable[[Any, Path, int], None],
        folder: Path,
        count: int = 2,
        **environment: str,
    ):
        self.function, self.folder, self.count = function, folder, count
        self.environment = environment
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(self.count)]
        function = self.function
        command = [sys.executable, "-m", "tests.workers"]
        command += [function.__module__, function.__name__, str(self.folder)]
        try:
            for index in range(self.count):
                task = {"type": "worker", "index": index}
                config = {"cluster": {"worker": addresses}, "task": task}
                with open(self.folder / f"worker{index}.log", "ab") as log:
                    self.processes.append(
                        subprocess.Popen(
                            command,
                            cwd=ROOT,
                            env={
                                **os.environ,
                                "TF_CONFIG": json.dumps(config),
                                "CUDA_VISIBLE_DEVICES": "-1",
                                "TF_CPP_MIN_LOG_LEVEL": "1",
                                "no_proxy": "127.0.0.1",
                                **self.environment,
                            },
                            stdin=subprocess.PIPE,  # see `_stay_with_parent`
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def stop(self) -> None:
        """Kills what is still there."""
        for index in range(len(self.processes)):
            self.kill(index)

    def kill(self, index: int) -> None:
        """Kills a worker, with all that it may have started, as a lost machine is."""
        process = self.processes[index]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()

    def wait_for(self, index: int, seconds: float = 120) -> int:
        """The exit status of one of them, when it has come to its end."""
        try:
            return self.processes[index].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log(index)) from None

    def wait(self, seconds: float) -> list[int | None]:
        """The exit status of each, by then; `None` of one that still runs."""
        end = time.monotonic() + seconds
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.01))
        return [process.poll() for process in self.processes]

    def finish(self, seconds: float = 300) -> None:
        """Waits for all of them; fails with their logs unless all did well."""
        statuses = self.wait(seconds)
        if statuses != [0] * self.count:
            logs = "\n".join(self.log(index) for index in range(self.count))
            raise AssertionError(
                f"Exit statuses {statuses} after at most {seconds} s.\n{logs}"
            )

    def log(self, index: int) -> str:
        """The end of what a worker printed."""
        text = (self.folder / f"worker{index}.log").read_text(errors="replace")
        return f"--- worker {index}\n{text[-4000:]}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _stay_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(module: str, function: str, folder: str) -> None:
    import tensorflow as tf

    # Before all else: a strategy has to be the first to use TensorFlow's runtime.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = strategy.cluster_resolver.task_id
    getattr(importlib.import_module(module), function)(strategy, Path(folder), index)


if __name__ == "__main__":
    _stay_with_parent()
    main(*sys.argv[1:])
