import dataclasses
import json

from keras_lpd.report import Table, markdown


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    number: int | None


@dataclasses.dataclass(frozen=True)
class Numbers(Table):
    rows: list[Row]

    def columns(self):
        return {"name": "name", "a <number>": "number"}

    def note(self):
        return "a & b"


TABLE = Numbers([Row("first", 1234567), Row("<b>", None)])


def test_text_is_aligned():
    assert str(TABLE).splitlines() == [
        "name   a <number>",
        "first   1,234,567",
        "<b>",
        "a & b",
    ]


def test_markdown():
    assert TABLE.to_markdown().splitlines() == [
        "| name | a <number> |",
        "| --- | --- |",
        "| first | 1,234,567 |",
        "| <b> |  |",
    ]
    assert markdown(["a"], [["b"]]) == "| a |\n| --- |\n| b |"


def test_markdown_with_bars_in_the_cells():
    table = Numbers([Row("a|b", 1)]).to_markdown()
    assert table.splitlines()[-1] == "| a\\|b | 1 |"


def test_html_is_escaped():
    html = TABLE._repr_html_()
    assert "<th>a &lt;number&gt;</th>" in html
    assert "<td>&lt;b&gt;</td><td></td>" in html
    assert html.endswith("<p>a &amp; b</p>")


def test_json():
    assert json.loads(TABLE.to_json()) == {
        "rows": [
            {"name": "first", "number": 1234567},
            {"name": "<b>", "number": None},
        ]
    }
