"""Multi-worker training tried out on one machine.

    python -m keras_lpd.launch --workers 2 train.py --epochs 3

starts `python train.py --epochs 3` twice, as the two workers of a cluster on 127.0.0.1
(Linux and macOS). On a real cluster nothing of this is needed: there the script is run
on each node, with its `TF_CONFIG`.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import json
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from keras_lpd.arguments import as_integer, as_positive

# More than a pipe holds, so that one read empties it.
_PIPE = 2**20

_WATCH = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    change, group = line.split()
    if change == "add":
        groups.add(int(group))
    else:
        groups.remove(int(group))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:  # The group is gone.
        pass
"""


def launch(command: Sequence[str], workers: int, grace: float = 10.0) -> int:
    """Runs a script as several workers on this machine, and waits for them.

    Each worker is a process of its own, `python` with `command`, that finds
    its place in the cluster in the environment variable `TF_CONFIG`, as
    `tf.distribute.MultiWorkerMirroredStrategy` expects it. It has no input,
    and its output appears line by line behind `[worker 0]`, in `sys.stdout`
    or `sys.stderr`; a carriage return ends a line as well.

    When a worker fails, the others are stopped. SIGINT and SIGTERM are passed
    on to all of them (if this runs in the main thread, where Python lets
    signals be handled). In both cases those that are still there after the
    `grace` are killed. A worker's own children end with it, unless they have
    made themselves a process group; should this process be killed, so are the
    workers.

    Args:
        command: What follows `python`: a script or `-m` and a module, and
            their arguments.
        workers: How many, at least 1.
        grace: Seconds a worker has to end after it was told to. Defaults to
            10.

    Returns:
        The exit code: 0 if all workers ended well, that of the first that
        failed (128 and the signal's number if a signal killed it), or 128 and
        the number of the signal that was passed on.

    Raises:
        ValueError: If an argument is out of its range, if there is no such
            script, or if `TF_CONFIG` is set already.

    Example:

    >>> from keras_lpd.launch import launch
    >>> launch(["-c", "import os; print('TF_CONFIG' in os.environ)"], workers=1)
    [worker 0] True
    0
    """
    workers, grace = _checked(command, workers, grace)
    ports = _free_ports(workers)
    events: queue.SimpleQueue[_Worker | signal.Signals] = queue.SimpleQueue()
    with _Watch() as watch, _Output(events) as output, _signals_into(events):
        running = []
        for index in range(workers):
            worker = _Worker(index, command, ports)
            watch.add(worker)
            running.append(worker)
        output.begin(running)
        for worker in running:
            worker.tell_its_end(events)

        code, deadline = 0, None
        while running:
            event = _next(events, deadline)
            stop_with = None
            if event is None:
                deadline = None
                for worker in running:
                    output.say(f"{worker.name} is still there: killing it.")
                    worker.send(signal.SIGKILL)
            elif isinstance(event, _Worker):
                running.remove(event)
                watch.remove(event)
                if event.exit_code and not code:
                    code, stop_with = event.exit_code, signal.SIGTERM
                    stopping = ": stopping the others." if running else "."
                    output.say(f"{event.name} {event.end}{stopping}")
            elif event is signal.SIGPIPE:
                code, stop_with = code or 128 + event, signal.SIGTERM
                output.say("the output can't be written: stopping the workers.")
            else:
                code, stop_with = code or 128 + event, event
                output.say(f"{event.name}: passing it on to the workers.")
            if stop_with:
                deadline = deadline or time.monotonic() + grace
                for worker in running:
                    worker.send(stop_with)
    return code


