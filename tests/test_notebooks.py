"""The notebooks are those of their sources, small, and ran without an error."""

import pathlib
import re

import nbformat
import pytest

from notebooks import build

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"
NAMES = [
    "1_quickstart",
    "2_your_own_model",
    "3_neighborhoods_in_tensorboard",
    "4_from_teacher_to_phone",
]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A source of one cell in a folder of its own, not built yet."""
    monkeypatch.setattr(build, "HERE", tmp_path)
    (tmp_path / "src").mkdir()

    def write(code):
        source = tmp_path / "src" / "tiny.py"
        source.write_text(f"# %% [markdown]\n# # Title\n\n# %%\n{code}\n", "utf-8")
        return source

    return write


def notebook(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def outputs(book):
    return [output for cell in book.cells for output in cell.get("outputs", [])]


def test_each_source_has_its_notebook():
    assert [source.stem for source in build.sources()] == NAMES
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_source_run_to_the_end(name):
    source = NOTEBOOKS / "src" / f"{name}.py"
    assert build.faults(NOTEBOOKS / f"{name}.ipynb", source) == []
    code = [cell for cell in notebook(name).cells if cell.cell_type == "code"]
    for cell in code:
        skipped = "skip-execution" in cell.metadata.get("tags", [])
        assert (cell.execution_count is None) == skipped


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_begins_with_its_badge_and_the_install(name):
    first, second = notebook(name).cells[:2]
    address = f"keras-lpd/keras-lpd/blob/main/notebooks/{name}.ipynb"
    assert f"https://colab.research.google.com/github/{address}" in first.source
    assert first.source.startswith("[![Open In Colab]")
    assert re.search(r'^ +%pip install -q "keras-lpd\[', second.source, re.MULTILINE)
    assert second.outputs == []  # There is nothing to be done where it is installed.


@pytest.mark.parametrize("name", NAMES)
def test_outputs_show_pictures_and_nothing_of_the_machine(name):
    shown = outputs(notebook(name))
    assert any("image/png" in output.get("data", {}) for output in shown)
    texts = [str(output.get("text", output.get("data", ""))) for output in shown]
    for text in texts:
        assert not re.search(r"(?<!\w)/(tmp|home|root|work|usr|Users)/", text)
        assert "WARNING:tensorflow" not in text and "cuda" not in text.lower()


def test_the_collapse_warning_is_shown():
    texts = [output.get("text", "") for output in outputs(notebook(NAMES[1]))]
    assert sum("features have collapsed" in text for text in texts) == 1


def test_tensorboard_is_loaded_and_its_frame_left_to_the_reader():
    cells = {cell.source: cell for cell in notebook(NAMES[2]).cells}
    assert cells["%load_ext tensorboard"].execution_count
    assert cells["%tensorboard --logdir logs"].metadata.tags == ["skip-execution"]


def test_an_edit_on_one_side_is_found():
    source = NOTEBOOKS / "src" / f"{NAMES[0]}.py"
    expected, found = build.read_source(source), build.read_source(source)
    assert list(build.differences(expected, found)) == []
    number = next(i for i, cell in enumerate(found.cells) if "seed(0)" in cell.source)
    found.cells[number].source = found.cells[number].source.replace("(0)", "(1)")
    (difference,) = build.differences(expected, found)
    assert "-keras.utils.set_random_seed(0)" in difference
    assert "+keras.utils.set_random_seed(1)" in difference

    found = build.read_source(source)
    del found.cells[number]
    assert list(build.differences(expected, found))
    found = build.read_source(source)
    found.cells[number].cell_type = "raw"
    assert list(build.differences(expected, found))


def test_a_new_cell_leaves_the_ids_of_the_others(tiny):
    before = [cell.id for cell in build.read_source(tiny("1 + 1")).cells]
    after = [cell.id for cell in build.read_source(tiny("0\n\n# %%\n1 + 1")).cells]
    assert set(before) < set(after)
    twice = [cell.id for cell in build.read_source(tiny("1\n\n# %%\n1")).cells]
    assert len(set(twice)) == 3


def test_a_notebook_is_run_and_compared(tiny, tmp_path):
    source = tiny("import pathlib\n\nprint(pathlib.Path('made').absolute(), 1 + 1)")
    assert build.faults(tmp_path / "tiny.ipynb", source) == ["tiny.ipynb is missing."]
    assert build.main([]) == 0
    book = nbformat.read(tmp_path / "tiny.ipynb", as_version=4)
    assert [output.text for output in outputs(book)] == ["made 2\n"]
    assert not list(tmp_path.glob("*.part"))

    tiny("print(3)")
    before = (tmp_path / "tiny.ipynb").read_bytes()
    assert build.main(["--check"]) == 1  # It runs, and is not what is there.
    assert build.main(["--check", "--no-run"]) == 1
    assert (tmp_path / "tiny.ipynb").read_bytes() == before


def test_of_standard_error_our_log_and_warnings_are_left(tiny, tmp_path):
    tiny(
        "import sys\nimport warnings\n\n"
        "print('I0000 00:00 cuda', file=sys.stderr)\n"
        "print('keras-lpd: said', file=sys.stderr)\n"
        "warnings.warn('seen')\n"
    )
    assert build.main([]) == 0
    book = nbformat.read(tmp_path / "tiny.ipynb", as_version=4)
    (output,) = outputs(book)
    assert output.text == "keras-lpd: said\nUserWarning: seen\n"


def test_an_error_fails_and_leaves_the_notebook(tiny, tmp_path, capsys):
    tiny("print(1)")
    assert build.main([]) == 0
    before = (tmp_path / "tiny.ipynb").read_bytes()
    tiny("1 / 0")
    assert build.main([]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "tiny.ipynb").read_bytes() == before


def test_what_is_too_large_or_noisy_is_told(tiny, tmp_path, monkeypatch):
    source = tiny("print('1/10\\r2/10')")
    assert build.main([]) == 1
    (fault,) = build.faults(tmp_path / "tiny.ipynb", source)
    assert "progress bar" in fault
    tiny("print('long' * 100)")
    monkeypatch.setattr(build, "LARGEST", 300)
    assert build.main([]) == 1
    (fault,) = build.faults(tmp_path / "tiny.ipynb", source)
    assert "over 300" in fault
