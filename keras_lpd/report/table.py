"""Rows that print as text, in a notebook, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Sequence
from typing import Any


class Table:
    """Rows that print as text, in a notebook, as Markdown and as JSON.

    Subclasses are dataclasses.
    """

    rows: list[Any]

    def columns(self) -> dict[str, str]:
        """Which attribute of a row goes under which heading."""
        raise NotImplementedError("Subclasses must implement `columns`.")

    def note(self) -> str:
        """What has to be known to read the numbers."""
        return ""

    def facts(self) -> dict[str, Any]:
        """What goes into the JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def cell(self, name: str, value: Any) -> str:
        """The attribute `name` of a row as it is printed; `None` leaves it empty."""
        if value is None:
            return ""
        return value if isinstance(value, str) else f"{value:,}"

    def to_markdown(self) -> str:
        """The table in Markdown, with commas in the numbers."""
        header, *rows = self._cells()
        return markdown(header, rows)

    def to_json(self) -> str:
        """The rows, and what they were counted for, as a JSON object."""
        return json.dumps(self.facts(), indent=1)

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells)]
        left = [isinstance(value, str) for value in self._values(self.rows[0])]
        lines = [
            "  ".join(
                cell.ljust(width) if text else cell.rjust(width)
                for cell, width, text in zip(line, widths, left)
            ).rstrip()
            for line in cells
        ]
        return "\n".join([*lines, self.note()])

    def _repr_html_(self) -> str:
        header, *rows = (map(html.escape, line) for line in self._cells())
        lines = [f"<tr><th>{'</th><th>'.join(header)}</th></tr>"]
        lines += [f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows]
        return f"<table>{''.join(lines)}</table><p>{html.escape(self.note())}</p>"

    def _values(self, row: Any) -> list[Any]:
        return [getattr(row, name) for name in self.columns().values()]

    def _cells(self) -> list[list[str]]:
        columns = self.columns()
        rows = [
            [self.cell(name, value) for name, value in zip(columns.values(), values)]
            for values in map(self._values, self.rows)
        ]
        return [list(columns), *rows]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whatever is in its cells."""
    lines = [header, ["---"] * len(header), *rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
