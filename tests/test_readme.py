"""The code of README and docs runs, one block after the other, as a reader would."""

import functools
import pathlib
import re

import keras
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(file):
    return re.findall(r"```python\n(.*?)```", file.read_text("utf-8"), re.DOTALL)


def run(code, name, names):
    """Runs blocks of code; gives the distillers that they made."""
    distillers = []
    for block in code:
        exec(compile(block, name, "exec"), names)
        if all(one is not names.get("distiller") for one in [None, *distillers]):
            distillers.append(names["distiller"])
    return distillers


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of the devices that the tests make, one will do.
    one = functools.partial(tf.distribute.OneDeviceStrategy, "CPU:0")
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", one)
    keras.utils.clear_session()  # layer names count from the start
    keras.utils.set_random_seed(0)


def test_the_readmes_code_runs(folder):
    code, names = blocks(ROOT / "README.md"), {}
    assert len(code) >= 3
    assert len(run(code, "README.md", names)) == 1
    student = keras.models.load_model("student.keras")
    data = names["data"]
    predicted = student.predict(data.x_test, verbose=0).argmax(axis=1)
    assert (predicted == data.y_test).mean() > 0.9
    assert pathlib.Path("student.tflite").stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_code_runs(folder, page):
    """Each page goes on where the README began."""
    names = {}
    beginning = blocks(ROOT / "README.md")[0].partition("distiller =")[0]
    run([beginning.replace("epochs=10", "epochs=3")], "README.md", names)
    distillers = run(blocks(page), page.name, names)
    assert distillers or page.stem == "measured"
    for distiller in distillers:
        taught = names["data"][:2]
        if distiller.teacher is names.get("cache"):
            taught = [names["cache"].attach(names["samples"]).batch(64)]
        assert distiller.fit(*taught, verbose=0).history["loss"][0] > 0
