"""`compare`: what models cost, and what they can do, on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lpd.arguments import as_integer
from keras_lpd.features import Preprocessing
from keras_lpd.metrics import Neighborhoods, neighbor_overlap
from keras_lpd.neighbors import check_pooling
from keras_lpd.outputs import accuracy
from keras_lpd.report.comparison import Comparison
from keras_lpd.report.rows import ModelRow

if TYPE_CHECKING:
    from keras_lpd.answers import Answers
    from keras_lpd.report.subjects import Subject

OVERLAP_SAMPLES = 2000
"""How many samples the overlap is of, the first ones: all their pairs are compared."""


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
        ImportError: If Keras runs on another backend than TensorFlow.
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
    from keras_lpd.report.measuring import latency
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

    remarks = _Remarks()
    if labels is None:
        remarks.append("No accuracy: the data has no labels of classes.")
    answers = [subject.answers(inputs, few, pooling) for subject in subjects]
    latencies = [
        latency(subject.model, subject.taken(inputs, slice(1)), runs)
        for subject in subjects
    ]
    taught = None
    if teacher is not None:
        at = list(models).index(teacher)
        what = f"neighbours in '{teacher}'"
        taught = remarks.unless(what, _neighborhoods, subjects[at], answers[at], k)
    rows = []
    for subject, answer, graph, timed in zip(subjects, answers, graphs, latencies):
        own = taught
        if taught is not None and subject.name != teacher:
            what = f"overlap of '{subject.name}'"
            own = remarks.unless(what, _neighborhoods, subject, answer, k)
        overlap = None if own is None else neighbor_overlap(taught, own, k)
        ms = timed.milliseconds
        rows.append(_row(subject, answer, graph, labels, overlap, ms, remarks))
    device = latencies[0].device
    return Comparison(rows, teacher, k, len(samples), few, runs, device, list(remarks))


class _Remarks(list[str]):
    """Why cells are empty, or mean something else."""

    def unless(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives; `None` and a remark if it can't tell."""
        try:
            return function(*arguments)
        except ValueError as error:
            self.append(f"No {what}: {str(error).rstrip('.')}.")
            return None


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


def _row(
    subject: Subject,
    answers: Answers,
    graph: Any,
    labels: np.ndarray | None,
    overlap: float | None,
    latency_ms: float,
    remarks: _Remarks,
) -> ModelRow:
    from keras_lpd.report.macs import macs
    from keras_lpd.report.measuring import file_bytes

    name, right = subject.name, None
    if labels is not None:
        what = f"accuracy of '{name}'"
        right = remarks.unless(what, accuracy, answers.classes, answers.among, labels)
    size, instead = file_bytes(subject.model)
    if instead:
        remarks.append(f"Bytes of '{name}': {instead}.")
    return ModelRow(
        name=name,
        parameters=subject.model.count_params(),
        macs=remarks.unless(f"MACs of '{name}'", macs, graph),
        bytes=size,
        accuracy=right,
        overlap=overlap,
        latency_ms=latency_ms,
        feature_layer=subject.layer,
    )


def _neighborhoods(subject: Subject, answers: Answers, k: int) -> Neighborhoods:
    if answers.features is None:
        raise ValueError(subject.missing)
    return Neighborhoods.of(answers.features, k)