class _Worker:
    """The process of a worker, which leads a process group of its own."""

    def __init__(self, index: int, command: Sequence[str], ports: list[int]) -> None:
        config = {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]},
            "task": {"type": "worker", "index": index},
        }
        more = {"TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1"}
        self.name = f"worker {index}"
        self.process = subprocess.Popen(
            [sys.executable, *command],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **more},
            start_new_session=True,
        )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the worker and all of its group, if any is left."""
        # A group of none but zombies is a PermissionError on macOS.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def tell_its_end(self, events: queue.SimpleQueue[Any]) -> None:
        """Makes an event of its end, once the rest of its group is killed."""

        def wait() -> None:
            self.process.wait()
            self.send(signal.SIGKILL)
            events.put(self)

        threading.Thread(target=wait, daemon=True).start()

    @property
    def exit_code(self) -> int:
        code = self.process.returncode
        return code if code >= 0 else 128 - code

    @property
    def end(self) -> str:
        code = self.process.returncode
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"


class _Watch:
    """A process that kills the workers' groups if this one is gone.

    It hears of them through a pipe, which closes however this process ends.
    """

    def __enter__(self) -> _Watch:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def add(self, worker: _Worker) -> None:
        self._tell("add", worker)

    def remove(self, worker: _Worker) -> None:
        self._tell("remove", worker)

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._process.wait()

    def _tell(self, change: str, worker: _Worker) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(f"{change} {worker.process.pid}\n")
            self._stdin.flush()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin


class _Output:
    """Passes on what the workers write, in whole lines.

    One thread of its own writes it all: so lines can't mix, and workers can be
    stopped while nobody reads (a pager, say).
    """

    def __init__(self, events: queue.SimpleQueue[Any]) -> None:
        self._events = events
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()
        self._broken: list[TextIO] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stdout, self._stderr = sys.stdout, sys.stderr

    def __enter__(self) -> _Output:
        return self

    def begin(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._read(worker, worker.process.stdout, self._stdout)
            self._read(worker, worker.process.stderr, self._stderr)
        self._thread.start()

    def say(self, what: str) -> None:
        """Says something of the launcher's own, after what was written before."""
        self._said.put(f"[launch] {what}\n")

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        self._selector.close()

    def _read(self, worker: _Worker, pipe: Any, stream: TextIO) -> None:
        passed_on = _Lines(f"[{worker.name}] "), stream
        self._selector.register(pipe, selectors.EVENT_READ, passed_on)

    def _run(self) -> None:
        last = False
        while not last:
            # Looked at before the pipes: they hold what was written until then.
            last = self._ended.is_set()
            said = [self._said.get() for _ in range(self._said.qsize())]
            for key, _ in self._selector.select(0 if last else 0.1):
                self._pass_on(key, os.read(key.fd, _PIPE))
            for what in said:
                self._write(self._stderr, what)
        # Those still open are held by children that left their worker's group.
        for key in list(self._selector.get_map().values()):
            self._pass_on(key, b"")

    def _pass_on(self, key: selectors.SelectorKey, written: bytes) -> None:
        lines, stream = key.data
        self._write(stream, lines.add(written))
        if not written:
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]

    def _write(self, stream: TextIO, text: str) -> None:
        if not text or stream in self._broken:
            return
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError):  # The latter if it is closed.
            self._broken.append(stream)
            self._events.put(signal.SIGPIPE)


class _Lines:
    """Makes whole lines, each with its prefix, of bytes as they come."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8")("backslashreplace"), translate=True
        )
        self._rest = ""

    def add(self, written: bytes) -> str:
        """The lines that are whole now; with no bytes, the unfinished one too."""
        text = self._rest + self._decoder.decode(written, final=not written)
        *lines, self._rest = text.split("\n")
        if self._rest and not written:
            lines.append(self._rest)
        return "".join(f"{self._prefix}{line}\n" for line in lines)


def _next(
    events: queue.SimpleQueue[_Worker | signal.Signals], deadline: float | None
) -> _Worker | signal.Signals | None:
    """What happens next; `None` if that is the deadline."""
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        return events.get(timeout=left)
    except queue.Empty:
        return None


@contextlib.contextmanager
def _signals_into(events: queue.SimpleQueue[Any]) -> Iterator[None]:
    """Makes events of SIGINT and SIGTERM, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(
            number, lambda number, frame: events.put(signal.Signals(number))
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            # All stay open until the last is found, so that no port comes twice.
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
        return ports


def _checked(command: Sequence[str], workers: int, grace: float) -> tuple[int, float]:
    if isinstance(command, str) or not command:
        raise ValueError(
            "`command` must be a list: a script or '-m' and a module, and their "
            f"arguments. Received: command={command!r}"
        )
    if not command[0].startswith("-") and not os.path.exists(command[0]):
        raise ValueError(f"There is no script {command[0]!r} in {os.getcwd()!r}.")
    if os.environ.get("TF_CONFIG"):
        raise ValueError(
            "TF_CONFIG is set already, as on a node of a cluster. This launcher is "
            "for one machine: run the script itself on each node, or unset TF_CONFIG."
        )
    return as_integer("workers", workers, least=1), as_positive("grace", grace)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the launcher; gives its exit code: that of `launch`.

    A wrong argument is exit code 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("expected a script, or -m and a module. Received neither.")
    command = ["-m", *options.command] if options.module else options.command
    try:
        _checked(command, options.workers, options.grace)
    except ValueError as error:
        parser.error(str(error))
    code = launch(command, options.workers, options.grace)
    _let_go_of_broken_output()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_lpd.launch",
        usage="%(prog)s [-h] --workers N [--grace SECONDS] (SCRIPT | -m MODULE) "
        "[ARGUMENTS ...]",
        description="Runs a script as several workers on this machine, to try "
        "multi-worker training. When one fails, the others are stopped.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workers", type=int, required=True, metavar="N", help="how many workers")
    add(
        "--grace",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long a worker that is told to end has until it is killed "
        "(default: 10)",
    )
    add("-m", dest="module", action="store_true", help="run a module, not a script")
    add(
        "command",
        nargs=argparse.REMAINDER,
        metavar="SCRIPT",
        help="the script (or module) and its arguments",
    )
    return parser


def _let_go_of_broken_output() -> None:
    """Spares Python's exit a last attempt to write where nobody reads."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
