"""The rooms of the house, as CONTRIBUTING.md lists them: imports point down."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted((ROOT / "keras_lpd").rglob("*.py"))
INSIDE = {path.stem for path in (ROOT / "keras_lpd").iterdir()}


def rooms():
    """The first column of the table: files and folders of the package, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    return [re.findall(r"`([\w./]+)`", row) for row in rows]


def row_of(module):
    """Where a module of the package stands in the table: `"losses.hint"`, say."""
    first = module.split(".")[0]
    found = [
        number
        for number, names in enumerate(rooms())
        if f"{first}.py" in names or f"{first}/" in names
    ]
    assert len(found) == 1, f"{module} stands in {len(found)} rows of CONTRIBUTING.md"
    return found[0]


def imported_by(file):
    """The modules of the package that a file imports, also within functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            is_module = module.split(".")[0] in INSIDE  # and no public name
            if package == "keras_lpd" and is_module:
                yield module


@pytest.mark.parametrize(
    "file", MODULES, ids=lambda file: str(file.relative_to(ROOT / "keras_lpd"))
)
def test_imports_point_down_the_table(file):
    name = ".".join(file.relative_to(ROOT / "keras_lpd").with_suffix("").parts)
    if name == "__init__":
        return
    own = row_of(name)
    for module in imported_by(file):
        assert row_of(module) >= own, f"{name} imports {module}, from further up"


def test_the_table_lists_what_is_there():
    names = [name for row in rooms() for name in row]
    assert len(names) == len(set(names)) > 15
    assert not [name for name in names if not (ROOT / "keras_lpd" / name).exists()]
