"""The README's code runs, one block after the other, as a reader would."""

import pathlib
import re

import keras

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_readmes_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.clear_session()  # layer names count from the start
    keras.utils.set_random_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    names: dict = {}
    distillers = []
    for block in blocks:
        names.pop("distiller", None)
        exec(compile(block, "README.md", "exec"), names)
        distillers += [names["distiller"]] if "distiller" in names else []

    student = keras.models.load_model("student.keras")
    data = names["data"]
    predicted = student.predict(data.x_test, verbose=0).argmax(axis=1)
    assert (predicted == data.y_test).mean() > 0.9
    assert float(names["loss"]) > 0
    assert len(distillers) >= 5
    cached = names["cache"].attach(names["samples"]).batch(64)
    for distiller in distillers:
        taught = [cached] if distiller.teacher is names["cache"] else data[:2]
        assert distiller.fit(*taught, verbose=0).history["loss"][0] > 0
