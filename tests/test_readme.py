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
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)

    student = keras.models.load_model("student.keras")
    data = names["data"]
    predicted = student.predict(data.x_test, verbose=0).argmax(axis=1)
    assert (predicted == data.y_test).mean() > 0.9
    assert float(names["loss"]) > 0
    last = names["distiller"]
    assert last.fit(data.x_train, data.y_train, verbose=0).history["lp_loss"][0] > 0
