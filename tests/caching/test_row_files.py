"""Files that grow by rows: what NumPy reads of them, what outlives a crash."""

import dataclasses
import errno
import json
import os
import re

import numpy as np
import pytest

from keras_lpd.beside import PART
from keras_lpd.caching.row_files import (
    HEADER,
    PROGRESS,
    ArrayFile,
    RowWriter,
    read_sealed,
    write_sealed,
)


def flip(path, at):
    """Changes one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


KINDS = [
    ("float16", (3,)),
    ("float32", ()),
    ("float32", (5,)),
    ("float64", (2, 1, 2)),
    (">f4", (2,)),
    ("uint8", (8,)),
    ("int64", ()),
    ("bool", (2,)),
    ("complex64", (1,)),
]


def some_rows(dtype="float32", shape=(3,), count=8):
    random = np.random.default_rng(0)
    return random.integers(0, 99, (count, *shape)).astype(dtype)


def load(folder, name="x"):
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is written


@pytest.mark.parametrize(("dtype", "shape"), KINDS)
def test_numpy_reads_what_was_written(tmp_path, dtype, shape):
    rows = some_rows(dtype, shape)
    writer = RowWriter(tmp_path / "new", None)
    for piece in (rows[:3], rows[3:4], rows[4:]):
        writer.append({"x": piece})

    file = writer.finish()["x"]

    for found in (load(tmp_path / "new"), file.open(tmp_path / "new")):
        assert (found.dtype, found.shape) == (rows.dtype, rows.shape)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
    "rows",
    [
        some_rows(shape=(6,))[:, ::2],
        some_rows(shape=(6,))[::-1],
        np.asfortranarray(some_rows(shape=(4, 5))),
        some_rows(shape=(4, 5)).transpose(0, 2, 1),
    ],
    ids=["every other column", "backwards", "fortran", "transposed"],
)
def test_rows_that_lie_otherwise_in_memory(tmp_path, rows):
    writer = RowWriter(tmp_path, None)
    writer.append({"x": rows})
    writer.finish()
    np.testing.assert_array_equal(load(tmp_path), rows)


def test_several_arrays_side_by_side(tmp_path):
    arrays = {f"{i}": some_rows(*kind) for i, kind in enumerate(KINDS)}
    writer = RowWriter(tmp_path, None)
    for start in range(0, 8, 3):
        writer.append({key: rows[start : start + 3] for key, rows in arrays.items()})

    files = writer.finish()

    assert writer.rows == 8
    assert files.keys() == arrays.keys()
    for name, rows in arrays.items():
        files[name].check(tmp_path)
        np.testing.assert_array_equal(load(tmp_path, name), rows)


def test_rows_can_be_read_while_more_are_written(tmp_path):
    rows = some_rows("float16", (2, 2))
    writer = RowWriter(tmp_path, None)
    writer.append({"x": rows[:5]})
    np.testing.assert_array_equal(writer.read("x", 1, 4), rows[1:4])
    writer.append({"x": rows[5:]})
    np.testing.assert_array_equal(writer.read("x", 4, 8), rows[4:])
    writer.finish()
    np.testing.assert_array_equal(load(tmp_path), rows)


def test_an_unfinished_file_is_no_array(tmp_path):
    writer = RowWriter(tmp_path, None)
    writer.append({"x": some_rows()})
    writer.checkpoint()
    writer.close()
    assert (tmp_path / "x.npy").stat().st_size == HEADER + some_rows().nbytes
    for mode in (None, "r"):
        with pytest.raises(ValueError, match="allow_pickle"):
            np.load(tmp_path / "x.npy", mmap_mode=mode, allow_pickle=False)


@pytest.mark.parametrize(
    "other",
    [some_rows(shape=(4,)), some_rows(shape=(3, 1)), some_rows("float16")],
    ids=["wider", "of another rank", "of another dtype"],
)
@pytest.mark.parametrize("continued", [False, True])
def test_rows_of_another_kind_are_refused(tmp_path, other, continued):
    rows = some_rows()
    writer = RowWriter(tmp_path, None)
    writer.append({"x": rows})
    if continued:
        writer.checkpoint()
        writer.close()
        writer = RowWriter(tmp_path, None)
    with pytest.raises(ValueError, match="All rows of x.npy must be alike"):
        writer.append({"x": other})
    assert writer.rows == len(rows)
    writer.finish()
    np.testing.assert_array_equal(load(tmp_path), rows)


# Going on


@pytest.mark.parametrize("lost", ["in memory", "on disk", "on disk in part"])
def test_what_came_before_the_last_checkpoint_outlives_a_crash(tmp_path, lost):
    rows, labels = some_rows(), some_rows("int64", ())
    dropped = RowWriter(tmp_path, {"made": ["of", 1]})
    dropped.append({"x": rows[:2], "y": labels[:2]})
    dropped.checkpoint()
    dropped.append({"x": rows[2:5], "y": labels[2:5]})
    dropped.checkpoint()
    dropped.append({"x": -rows[5:7], "y": -labels[5:7]})
    if lost != "in memory":
        dropped.close()
    if lost == "on disk in part":
        path = tmp_path / "x.npy"
        os.truncate(path, path.stat().st_size - 5)

    writer = RowWriter(tmp_path, "something else")

    assert writer.rows == 5
    assert writer.about == {"made": ["of", 1]}
    assert (tmp_path / "x.npy").stat().st_size == HEADER + rows[:5].nbytes
    np.testing.assert_array_equal(writer.read("x", 0, 5), rows[:5])
    writer.append({"x": rows[5:], "y": labels[5:]})
    files = writer.finish()
    np.testing.assert_array_equal(load(tmp_path), rows)
    np.testing.assert_array_equal(load(tmp_path, "y"), labels)
    for file in files.values():
        file.check(tmp_path)


def test_a_file_made_in_many_goes_is_that_made_in_one(tmp_path):
    rows = some_rows("float16", (2, 3))
    at_once = RowWriter(tmp_path / "one", None)
    at_once.append({"x": rows})
    for row in range(len(rows)):
        writer = RowWriter(tmp_path / "many", None)
        assert writer.rows == row
        writer.append({"x": rows[row : row + 1]})
        writer.checkpoint()
        writer.close()
    assert RowWriter(tmp_path / "many", None).finish() == at_once.finish()


def test_a_crash_after_the_headers_were_written_costs_nothing(tmp_path):
    writer = RowWriter(tmp_path, None)
    writer.append({"x": some_rows()})
    finished = writer.finish()
    again = RowWriter(tmp_path, None)
    assert again.rows == 8
    assert again.finish() == finished
    np.testing.assert_array_equal(load(tmp_path), some_rows())


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    rows = some_rows()
    writer = RowWriter(tmp_path, "about")
    writer.append({"x": rows[:4]})
    writer.checkpoint()
    writer.append({"x": rows[4:]})
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(OSError):
            writer.checkpoint()
    writer.close()

    writer = RowWriter(tmp_path, None)
    assert (writer.rows, writer.about) == (4, "about")
    writer.append({"x": rows[4:]})
    writer.finish()
    np.testing.assert_array_equal(load(tmp_path), rows)


@pytest.fixture
def unfinished(tmp_path):
    """A folder with six rows in each of two files."""
    writer = RowWriter(tmp_path, None)
    writer.append({"x": some_rows(count=6), "y": some_rows("uint8", (), 6)})
    writer.checkpoint()
    writer.close()
    return tmp_path


@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
@pytest.mark.parametrize("size", [0, HEADER, -1])
def test_a_cut_off_file_is_not_filled_with_zeros(unfinished, name, size):
    path = unfinished / name
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=f"damaged: {name} was cut off or altered. Delete"
    ):
        RowWriter(unfinished, None)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "y.npy").unlink(),
        lambda folder: flip(folder / "x.npy", HEADER),
        lambda folder: flip(folder / "y.npy", HEADER + 5),
        lambda folder: replace(folder / PROGRESS, '"rows": 6', '"rows": 5'),
        lambda folder: (folder / PROGRESS).write_text('{"rows": 6, "ab'),
        lambda folder: (folder / PROGRESS).write_text("[]"),
    ],
    ids=[
        "a file is missing",
        "the first row was altered",
        "the last row was altered",
        "progress was altered",
        "progress was cut off",
        "progress is something else",
    ],
)
def test_other_damage_is_named_with_its_place(unfinished, damage):
    damage(unfinished)
    before = bytes_in(unfinished)
    with pytest.raises(ValueError, match=f"{re.escape(str(unfinished))}.*Delete"):
        RowWriter(unfinished, None)
    assert bytes_in(unfinished) == before


# Folders


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("Chapter 1")
    (tmp_path / "x.npy").write_bytes(b"mine")
    before = bytes_in(tmp_path)
    with pytest.raises(FileExistsError, match="holds something else"):
        RowWriter(tmp_path, None)
    assert bytes_in(tmp_path) == before


def test_folders_to_begin_in(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "crashed").mkdir()
    (tmp_path / "crashed" / f"{PART}{PROGRESS}").write_text('{"ro')
    for name in ("empty", "crashed", "deep/down"):
        writer = RowWriter(tmp_path / name, None)
        assert writer.rows == 0
        writer.append({"x": some_rows()})
        writer.finish()
        np.testing.assert_array_equal(load(tmp_path / name), some_rows())


# What is checked of finished files


@pytest.fixture
def finished(tmp_path):
    """A folder with a finished file of eight rows, and what is known of it."""
    writer = RowWriter(tmp_path, None)
    writer.append({"x": some_rows("float16")})
    return tmp_path, writer.finish()["x"]


SEEN_AT_A_GLANCE = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is missing"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes where 304 are"),
    "cut off": (lambda path: os.truncate(path, 303), "has 303 bytes where 304 are"),
    "longer": (lambda path: path.open("ab").write(b"\0"), "has 305 bytes where"),
    "no magic": (lambda path: flip(path, 0), "its header is another"),
    "other shape": (lambda path: flip(path, 61), "its header is another"),
    "header's end": (lambda path: flip(path, HEADER - 1), "its header is another"),
}
ROWS_ALTERED = {"first row": HEADER, "a row within": HEADER + 21, "last row": 303}


@pytest.mark.parametrize("thoroughly", [True, False])
def test_a_sound_file_passes(finished, thoroughly):
    folder, file = finished
    file.check(folder, thoroughly)


@pytest.mark.parametrize("thoroughly", [True, False])
@pytest.mark.parametrize("damage", SEEN_AT_A_GLANCE)
def test_damage_that_is_seen_at_a_glance(finished, damage, thoroughly):
    folder, file = finished
    spoil, message = SEEN_AT_A_GLANCE[damage]
    spoil(folder / "x.npy")
    with pytest.raises(ValueError, match=rf"x\.npy.*{message}"):
        file.check(folder, thoroughly)


@pytest.mark.parametrize("at", ROWS_ALTERED.values(), ids=ROWS_ALTERED)
def test_one_altered_bit_in_the_rows(finished, at):
    folder, file = finished
    flip(folder / "x.npy", at)
    file.check(folder, thoroughly=False)  # a glance is not enough for this
    with pytest.raises(ValueError, match=r"x\.npy was altered: its checksum"):
        file.check(folder)


@pytest.mark.parametrize("other", [{"shape": (4, 6)}, {"dtype": "<i2"}])
def test_a_file_of_the_same_size_that_is_read_otherwise(finished, other):
    folder, file = finished
    with pytest.raises(ValueError, match="its header is another"):
        dataclasses.replace(file, **other).check(folder, thoroughly=False)


def test_what_is_known_goes_through_json(finished):
    folder, file = finished
    entry = json.loads(json.dumps(dataclasses.asdict(file)))
    again = ArrayFile(**{**entry, "shape": tuple(entry["shape"])})
    assert again == file
    again.check(folder)


# JSON files


SEALED = {"count": 70, "name": "Bäume, 水", "deep": {"list": [1, 2.5, None, ""]}}


def test_sealed_data_come_back(tmp_path):
    write_sealed(tmp_path / "a.json", SEALED)
    assert read_sealed(tmp_path / "a.json") == SEALED


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"70", b"71"),
        lambda data: data.replace(b'"count"', b'"comnt"'),
        lambda data: data.replace(b"2.5,", b""),
        lambda data: data.replace(b'"checksum": "', b'"checksum": "0'),
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\x93NUMPY\x00\xff\xfe",
        lambda data: b"no JSON at all",
        lambda data: json.dumps(SEALED).encode(),
        lambda data: b"[1, 2]",
        lambda data: b"null",
    ],
    ids=[
        "a number",
        "a name",
        "something less",
        "the checksum",
        "cut off",
        "empty",
        "bytes",
        "text",
        "not sealed",
        "a list",
        "null",
    ],
)
def test_what_was_altered_is_refused(tmp_path, change):
    path = tmp_path / "sealed.json"
    write_sealed(path, SEALED)
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match=r"sealed\.json .*(altered|cut off)"):
        read_sealed(path)
