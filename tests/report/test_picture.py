import builtins

import pytest

from keras_lpd.report import Comparison, ModelRow

pytest.importorskip("matplotlib")


def comparison(teacher="teacher", accuracy=0.9):
    rows = [
        ModelRow("teacher", 12345, 9000, 60000, 0.95, 1.0, 1.2, "hidden"),
        ModelRow("small", 678, None, 5000, accuracy, 0.4, 0.5, "hidden"),
        ModelRow("other", 678, 80, 4900, accuracy, 0.6, 0.5, "hidden"),
    ]
    if teacher is None:
        rows = [ModelRow(*(None if x == row.overlap else x for x in vars(row).values()))
                for row in rows]  # fmt: skip
    return Comparison(rows, teacher, 10, 100, 101, 50, "CPU", [])


def points(axes):
    return {
        line.get_label(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.get_lines()
    }


def test_accuracy_against_size():
    left, _ = comparison().plot().axes
    assert points(left) == {
        "teacher": (12345, 95), "small": (678, 90), "other": (678, 90)
    }  # fmt: skip
    assert left.get_xscale() == "log"
    assert left.get_xlabel() == "parameters"
    named = [text.get_text() for text in left.get_legend().get_texts()]
    assert named == ["teacher", "small", "other"]
    left, _ = comparison().plot(against="bytes").axes
    assert points(left)["other"] == (4900, 90)
    left, _ = comparison().plot(against="macs").axes
    assert set(points(left)) == {"teacher", "other"}


def test_overlap_beside_it():
    _, right = comparison().plot().axes
    assert [bar.get_width() for bar in right.patches] == [0.4, 0.6]
    assert [text.get_text() for text in right.get_yticklabels()] == ["small", "other"]
    assert points(right)["by chance"][0] == 0.1
    assert "'teacher'" in right.get_xlabel()


def test_one_panel_without_a_teacher():
    assert len(comparison(teacher=None).plot().axes) == 1


def test_pyplot_forgets_it():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    comparison().plot()
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    "name, start", [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")]
)
def test_a_file(tmp_path, name, start):
    path = tmp_path / name
    path.write_text("before")
    comparison().plot(path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.unknown"
    path.write_text("before")
    with pytest.raises(ValueError, match="unknown"):
        comparison().plot(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def savefig(self, file, **kwargs):
        file.write_text("half of")
        raise OSError("disk full")

    path = tmp_path / "a.png"
    path.write_text("before")
    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(OSError, match="disk full"):
        comparison().plot(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_to_draw():
    report = comparison()
    report.rows[:] = report.rows[1:2]
    with pytest.raises(ValueError, match="both an accuracy and macs"):
        report.plot(against="macs")
    with pytest.raises(ValueError, match="`against` must be one of.*'latency'"):
        report.plot(against="latency")


def test_without_matplotlib(monkeypatch):
    real = builtins.__import__

    def importing(name, *arguments):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ImportError, match="keras-lpd\\[examples\\]"):
        comparison().plot()
