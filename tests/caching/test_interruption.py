"""Builds that stop before their end, and go on: errors, kills, full disks."""

import contextlib
import errno
import os
import pathlib
import resource
import shutil
import signal
import time

import pytest
import tensorflow as tf

from keras_lpd import TeacherCache
from keras_lpd.caching import building
from tests.caching.given import (
    COUNT,
    FEW,
    PROCESSES,
    altered,
    contents,
    dataset,
    digits,
    in_fresh_process,
    noisy,
    nothing_opens,
    quick_teacher,
    seen_by,
    swapped,
)
from tests.helpers import same

# Interrupted builds

RESUMED = {
    "layers": "features",
    "project": 8,
    "outputs": True,
    "dtype": "float32",
    "batch_size": 32,
}


class Unplugged(Exception):
    pass


def unplugged_after(count):
    """A data set that breaks off with an error; `True` plugs it in again."""
    plugged = []
    x, y = digits()

    def samples():
        for index, sample in enumerate(zip(x, y)):
            if index == count and not plugged:
                raise Unplugged
            yield sample

    signature = (tf.TensorSpec((8, 8, 1), tf.float32), tf.TensorSpec((), y.dtype))
    data = tf.data.Dataset.from_generator(samples, output_signature=signature)
    return data, plugged


def test_a_build_goes_on_where_an_error_stopped_it(build, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "CHECKPOINT_SECONDS", -1.0)
    path, teacher = tmp_path / "cache", quick_teacher()
    data, plugged = unplugged_after(290)
    with pytest.raises(tf.errors.OpError, match="Unplugged"):
        build(teacher, data, path, batch_size=16, dtype="float32")
    with pytest.raises(FileNotFoundError, match="unfinished one.*goes on"):
        TeacherCache.open(path)
    plugged.append(True)
    before = seen_by(teacher)
    cache = build(teacher, data, path, batch_size=25, dtype="float32")
    assert seen_by(teacher) - before <= COUNT - 288 + 25 + FEW
    undisturbed = build(teacher, dtype="float32", batch_size=16)
    assert same(contents(cache), contents(undisturbed))
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]


