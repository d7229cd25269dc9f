"""`.keras` files that the command loads, and those it doesn't."""

import zipfile

import keras
import numpy as np
import pytest

from keras_lpd.cli.models import check_fits, input_shape, load_model
from keras_lpd.datasets import Arrays
from keras_lpd.models import Maxout

layers = keras.layers


def saved(path, *more):
    model = keras.Sequential([keras.Input((8, 8, 1)), *more])
    model.save(path)
    return str(path)


def data(shape=(8, 8, 1), classes=10):
    x, y = np.zeros((2, *shape), "float32"), np.array([0, classes - 1])
    return Arrays(x, y, x, y, [])


def test_lambdas_are_not_loaded(tmp_path):
    file = saved(tmp_path / "l.keras", layers.Lambda(lambda x: x + 1.0))
    with pytest.raises(ValueError) as error:
        load_model(file)
    told = str(error.value)
    assert told.startswith(file)
    assert "lambda" in told
    assert "registered layer" in told
    assert "safe_mode=False" in told


def test_lambdas_deep_inside_are_not_loaded(tmp_path):
    inner = keras.Sequential([keras.Input((8, 8, 1)), layers.Lambda(lambda x: x)])
    with pytest.raises(ValueError, match="has a lambda"):
        load_model(saved(tmp_path / "l.keras", inner))


def test_layers_of_the_project_are_known(tmp_path):
    file = saved(tmp_path / "m.keras", layers.Flatten(), Maxout(2))
    assert isinstance(load_model(file).layers[-1], Maxout)


def test_other_classes_are_named(tmp_path):
    class Own(layers.Layer):
        pass

    file = saved(tmp_path / "m.keras", layers.Flatten(), Own())
    with pytest.raises(ValueError, match="m.keras needs Own, which is not of Keras"):
        load_model(file)


def test_what_is_no_keras_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*none.keras"):
        load_model(str(tmp_path / "none.keras"))
    for name in ("m.h5", "m.keras"):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(ValueError, match="is no .keras file"):
            load_model(str(tmp_path / name))
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match="m.keras can't be loaded"):
        load_model(str(tmp_path / "m.keras"))


def test_models_have_to_fit_the_data():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()])
    model.add(layers.Dense(3))
    check_fits("m.keras", model, data(classes=3))
    with pytest.raises(ValueError, match=r"m.keras .*\(8, 8, 1\).*\(9, 8, 1\)"):
        check_fits("m.keras", model, data((9, 8, 1), 3))
    with pytest.raises(ValueError, match="m.keras knows 3 classes, .* has 4"):
        check_fits("m.keras", model, data(classes=4))
    check_fits("m.keras", model, data(classes=4), classifies=False)


def test_models_of_any_size_and_with_one_output_fit():
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3)])
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(1))
    check_fits("m.keras", model, data(classes=2))
    assert input_shape(model) == (None, None, 1)
