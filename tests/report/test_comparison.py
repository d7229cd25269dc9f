"""How a comparison is printed."""

import dataclasses
import json

import pytest

from keras_lpd.report import Comparison, ModelRow


@pytest.fixture
def report():
    rows = [
        ModelRow("teacher", 12345, 1000, 60000, 0.95, 1.0, 1.23456, "hidden"),
        ModelRow("small", 678, None, 5000, 0.9, None, 0.5, None),
    ]
    return Comparison(rows, "teacher", 10, 3000, 2000, 50, "CPU", ["No MACs."])


def test_text(report):
    header, *rows = (line.split() for line in str(report).splitlines()[:3])
    assert header[:4] == ["model", "parameters", "MACs", "bytes"]
    assert rows == [
        ["teacher", "12,345", "1,000", "60,000", "0.9500", "1.0000", "1.235"],
        ["small", "678", "5,000", "0.9000", "0.500"],
    ]
    note = report.note()
    for said in ("3,000 samples", "first 2,000", "by chance 0.0050", "CPU", "No MACs."):
        assert said in note
    assert "teacher 'hidden'." in note


def test_html_and_markdown(report):
    assert "<td>678</td><td></td><td>5,000</td>" in report._repr_html_()
    assert "| small | 678 |  | 5,000 | 0.9000 |  | 0.500 |" in report.to_markdown()


def test_json(report):
    facts = json.loads(report.to_json())
    assert facts["rows"] == [dataclasses.asdict(row) for row in report.rows]
    assert (facts["teacher"], facts["k"], facts["device"]) == ("teacher", 10, "CPU")
    assert (facts["samples"], facts["overlap_samples"]) == (3000, 2000)


def test_without_a_teacher_nothing_is_said_of_chance(report):
    report = dataclasses.replace(report, teacher=None, overlap_samples=0)
    assert report.chance is None
    assert "chance" not in report.note()
