"""TensorBoard, started on a free port of this machine."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest


class Server:
    """A TensorBoard that runs."""

    def __init__(self, url):
        self.url = url

    def get(self, path, **query):
        """`(status, content type, bytes)` of one of its addresses."""
        url = f"{self.url}/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get_content_type(), error.read()

    def json(self, path, **query):
        status, kind, content = self.get(path, **query)
        assert (status, kind) == (200, "application/json"), content
        return json.loads(content)

    def dashboard(self, path, **query):
        return self.get(f"data/plugin/neighborhoods/{path}", **query)


@contextlib.contextmanager
def running_tensorboard(logdir, *arguments):
    """Starts the command, waits until it answers, and stops it at the end."""
    command = [
        sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir),
        "--host", "127.0.0.1", "--port", "0", *arguments,
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        try:
            yield Server(_address(process, log))
        finally:
            process.terminate()
            process.wait()


def _address(process, log, patience=300):
    """Where TensorBoard says that it is."""
    for _ in range(10 * patience):
        log.seek(0)
        said = log.read()
        if found := re.search(r"at (http://127\.0\.0\.1:\d+)/", said):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"TensorBoard did not start:\n{said}")


@pytest.fixture(scope="session")
def tensorboard():
    """`with tensorboard(logdir, *arguments) as server`."""
    return running_tensorboard
