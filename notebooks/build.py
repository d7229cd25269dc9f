"""Makes the notebooks from their sources, and runs them.

    python notebooks/build.py                     # writes all of them, with outputs
    python notebooks/build.py 1_quickstart        # one of them
    python notebooks/build.py --check             # runs them elsewhere, compares cells
    python notebooks/build.py --check --no-run    # compares only, in a second

The sources are plain Python, in jupytext's percent format. Edit those, never the
notebooks. Each notebook runs in a fresh kernel and an empty folder; a cell tagged
`skip-execution` is shown and not run. `KERAS_LPD_DATASET=fashion_mnist` before the
command runs them on other data.
"""

from __future__ import annotations

import argparse
import base64
import difflib
import hashlib
import io
import itertools
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

HERE = pathlib.Path(__file__).resolve().parent
LARGEST = 500_000
"""How many bytes a notebook may have."""

COLOURS = 128
"""How many colours are left of a picture."""

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Keras warns of every `tf.data.Dataset` that `fit` does not shuffle: of no interest.
_WARNING = re.compile(r"^(?!.*`shuffle=True`)\S.*\.py:\d+: (UserWarning: .*)$")


def sources() -> list[pathlib.Path]:
    return sorted((HERE / "src").glob("*.py"))


def notebook_of(source: pathlib.Path) -> pathlib.Path:
    return source.parents[1] / f"{source.stem}.ipynb"


def read_source(source: pathlib.Path) -> NotebookNode:
    """The notebook that a source makes, without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(_METADATA)
    ids: set[str] = set()
    for cell in notebook.cells:
        # By its text, so that a new cell does not rename those behind it.
        text = f"{cell.cell_type}\n{cell.source}"
        name = hashlib.sha256(text.encode()).hexdigest()[:8]
        while name in ids:
            name = hashlib.sha256(name.encode()).hexdigest()[:8]
        cell.id = name
        ids.add(name)
    nbformat.validate(notebook)
    return notebook


def execute(notebook: NotebookNode) -> None:
    """Runs all cells in a fresh kernel; the first error stops it."""
    # Neither the caller's settings nor those of a user's IPython.
    settings = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(
            env={**os.environ, **settings, "IPYTHONDIR": str(folder / ".ipython")}
        )
        notebook.metadata = nbformat.from_dict(_METADATA)  # The kernel told more.
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = list(_cleaned(cell.outputs, folder))


def _cleaned(outputs: list[NotebookNode], folder: pathlib.Path) -> Iterator:
    """What readers want to see: no log of TensorFlow, no path, no large picture."""
    for name, group in itertools.groupby(outputs, lambda output: output.get("name")):
        if name in ("stdout", "stderr"):
            text = _without_paths("".join(output.text for output in group), folder)
            lines = text.splitlines(keepends=True)
            text = "".join(_for_readers(lines, errors=name == "stderr"))
            if text:
                yield nbformat.v4.new_output("stream", name=name, text=text)
        else:
            yield from (_shrunk(output, folder) for output in group)


def _shrunk(output: NotebookNode, folder: pathlib.Path) -> NotebookNode:
    """An output that is no stream."""
    for kind, content in output.get("data", {}).items():
        if kind == "image/png":
            output.data[kind] = _smaller(content)
        elif isinstance(content, str):
            output.data[kind] = _without_paths(content, folder)
    return output


def _for_readers(lines: list[str], errors: bool) -> Iterator[str]:
    """The lines without TensorFlow's log; of standard errors ours, and warnings."""
    for line in lines:
        if not errors:
            if not line.startswith("WARNING:tensorflow:"):
                yield line
        elif found := _WARNING.match(line):
            yield f"{found[1]}\n"
        elif line.startswith("keras-lpd: "):
            yield line


def _without_paths(text: str, folder: pathlib.Path) -> str:
    for path in (folder, HERE.parent, pathlib.Path.home()):
        text = text.replace(f"{path}{os.sep}", "").replace(str(path), ".")
    return text


def _smaller(png: str) -> str:
    """A picture with few colours."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def faults(path: pathlib.Path, source: pathlib.Path) -> list[str]:
    """What is wrong with a notebook on disk; nothing of what its outputs say."""
    if not path.is_file():
        return [f"{path.name} is missing."]
    notebook = nbformat.read(path, as_version=4)
    found = list(differences(read_source(source), notebook))
    if path.stat().st_size > LARGEST:
        found.append(
            f"{path.name} has {path.stat().st_size:,} bytes, over {LARGEST:,}: fewer "
            "or smaller pictures, please."
        )
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"Cell {number} ended in {output.ename}.")
            if {"\b", "\r"} & set(output.get("text", "")):
                found.append(f"Cell {number} has a progress bar: silence it.")
    if not any(cell.get("outputs") for cell in notebook.cells):
        found.append(f"{path.name} has no outputs.")
    return found


def differences(expected: NotebookNode, found: NotebookNode) -> Iterator[str]:
    """Where the cells of two notebooks differ, but for outputs and their numbers."""
    if expected.metadata != found.metadata:
        yield "The metadata of the notebook differ."
    texts = [[_text(cell) for cell in book.cells] for book in (expected, found)]
    matcher = difflib.SequenceMatcher(None, *texts, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        if kind != "equal":
            lines = difflib.unified_diff(
                "\n".join(texts[0][start:end]).splitlines(),
                "\n".join(texts[1][other_start:other_end]).splitlines(),
                "source",
                "notebook",
                f"cell {start}",
                f"cell {other_start}",
                lineterm="",
            )
            yield "\n".join(lines)


def _text(cell: NotebookNode) -> str:
    tags = cell.metadata.get("tags", [])
    return f"# {' '.join([cell.cell_type, cell.get('id', ''), *tags])}\n{cell.source}"


def write(notebook: NotebookNode, path: pathlib.Path) -> None:
    """Writes a notebook beside its place, and renames it."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    os.replace(part, path)


def build(source: pathlib.Path, check: bool, run: bool) -> list[str]:
    """Runs, writes and compares a notebook; gives what is wrong with it."""
    notebook = read_source(source)
    if run:
        try:
            execute(notebook)
        except (CellExecutionError, DeadKernelError) as error:
            return [str(error)]
    if not check:
        write(notebook, notebook_of(source))
    return faults(notebook_of(source), source)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {source.stem: source for source in sources()}
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; or all")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument(
        "--no-run", action="store_true", help="with --check: compare the cells only"
    )
    options = parser.parse_args(arguments)
    if options.no_run and not options.check:
        parser.error("--no-run is for --check: notebooks are written with outputs")
    if unknown := set(options.names) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}, only {list(names)}")

    failed = False
    for name in options.names or names:
        start = time.monotonic()
        wrong = build(names[name], options.check, not options.no_run)
        failed |= bool(wrong)
        state = "failed" if wrong else "ok"
        print(f"{name}: {state}, {time.monotonic() - start:.0f} s", flush=True)
        for one in wrong:
            print(one, file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
