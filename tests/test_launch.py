"""The launcher of several workers, as a shell sees it."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import keras_lpd
from keras_lpd.launch import launch

# The launcher without what `import keras_lpd` loads: these tests start it often.
LAUNCHER = f"""
import runpy, sys, types
package = types.ModuleType("keras_lpd")
package.__path__ = {list(keras_lpd.__path__)!r}
sys.modules["keras_lpd"] = package
runpy.run_module("keras_lpd.launch", run_name="__main__", alter_sys=True)
"""
SECONDS = 120  # what nothing here takes

# Scripts of workers begin like this. None lives on for long, should a test fail.
BEGINNING = """
import json, os, pathlib, signal, socket, subprocess, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]

def wait_for(name):
    for _ in range(6000):
        if pathlib.Path(name).exists():
            return
        time.sleep(0.01)
    sys.exit("nothing came")

def sleep():
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    return tmp_path


def write(script, name="script.py"):
    pathlib.Path(name).write_text(BEGINNING + textwrap.dedent(script))
    return name


def run(script, *arguments, workers=2, options=()):
    """Launches workers that run this, and waits; gives the finished process."""
    command = [sys.executable, "-c", LAUNCHER, "--workers", str(workers), *options]
    return subprocess.run(
        [*command, write(script), *arguments], capture_output=True, timeout=SECONDS
    )


@contextlib.contextmanager
def launched(script, workers=2, options=()):
    """Launches workers that run this, and leaves them to the test."""
    command = [sys.executable, "-c", LAUNCHER, "--workers", str(workers), *options]
    process = subprocess.Popen(
        [*command, write(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    try:
        with process:
            yield process
    finally:
        limit.cancel()


def lines_of(output, worker):
    prefix = f"[worker {worker}] "
    lines = output.decode().split("\n")
    return [line[len(prefix) :] for line in lines if line.startswith(prefix)]


def errors_of(finished):
    """What the launcher says itself."""
    lines = finished.stderr.decode().splitlines()
    return [line for line in lines if line.startswith("[launch] ")]


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):  # A zombie, where there is /proc, is gone.
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
        return not state.startswith(" Z")
    return True


def read(name):
    """The number in a file, once it is there."""
    path = pathlib.Path(name)
    for _ in range(6000):
        if path.exists() and path.read_text().endswith("\n"):
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError(f"no {name}")


def assert_gone(*names):
    """Asserts that the processes whose numbers are in these files end."""
    pids = [read(name) for name in names]
    for _ in range(1000):
        if not any(map(is_there, pids)):
            return
        time.sleep(0.01)
    raise AssertionError(f"left behind: {[pid for pid in pids if is_there(pid)]}")


def test_each_worker_has_its_place_and_a_port():
    done = run(
        """
        config = json.loads(os.environ["TF_CONFIG"])
        host, port = config["cluster"]["worker"][index].split(":")
        socket.socket().bind((host, int(port)))
        print(json.dumps(config))
        """,
        workers=3,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    configs = []
    for worker in range(3):
        (line,) = lines_of(done.stdout, worker)
        configs.append(json.loads(line))
    addresses = configs[0]["cluster"]["worker"]
    assert len(set(addresses)) == 3
    for worker, config in enumerate(configs):
        assert config == {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": worker},
        }
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address in addresses)


def test_arguments_after_the_script_are_its_own():
    given = ["--workers", "7", "-m", "-h", "--", "--grace", "two words", "--w"]
    done = run("print(json.dumps(sys.argv))", *given)
    for worker in range(2):
        assert lines_of(done.stdout, worker) == [json.dumps(["script.py", *given])]


def test_a_module():
    os.mkdir("package")
    write("print(__name__, sys.argv[1:])", "package/module.py")
    command = [sys.executable, "-c", LAUNCHER, "--workers", "1", "-m"]
    command += ["package.module", "--epochs", "3"]
    shown = subprocess.check_output(command, timeout=SECONDS)
    assert shown == b"[worker 0] __main__ ['--epochs', '3']\n"


def test_lines_stay_whole_and_streams_apart():
    done = run(
        """
        for name, pipe in (("out", 1), ("err", 2)):
            lines = [f"{name} {index} {n} " + "x" * (n % 300) for n in range(3000)]
            text = ("\\n".join(lines) + "\\n").encode()
            if os.fork() == 0:
                for start in range(0, len(text), 777):
                    os.write(pipe, text[start : start + 777])
                os._exit(0)
        os.wait(), os.wait()
        """,
        workers=3,
    )
    assert done.returncode == 0
    for name, output in (("out", done.stdout), ("err", done.stderr)):
        for worker in range(3):
            expected = [f"{name} {worker} {n} " + "x" * (n % 300) for n in range(3000)]
            assert lines_of(output, worker) == expected
        assert output.count(b"\n") == 3 * 3000


def test_output_comes_at_once():
    with launched("print('ready'); wait_for('go')", workers=1) as process:
        assert process.stdout.readline() == b"[worker 0] ready\n"
        pathlib.Path("go").touch()
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            [b"10%\r20%\r", b"30%\ndone\r", b"\nend\n"],
            ["10%", "20%", "30%", "done", "end"],
        ),
        ([b"whole\n\nunfini", b"shed"], ["whole", "", "unfinished"]),
        ([b"caf\xc3", b"\xa9 \xff\n"], ["café \\xff"]),
        ([b"cut \xc3"], ["cut \\xc3"]),
    ],
    ids=["carriage returns", "unfinished line", "not UTF-8", "cut within a letter"],
)
def test_what_is_no_plain_line(written, shown):
    done = run(
        f"""
        for part in {written!r}:
            os.write(1, part)
            time.sleep(0.3)  # so that the parts are read apart
        """,
        workers=1,
    )
    assert done.returncode == 0
    assert lines_of(done.stdout, 0) == shown