def test_an_unfinished_build_takes_nothing_but_its_own(build, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "CHECKPOINT_SECONDS", -1.0)
    path, teacher = tmp_path / "cache", quick_teacher()
    counted = teacher.get_layer("counted")

    def fail_late():  # When it is through with PCA, and has written a good deal.
        if counted.samples > 1.7 * COUNT:
            raise Unplugged

    counted.tell = fail_late
    with pytest.raises(tf.errors.OpError, match="Unplugged"):
        build(teacher, path=path, **RESUMED)
    counted.tell = lambda: None

    x, y = digits()
    refused = {
        "teacher's weights": {"teacher": quick_teacher(seed=1)},
        "`dtype`": {"dtype": "float16"},
        "`project`": {"project": 9},
        "`projection`": {"projection": "gaussian"},
        "`layers`": {"layers": "logits"},
        "`augment`": {"augment": noisy},
        "other data": {"data": dataset(altered(x, at=40))},
        "another order": {"data": dataset(swapped(x, at=40))},
        "only gives 100": {"data": dataset(x[:100], y[:100])},
    }
    for said, change in refused.items():
        arguments = {"teacher": teacher, "data": dataset(), **RESUMED, **change}
        with pytest.raises((FileExistsError, ValueError), match=said):
            build(path=path, **arguments)
        assert nothing_opens(path)

    # A part that is cut off, as by a crash of the whole machine.
    for file in sorted(path.with_name("cache.building").glob("*.npy")):
        whole_file = file.read_bytes()
        file.write_bytes(whole_file[: len(whole_file) // 2])
        with pytest.raises(ValueError, match=f"{file.name} was cut off"):
            build(teacher, path=path, **RESUMED)
        assert nothing_opens(path)
        file.write_bytes(whole_file + b"what was written last")

    # None of them has spoilt it: the right one still goes on.
    before = seen_by(teacher)
    cache = build(teacher, path=path, **RESUMED)
    assert seen_by(teacher) - before < 0.6 * COUNT
    assert same(contents(cache), contents(build(teacher, **RESUMED)))


def watch(teacher, tell, patch=setattr):
    """Calls `tell` before each run of the teacher and each step on the disk."""
    teacher.get_layer("counted").tell = lambda: tell("teacher")
    patch(building, "CHECKPOINT_SECONDS", -1.0)
    steps = [(os, "fsync")]
    steps += [(pathlib.Path, name) for name in ("replace", "rename", "unlink", "rmdir")]
    for owner, name in steps:
        original = getattr(owner, name)

        def step(*args, name=name, original=original, **kwargs):
            tell(name)
            return original(*args, **kwargs)

        patch(owner, name, step)


def build_until_killed(path, moment):
    """Builds with `watch`, and is killed at the step numbered `moment`."""
    teacher, steps = quick_teacher(), iter(range(moment))

    def tell(name):
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(teacher, tell)
    TeacherCache.build(teacher, dataset(), path, verbose=0, **RESUMED)


def killed(path, moment):
    process = PROCESSES.Process(target=build_until_killed, args=(path, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(build):
    """What is kept, the steps of the build, and how many samples the teacher saw."""
    teacher, steps = quick_teacher(), []
    with pytest.MonkeyPatch.context() as patch:
        watch(teacher, steps.append, patch.setattr)
        cache = build(teacher, **RESUMED)
    assert {"teacher", "fsync", "replace", "rename"} <= set(steps)
    return contents(cache), steps, seen_by(teacher)


@pytest.mark.parametrize("moment", ["fitting", "middle", -10, -7, -5, -4, -2], ids=str)
def test_a_killed_build_goes_on(build, undisturbed, tmp_path, moment):
    """SIGKILL while PCA is fitted, in the middle, and at the last steps."""
    expected, steps, whole = undisturbed
    path = tmp_path / "cache"
    runs = [step for step, name in enumerate(steps) if name == "teacher"]
    named = {"fitting": runs[5], "middle": len(steps) // 2}
    step = named.get(moment, moment) % len(steps)
    killed(path, step)

    finished = "rename" in steps[:step]
    if finished:
        assert same(contents(TeacherCache.open(path)), expected)
    else:
        assert nothing_opens(path)
    teacher = quick_teacher()
    cache = build(teacher, path=path, **RESUMED)
    assert same(contents(cache), expected)
    assert same(contents(TeacherCache.open(path)), expected)
    if finished:
        assert seen_by(teacher) <= FEW
    elif moment != "fitting":
        assert seen_by(teacher) < whole * (1 - step / len(steps) / 2)


def test_a_build_killed_time_and_again_gets_done(build, undisturbed, tmp_path):
    expected, steps, whole = undisturbed
    path, quarter = tmp_path / "cache", len(steps) // 4
    for _ in range(3):
        killed(path, quarter)
        assert nothing_opens(path)
    shutil.copytree(tmp_path, tmp_path.with_name("others"))
    teacher = quick_teacher()
    assert same(contents(build(teacher, path=path, **RESUMED)), expected)
    assert seen_by(teacher) < whole / 2

    refused = {
        "teacher's weights": (quick_teacher(seed=1), dataset()),
        "other data": (teacher, dataset(altered(digits()[0], at=40))),
    }
    path = tmp_path.with_name("others") / "cache"
    for said, (model, data) in refused.items():
        with pytest.raises((FileExistsError, ValueError), match=said):
            build(model, data, path, **RESUMED)
        assert nothing_opens(path)


# A full disk


def build_within(path, limits):
    """What comes of builds while files may only have so many bytes."""
    errors = []
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        try:
            TeacherCache.build(
                quick_teacher(),
                dataset(),
                path,
                dtype="float32",
                batch_size=32,
                verbose=0,
            )
            errors.append(None)
        except Exception as error:
            errors.append(type(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        with contextlib.suppress(FileNotFoundError):
            TeacherCache.open(path)
            errors.append("opens")
    return errors


def test_a_full_disk_leaves_what_was_there(build, tmp_path):
    teacher = quick_teacher()
    older = build(teacher, path=tmp_path / "older", dtype="float32", batch_size=32)
    (tmp_path / "thesis.txt").write_text("mine")
    path = tmp_path / "cache"
    # Fingerprints take 8 bytes a sample, features 96; the manifest some 1,500.
    limits = [10, 400, 2000, 10_000, 30_000]
    errors = in_fresh_process(build_within, path, limits)
    assert errors == [OSError] * len(limits)
    assert nothing_opens(path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    expected = contents(TeacherCache.open(older.path))
    assert same(expected, contents(older))

    cache = build(teacher, path=path, dtype="float32", batch_size=32)
    assert same(contents(cache), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cache",
        "older",
        "thesis.txt",
    ]


def test_a_disk_too_small_is_told_of_beforehand(build, tmp_path, monkeypatch):
    teacher = quick_teacher()
    needed = COUNT * 24 * 4
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=needed - 1)
    )
    with pytest.raises(OSError, match="MB free") as refusal:
        build(teacher, path=tmp_path / "cache", dtype="float32", batch_size=32)
    assert refusal.value.errno == errno.ENOSPC
    assert seen_by(teacher) <= 32 + FEW
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=2 * needed)
    )
    build(teacher, path=tmp_path / "cache", dtype="float32")


# Two processes


def build_slowly(path, started, go_on):
    teacher = quick_teacher()
    counted = teacher.get_layer("counted")

    def wait():
        if counted.samples > 150:
            started.touch()
            while not go_on.exists():
                time.sleep(0.02)

    counted.tell = wait
    TeacherCache.build(teacher, dataset(), path, batch_size=32, verbose=0)


def test_of_two_processes_one_builds_and_the_other_says_so(build, tmp_path):
    path, started, go_on = (tmp_path / name for name in ("cache", "started", "go"))
    first = PROCESSES.Process(target=build_slowly, args=(path, started, go_on))
    first.start()
    try:
        while not started.exists():
            assert first.is_alive()
            time.sleep(0.02)
        teacher = quick_teacher()
        with pytest.raises(RuntimeError, match="[Aa]nother process is building"):
            build(teacher, path=path, batch_size=32)
        assert seen_by(teacher) <= FEW
        assert nothing_opens(path)
        assert same(
            contents(build(teacher, path=tmp_path / "beside")), contents(build(teacher))
        )
    finally:
        go_on.touch()
        first.join()
    assert first.exitcode == 0
    cache = TeacherCache.open(path)
    assert same(contents(cache), contents(build(teacher, batch_size=32)))
    build(teacher, path=path, batch_size=32)  # The lock is gone with the first.
