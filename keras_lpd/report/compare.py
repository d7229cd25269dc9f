"""Teacher, student and methods side by side: what they cost, and what they can do."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras

from keras_lpd.arguments import as_integer
from keras_lpd.features import Preprocessing
from keras_lpd.metrics import Neighborhoods, neighbor_overlap
from keras_lpd.neighbors import check_pooling
from keras_lpd.outputs import accuracy
from keras_lpd.report.table import Table

if TYPE_CHECKING:
    from keras_lpd.answers import Answers
    from keras_lpd.report.subjects import Subject

OVERLAP_SAMPLES = 2000
"""How many samples the overlap is of, the first ones: all their pairs are compared."""


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """What one model costs, and what it can do.

    Attributes:
        name: What it was called.
        parameters: All its weights, those that are not trained included.
        macs: Multiply-accumulates of its inference for one sample; `None` where the
            profiler can't count them.
        bytes: Size of its `.keras` file without optimizer.
        accuracy: How many samples it classifies right, as a fraction; `None` where it
            is no classifier of these classes.
        overlap: Which share of the teacher's nearest neighbours is among its own;
            `None` without a teacher, or without features.
        latency_ms: Median milliseconds for one sample.
        feature_layer: Where its features were taken, or `None`.
    """

    name: str
    parameters: int
    macs: int | None
    bytes: int
    accuracy: float | None
    overlap: float | None
    latency_ms: float
    feature_layer: str | None


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
    def chance(self) -> float:
        """The overlap of a model that knows nothing."""
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

    def facts(self) -> dict[str, Any]:
        facts = dataclasses.asdict(self)
        return {**facts, "rows": facts.pop("rows")}

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

        >>> models = {"teacher": teacher, "student": student}
        >>> figure = compare(models, (x_train, y_train)).plot("compared.png")
        """
        from keras_lpd.report.picture import draw

        return draw(self, path, against)