def test_letters_that_the_output_lacks(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run("os.write(1, 'café\\n'.encode())", workers=1)
    assert (done.returncode, done.stdout) == (0, b"[worker 0] caf\\xe9\n")


def test_workers_have_no_input():
    assert run("print(repr(sys.stdin.read()))", workers=1).stdout == b"[worker 0] ''\n"


def test_one_that_ends_well_stops_nobody():
    done = run(
        """
        if index == 0:
            pathlib.Path("pid").write_text(f"{os.getpid()}\\n")
        else:
            wait_for("pid")
            time.sleep(0.5)
            print("trained")
        """
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines_of(done.stdout, 1) == ["trained"]


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("sys.exit(3)", 3, "ended with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by signal 9"),
        ("os.abort()", 134, "was killed by signal 6"),
    ],
)
def test_one_fails_and_the_others_are_stopped(end, code, told):
    done = run(
        f"""
        pathlib.Path(f"pid{{index}}").write_text(f"{{os.getpid()}}\\n")
        if index == 1:
            wait_for("pid0"), wait_for("pid2")
            {end}
        sleep()
        """,
        workers=3,
    )
    assert done.returncode == code
    (error,) = errors_of(done)
    assert f"worker 1 {told}" in error
    assert_gone("pid0", "pid1", "pid2")


def test_the_first_failure_counts():
    done = run(
        """
        if index == 0:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
            pathlib.Path("ready").touch()
            sleep()
        wait_for("ready")
        sys.exit(4)
        """
    )
    assert done.returncode == 4
    (error,) = errors_of(done)
    assert "worker 1 ended with exit code 4" in error


def test_a_worker_that_will_not_stop_is_killed():
    done = run(
        """
        if index == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            pathlib.Path("pid").write_text(f"{os.getpid()}\\n")
            sleep()
        wait_for("pid")
        sys.exit(5)
        """,
        options=["--grace", "0.2"],
    )
    assert done.returncode == 5
    assert "worker 0 is still there" in errors_of(done)[1]
    assert_gone("pid")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(number):
    script = """
        def end(number, frame):
            print("got", signal.Signals(number).name)
            sys.exit(9)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)
        print("ready")
        sleep()
    """
    with launched(script) as process:
        for _ in range(2):
            assert process.stdout.readline().endswith(b"ready\n")
        process.send_signal(number)
        shown, errors = process.communicate()
    assert process.returncode == 128 + number
    for worker in range(2):
        assert lines_of(shown, worker) == [f"got {number.name}"]
    assert number.name in errors.decode()
    assert "Traceback" not in errors.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_ignore_signals_are_killed(number):
    script = """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path(f"pid{index}").write_text(f"{os.getpid()}\\n")
        sleep()
    """
    with launched(script, options=["--grace", "0.2"]) as process:
        read("pid0"), read("pid1")
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 128 + number
    assert_gone("pid0", "pid1")


# A worker with a child that ignores what it can.
PARENT = """
child = '''
import os, pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("child").write_text(f"{os.getpid()}\\\\n")
time.sleep(60)
'''
pathlib.Path("worker").write_text(f"{os.getpid()}\\n")
subprocess.Popen([sys.executable, "-c", child])
wait_for("child")
"""


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(0)", 0), ("sys.exit(3)", 3), ("os.abort()", 134)]
)
def test_children_end_with_their_worker(end, code):
    assert run(PARENT + end, workers=1).returncode == code
    assert_gone("worker", "child")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_children_end_when_the_launcher_is_told_to(number):
    with launched(PARENT + "sleep()", workers=1) as process:
        read("child")
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 128 + number
    assert_gone("worker", "child")


