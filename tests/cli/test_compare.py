"""`keras-lpd compare`."""

import json

import numpy as np
import pytest

from keras_lpd.cli import main


@pytest.fixture
def compare(teacher, student, data):
    def run(*more):
        models = ["--model", f"teacher={teacher[1]}", "--model", f"small={student[1]}"]
        return main(["compare", *models, "--dataset", data, *more])

    return run


def test_it_prints_a_table(compare, teacher, capfd):
    assert compare() == 0
    shown = capfd.readouterr().out
    assert shown.startswith("model ")
    assert f"{teacher[0].count_params():,}" in shown
    assert "\nsmall " in shown


def test_json_is_all_there_is_on_stdout(compare, student, capfd):
    assert compare("--json") == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["teacher", "small"]
    assert rows[1]["parameters"] == student[0].count_params()
    assert rows[0]["overlap"] == 1


def test_markdown_and_a_picture(compare, tmp_path, capfd):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "compared.png"
    assert compare("--markdown", "--plot", str(picture)) == 0
    assert capfd.readouterr().out.startswith("| model | parameters |")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_of_few_images_fewer_neighbours_are_counted(
    teacher, student, arrays, tmp_path, capfd
):
    few = {**arrays, "x_test": arrays["x_test"][:4], "y_test": arrays["y_test"][:4]}
    np.savez(tmp_path / "few.npz", **few)
    models = ["--model", f"teacher={teacher[1]}", "--model", f"small={student[1]}"]
    data = str(tmp_path / "few.npz")
    assert main(["compare", *models, "--dataset", data, "--json"]) == 0
    comparison = json.loads(capfd.readouterr().out)
    assert (comparison["samples"], comparison["k"]) == (4, 3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "other=nowhere.keras"], "no file nowhere.keras"),
        (["--model", "small=nowhere.keras"], "the same name"),
        (["--image-size", "9x9"], "(8, 8, 1)"),
    ],
)
def test_errors_take_one_line(compare, only_error, capfd, more, message):
    assert compare(*more) == 1
    assert message in only_error()