def compare(
    models: Mapping[str, Any],
    dataset: Any,
    *,
    teacher: str | None = None,
    layers: Mapping[str, str] | None = None,
    k: int = 10,
    max_samples: int | None = None,
    runs: int = 50,
    preprocessing: Mapping[str, Preprocessing] | None = None,
    pooling: str | None = None,
) -> Comparison:
    """Holds models against each other on the same samples.

    Measured are parameters, multiply-accumulates, bytes on disk, accuracy, how many of
    the teacher's neighbours each keeps, and latency; `ModelRow` says what each is.
    MACs are counted by TensorFlow's own profiler: half its floating-point operations in
    convolutions and matrix products, nothing else. Models are run in inference mode,
    and left as they are.

    Args:
        models: The models by name: a built `keras.Model`, an `LPDistiller`, which
            stands for its student, or the path of a `.keras` file of either.
        dataset: What they are run on, such as the test data: arrays `(x, y)`, or
            batches in a `tf.data.Dataset` or a `keras.utils.PyDataset`. Labels are
            classes, or one-hot rows of them; without such there is no accuracy. It is
            held in memory.
        teacher: Which of the models the neighbours are compared with. Defaults to the
            one that is called `"teacher"`; without one there is no overlap.
        layers: By name, the path of the layer that the features are taken from.
            Defaults to a distiller's own, and else to the layer that feeds the
            model's head, which is found by itself.
        k: How many neighbours. Defaults to 10.
        max_samples: How many samples are used, the first ones. Defaults to `None`:
            all. The overlap is of the first 2,000 of them at most.
        runs: How many runs the latency is the median of; fewer where they would take
            more than three seconds. Defaults to 50.
        preprocessing: By name, what makes of a batch what the model takes: a Keras
            layer, or any callable. MACs and latency are without it.
        pooling: `None`, `"avg"` or `"max"`: how feature maps become vectors. Defaults
            to `None`: they are flattened.

    Returns:
        A `Comparison`, to be printed, plotted or asked.

    Raises:
        FileNotFoundError: If there is no file at a path.
        TypeError: If an entry or the data set is of another kind.
        ValueError: If there are no models, one is not built or does not take the
            samples, a name or layer is unknown, there are too few samples, or an
            argument is out of its range.

    Example:

    >>> report = compare({"teacher": teacher, "student": student}, (x_train, y_train))
    >>> [(row.name, row.parameters, row.macs) for row in report.rows]
    [('teacher', 569610, 5950720), ('student', 9074, 70208)]
    >>> report.rows[0].overlap, report.columns()["accuracy"]
    (1.0, 'accuracy')
    """
    if keras.config.backend() != "tensorflow":
        raise ImportError(
            "`compare` needs Keras on TensorFlow; here it runs on "
            f"{keras.config.backend()!r}. Set the environment variable "
            "KERAS_BACKEND=tensorflow before importing keras."
        )
    from keras_lpd.report.macs import macs
    from keras_lpd.report.measuring import file_bytes, latency
    from keras_lpd.report.subjects import Subject
    from keras_lpd.samples import Samples, at_most

    k, runs = as_integer("k", k, least=1), as_integer("runs", runs, least=1)
    check_pooling(pooling)
    most = at_most(max_samples, dataset)
    layers, preprocessing = dict(layers or {}), dict(preprocessing or {})
    teacher = _checked_names(
        models, teacher, layers=layers, preprocessing=preprocessing
    )
    subjects = [
        Subject.of(name, value, layers.get(name), preprocessing.get(name))
        for name, value in models.items()
    ]
    inputs, labels, _ = samples = Samples.take(dataset, most)
    few = 0 if teacher is None else min(len(samples), OVERLAP_SAMPLES)
    if teacher is not None and few <= k:
        raise ValueError(
            f"`dataset` has {len(samples)} samples, which is too few for {k} "
            f"neighbours. Expected: more than {k}. Give more samples, a smaller `k`, "
            "or no teacher."
        )
    graphs = [subject.graph(inputs) for subject in subjects]  # refuses what won't fit

    remarks = []
    if labels is None:
        remarks.append("No accuracy: the data has no labels of classes.")

    def known(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives; `None` and a remark if it can't tell."""
        try:
            return function(*arguments)
        except ValueError as error:
            remarks.append(f"No {what}: {str(error).rstrip('.')}.")
            return None

    taught = None
    answers = [subject.answers(inputs, few, pooling) for subject in subjects]
    if teacher is not None:
        index = list(models).index(teacher)
        what = f"neighbours in '{teacher}'"
        taught = known(what, _neighborhoods, subjects[index], answers[index], k)
    rows, device = [], ""
    for subject, answer, graph in zip(subjects, answers, graphs):
        name, right, overlap = subject.name, None, None
        if labels is not None:
            what = f"accuracy of '{name}'"
            right = known(what, accuracy, answer.classes, answer.among, labels)
        if taught is not None:
            what = f"overlap of '{name}'"
            own = taught
            if name != teacher:
                own = known(what, _neighborhoods, subject, answer, k)
            overlap = None if own is None else neighbor_overlap(taught, own, k)
        size, instead = file_bytes(subject.model)
        if instead:
            remarks.append(f"Bytes of '{name}': {instead}.")
        timed = latency(subject.model, subject.taken(inputs, slice(1)), runs)
        device = timed.device
        rows.append(
            ModelRow(
                name=name,
                parameters=subject.model.count_params(),
                macs=known(f"MACs of '{name}'", macs, graph),
                bytes=size,
                accuracy=right,
                overlap=overlap,
                latency_ms=timed.milliseconds,
                feature_layer=subject.layer,
            )
        )
    return Comparison(rows, teacher, k, len(samples), few, runs, device, remarks)


def _checked_names(
    models: Any, teacher: str | None, **by_name: Mapping[str, Any]
) -> str | None:
    """The teacher's name; refuses names that are none of the models'."""
    if not isinstance(models, Mapping) or not models:
        raise ValueError(
            "`models` must be a dict with at least one model in it, such as "
            f"{{'teacher': teacher, 'student': student}}. Received: {models!r}"
        )
    names = list(models)
    given = {argument: list(names) for argument, names in by_name.items()}
    if teacher is not None:
        given["teacher"] = [teacher]
    for argument, others in given.items():
        unknown = [name for name in others if name not in models]
        if unknown:
            raise ValueError(
                f"`{argument}` names {unknown}, but the models are {names}. Name one "
                "of them."
            )
    if teacher is None and "teacher" in models:
        teacher = "teacher"
    if teacher is None and by_name["layers"]:
        raise ValueError(
            "`layers` are where neighbours are compared with a teacher's, and no model "
            f"is called 'teacher'. Say which one it is: teacher={names[0]!r}."
        )
    return teacher


def _neighborhoods(subject: Subject, answers: Answers, k: int) -> Neighborhoods:
    if answers.features is None:
        raise ValueError(subject.missing)
    return Neighborhoods.of(answers.features, k)
