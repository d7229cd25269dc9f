"""`Comparison` as a picture."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from keras_lpd.beside import written_beside
from keras_lpd.report.rows import ModelRow

_SIZES = {
    "parameters": "parameters",
    "macs": "MACs for one sample",
    "bytes": "bytes in a file",
}
_MARKERS = "*osDv^PX<>"


def draw(
    rows: list[ModelRow],
    teacher: str | None,
    k: int,
    chance: float | None,
    path: str | os.PathLike[str] | None,
    against: str,
) -> Any:
    """Accuracy against size, and the overlap with the teacher.

    Args:
        rows: What is known of each model.
        teacher: The name of the teacher, if there is one.
        k: How many neighbours the overlap is of.
        chance: The overlap of a model that knows nothing.
        path: As for `Comparison.plot`.
        against: Likewise.
    """
    if against not in _SIZES:
        raise ValueError(
            f"`against` must be one of {list(_SIZES)}. Received: against={against!r}"
        )
    shown = [
        row
        for row in rows
        if row.accuracy is not None and getattr(row, against) is not None
    ]
    if not shown:
        raise ValueError(
            f"No model has both an accuracy and {against}, so that there is nothing "
            "to draw. Give `compare` data with labels of the models' classes."
        )
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "`plot` needs matplotlib. Install it with "
            "`pip install 'keras-lpd[examples]'`."
        ) from error

    kept = [row for row in rows if row.overlap is not None and row.name != teacher]
    looks = {
        row.name: {"marker": _MARKERS[i % len(_MARKERS)], "color": f"C{i % 10}"}
        for i, row in enumerate(rows)
    }
    panels = 1 + bool(kept)
    # Made by pyplot, for the backend that is in use; then let go of, so that a notebook
    # shows it once, and it is forgotten when nobody has it any more.
    figure, axes = plt.subplots(
        1,
        panels,
        figsize=(9.0 if kept else 6.0, 4.2),
        layout="constrained",
        width_ratios=[3, 2][:panels],
        squeeze=False,
    )
    plt.close(figure)
    left, *right = axes[0]
    _draw_accuracy(left, shown, against, looks)
    if kept:
        _draw_overlap(right[0], kept, chance, looks)
        right[0].set_xlabel(f"neighbours of '{teacher}' kept, k={k}")
    if path is not None:
        path = pathlib.Path(path)
        with written_beside(path) as part:
            figure.savefig(part, dpi=110, format=path.suffix[1:] or "png")
    return figure


def _draw_accuracy(
    axes: Any, rows: list[ModelRow], against: str, looks: dict[str, Any]
) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    sizes = [getattr(row, against) for row in rows]
    for row, size in zip(rows, sizes):
        axes.plot(
            size,
            100 * row.accuracy,  # type: ignore[operator]
            linestyle="none",
            markersize=9,
            label=row.name,
            **looks[row.name],
        )
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    wide = max(sizes) >= 10 * min(sizes)
    axes.xaxis.set_minor_formatter(NullFormatter() if wide else EngFormatter(sep=""))
    axes.set_xlabel(_SIZES[against])
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_overlap(
    axes: Any, rows: list[ModelRow], chance: float | None, looks: dict[str, Any]
) -> None:
    places = range(len(rows))
    for place, row in zip(places, rows):
        color = looks[row.name]["color"]
        axes.barh(place, row.overlap, height=0.5, color=color, alpha=0.35)
        axes.plot(row.overlap, place, markersize=9, **looks[row.name])
    axes.axvline(chance, color="grey", linestyle=":", label="by chance")
    axes.set_yticks(places, [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
