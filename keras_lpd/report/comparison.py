"""Models side by side, as a table and as a picture."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from keras_lpd.report.picture import draw
from keras_lpd.report.rows import ModelRow
from keras_lpd.report.table import Table


@dataclasses.dataclass(frozen=True)
class Comparison(Table):
    """Models side by side, as `compare` measured them; prints as a table.

    Attributes:
        rows: List of `ModelRow`, in the order in which the models were given.
        teacher: Name of the model whose neighbours are the measure, or `None`.
        k: How many neighbours count.
        samples: How many samples the accuracy is of.
        overlap_samples: How many the overlap is of, the first ones.
        runs: How many runs the latency is the median of, at most.
        device: Where it was measured, such as `"CPU"`.
        remarks: Why cells are empty, or mean something else.
    """

    rows: list[ModelRow]
    teacher: str | None
    k: int
    samples: int
    overlap_samples: int
    runs: int
    device: str
    remarks: list[str]

    @property
    def chance(self) -> float | None:
        """The overlap of a model that knows nothing; `None` without a teacher."""
        if self.teacher is None:
            return None
        return self.k / (self.overlap_samples - 1)

    def columns(self) -> dict[str, str]:
        columns = {
            "model": "name",
            "parameters": "parameters",
            "MACs": "macs",
            "bytes": "bytes",
            "accuracy": "accuracy",
            "neighbour overlap": "overlap",
            "latency, ms": "latency_ms",
        }
        if self.teacher is None:
            del columns["neighbour overlap"]
        if all(row.accuracy is None for row in self.rows):
            del columns["accuracy"]
        return columns

    def cell(self, name: str, value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.3f}" if name == "latency_ms" else f"{value:.4f}"
        return super().cell(name, value)

    def note(self) -> str:
        lines = [
            "MACs: products in convolutions and matrix products for one sample, half "
            "the operations that TensorFlow's profiler counts there.",
            "Bytes: the .keras file, without optimizer.",
        ]
        if any(row.accuracy is not None for row in self.rows):
            lines.append(f"Accuracy: of {self.samples:,} samples.")
        if self.teacher is not None:
            layers = ", ".join(
                f"{row.name} '{row.feature_layer}'"
                for row in self.rows
                if row.feature_layer is not None
            )
            lines.append(
                f"Neighbour overlap: share of the {self.k} nearest in '{self.teacher}' "
                f"among the {self.k} nearest in the model, first "
                f"{self.overlap_samples:,} samples; by chance {self.chance:.4f}. "
                f"Features: {layers or 'none'}."
            )
        lines.append(
            f"Latency: one sample through the compiled Keras model on this machine's "
            f"{self.device}, median of up to {self.runs} runs."
        )
        return "\n".join([*lines, *self.remarks])

    def plot(
        self, path: str | os.PathLike[str] | None = None, *, against: str = "parameters"
    ) -> Any:
        """Draws accuracy against size and, with a teacher, the neighbour overlap.

        Args:
            path: Where to write the picture as well, in the format that its ending
                names: `.png`, `.svg`, `.pdf`. Defaults to `None`: nowhere.
            against: `"parameters"`, `"macs"` or `"bytes"`, on a logarithmic axis.

        Returns:
            A `matplotlib.figure.Figure`, which a notebook shows (with
            `%matplotlib inline`).

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If no model has an accuracy and such a size, or `against` is
                unknown.

        Example:

        >>> from keras_lpd.report import compare
        >>> models = {"teacher": teacher, "student": student}
        >>> figure = compare(models, (x_train, y_train)).plot("compared.png")
        """
        return draw(self.rows, self.teacher, self.k, self.chance, path, against)
