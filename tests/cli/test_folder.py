"""The folder of one command."""

import filelock
import pytest

from keras_lpd.cli.folder import Folder


def test_it_is_of_one_process_at_a_time(tmp_path):
    folder = Folder(tmp_path / "out", {"a": 1})
    with folder.taken():
        other = Folder(tmp_path / "out", {"a": 1})
        refused = pytest.raises(RuntimeError, match="Another process works in .*out")
        with refused, other.taken():
            raise AssertionError("it was let in")
    with other.taken():
        assert (other / "settings.json").exists()


def test_looking_touches_nothing(tmp_path):
    Folder(tmp_path / "out", {"a": 1})
    assert not list(tmp_path.iterdir())


def test_one_that_was_only_locked_is_free(tmp_path):
    with filelock.FileLock(tmp_path / ".lock"):
        pass
    with Folder(tmp_path, {"a": 1}).taken():
        pass


def test_other_settings_are_named(tmp_path):
    with Folder(tmp_path, {"a": 1, "b": "sha256:0", "old": 1}).taken():
        (tmp_path / "student.keras").touch()
    with pytest.raises(FileExistsError) as error:
        Folder(tmp_path, {"a": 2, "b": "sha256:1", "new": 1})
    assert "differs in a (1, not 2), b, old (1, not None), new." in str(error.value)


def test_settings_that_came_to_nothing_are_replaced(tmp_path):
    with Folder(tmp_path, {"a": 1}).taken():
        pass
    with Folder(tmp_path, {"a": 2}).taken():
        (tmp_path / "student.keras").touch()
    with pytest.raises(FileExistsError, match=r"a \(2, not 1\)"):
        Folder(tmp_path, {"a": 1})


def test_damaged_settings_are_refused(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    (tmp_path / "student.keras").touch()
    with pytest.raises(ValueError, match="settings.json can't be read"):
        Folder(tmp_path, {})


def test_what_fails_to_be_written_leaves_what_was_there(tmp_path):
    folder = Folder(tmp_path / "out", {})
    with folder.taken():
        folder.write("note.txt", lambda part: part.write_text("whole"))

        def fail(part):
            part.write_text("ha")
            raise OSError("disk full")

        with pytest.raises(OSError):
            folder.write("note.txt", fail)
    assert (folder / "note.txt").read_text() == "whole"
    names = {path.name for path in folder.path.iterdir()}
    assert names - {".lock"} == {"note.txt", "settings.json"}
