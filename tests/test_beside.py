"""Files that are whole or not there."""

import errno
import json
import os

import pytest

from keras_lpd.beside import PART, write_json, written_beside


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def dump_half(data, file, **kwargs):
    file.write(json.dumps(data)[:5])
    no_space()


@pytest.mark.parametrize(
    ("module", "name", "fails"), [(json, "dump", dump_half), (os, "fsync", no_space)]
)
def test_json_is_replaced_whole_or_not_at_all(
    tmp_path, monkeypatch, module, name, fails
):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    write_json(old, {"rows": 1})
    with monkeypatch.context() as full:
        full.setattr(module, name, fails)
        for path in (old, new):
            with pytest.raises(OSError, match="No space left"):
                write_json(path, {"rows": 2})
    assert json.loads(old.read_text()) == {"rows": 1}
    assert not new.exists()

    for path in (old, new):  # there is room again
        write_json(path, {"rows": 3})
        assert json.loads(path.read_text()) == {"rows": 3}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with pytest.raises(error), written_beside(path) as part:
        part.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [
        ("model.keras", "old")
    ]


def test_what_is_being_written_keeps_the_ending(tmp_path):
    with written_beside(tmp_path / "model.keras") as part:
        assert part.name == f"{PART}model.keras"  # Keras goes by it
        part.write_text("new")
    assert [one.name for one in tmp_path.iterdir()] == ["model.keras"]


def test_what_a_crash_left_is_written_over(tmp_path):
    (tmp_path / f"{PART}a.json").write_text("half of it")
    write_json(tmp_path / "a.json", [1])
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