def test_all_end_when_the_launcher_is_killed():
    with launched(PARENT + "sleep()", workers=1) as process:
        read("child")
        process.kill()
        process.communicate()
    assert_gone("worker", "child")


def test_a_child_that_left_the_group_holds_nothing_up():
    child = "import time; time.sleep(60)"
    done = run(
        f"""
        child = [sys.executable, "-c", {child!r}]
        process = subprocess.Popen(child, start_new_session=True)
        pathlib.Path("child").write_text(f"{{process.pid}}\\n")
        sys.stdout.write("unfinished")
        """,
        workers=1,
    )
    child = read("child")
    there = is_there(child)
    os.kill(child, signal.SIGKILL)
    assert there
    assert (done.returncode, done.stdout) == (0, b"[worker 0] unfinished\n")


def test_nobody_reads_any_more():
    script = """
        pathlib.Path(f"pid{index}").write_text(f"{os.getpid()}\\n")
        for _ in range(6000):
            print("still here")
            time.sleep(0.01)
    """
    with launched(script) as process:
        read("pid0"), read("pid1")
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 128 + signal.SIGPIPE
    assert errors.count("\n") == 1
    assert "the output can't be written" in errors
    assert_gone("pid0", "pid1")


def test_workers_are_stopped_while_nobody_reads():
    script = """
        pathlib.Path("pid").write_text(f"{os.getpid()}\\n")
        while True:
            print("x" * 10_000)
    """
    with launched(script, workers=1) as process:
        process.stdout.read(1)
        time.sleep(0.5)  # until the pipe is full
        process.send_signal(signal.SIGTERM)
        assert_gone("pid")
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM


def test_what_a_worker_wrote_comes_before_what_is_said_of_it():
    script = """
        if index == 0:
            while True:
                print("x" * 10_000)
        wait_for("go")
        print("my last words", file=sys.stderr)
        pathlib.Path("pid").write_text(f"{os.getpid()}\\n")
        sys.exit(3)
    """
    with launched(script) as process:
        process.stdout.read(1)
        time.sleep(0.5)  # until the pipe is full, and nothing more is passed on
        pathlib.Path("go").touch()
        assert_gone("pid")
        time.sleep(0.5)
        _, errors = process.communicate()
    assert process.returncode == 3
    words, error = errors.decode().splitlines()
    assert words == "[worker 1] my last words"
    assert "worker 1 ended with exit code 3" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0", "script.py"], "at least 1. Received: workers=0"),
        (["--workers", "two", "script.py"], "invalid int value: 'two'"),
        (["--workers", "2", "--grace", "0", "script.py"], "positive number"),
        (["--workers", "2", "--grace", "nan", "script.py"], "positive number"),
        (["--workers", "2", "nothing.py"], "no script 'nothing.py'"),
        (["--workers", "2"], "expected a script"),
        (["--workers", "2", "-m"], "expected a script"),
        (["script.py"], "required: --workers"),
    ],
)
def test_refusals(arguments, message):
    write("print('started')")
    command = [sys.executable, "-c", LAUNCHER, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (2, b"")
    usage, error = done.stderr.decode().splitlines()
    assert usage.startswith("usage: python -m keras_lpd.launch")
    assert message in error


def test_a_real_cluster_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    done = run("print('started')")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "run the script itself on each node" in done.stderr.decode()


def test_as_a_module():
    command = [sys.executable, "-m", "keras_lpd.launch", "--workers", "1"]
    command.append(write("print('trained'); sys.exit(6)"))
    done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (6, b"[worker 0] trained\n")


def test_as_a_function(capsys):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    script = write("print('trained'); print('badly', file=sys.stderr); sys.exit(6)")
    assert launch([script], workers=1) == 6
    shown = capsys.readouterr()
    assert shown.out == "[worker 0] trained\n"
    assert "[worker 0] badly\n" in shown.err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread():
    codes = []
    script = write("sys.exit(index)")
    thread = threading.Thread(target=lambda: codes.append(launch([script], 2)))
    thread.start()
    thread.join(SECONDS)
    assert codes == [1]


@pytest.mark.parametrize("command", ["script.py", []])
def test_commands_are_lists(command):
    with pytest.raises(ValueError, match="must be a list"):
        launch(command, workers=1)
