import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lpd import LocalityPreserving, LPDistiller
from keras_lpd.features import find_feature_layer
from keras_lpd.models import (
    Maxout,
    fitnet,
    fitnet_teacher,
    mnist_student,
    mnist_teacher,
)
from tests.models.helpers import images, shape_of

ROOT = pathlib.Path(__file__).parents[2]

LOAD = """
import sys
import keras
import numpy as np
import keras_lpd.models
folder = sys.argv[1]
model = keras.models.load_model(folder + "/model.keras")
y = model.predict(np.load(folder + "/x.npy"), verbose=0)
np.save(folder + "/y.npy", y)
"""


# Sizes


@pytest.mark.parametrize(
    ("number", "published"), [(1, 251e3), (2, 864e3), (3, 1.51e6), (4, 2.55e6)]
)
def test_students_have_the_published_size(number, published):
    assert fitnet(number).count_params() == pytest.approx(published, rel=0.01)


def test_the_teacher_has_the_published_size():
    assert fitnet_teacher().count_params() == pytest.approx(9e6, rel=0.01)


def test_the_mnist_pair_has_the_published_sizes():
    assert mnist_teacher().count_params() == pytest.approx(361e3, rel=0.01)
    assert mnist_student().count_params() == pytest.approx(30e3, rel=0.01)


# The named layers


@pytest.mark.parametrize(
    ("number", "layer", "width", "depth"),
    [(1, 6, 32, 11), (2, 6, 80, 11), (3, 8, 80, 13), (4, 11, 80, 19)],
)
def test_layers_of_the_students(number, layer, width, depth):
    model = fitnet(number)
    assert shape_of(model, "guided") == (8, 8, width)
    assert shape_of(model, "features") == (500,)
    assert model.output_shape == (None, 10)
    names = [one.name for one in model.layers]
    assert names[names.index("guided") - 1] == f"maxout_{layer}"
    assert sum(bool(one.weights) for one in model.layers) == depth


def test_layers_of_the_teachers_and_of_the_mnist_student():
    teacher = fitnet_teacher()
    assert shape_of(teacher, "hint") == (7, 7, 192)
    assert shape_of(teacher, "pool_3") == (5, 5, 192)
    assert shape_of(teacher, "features") == (500,)
    teacher = mnist_teacher()
    assert shape_of(teacher, "hint") == (4, 4, 48)
    assert shape_of(teacher, "features") == (3, 3, 24)
    student = mnist_student()
    assert shape_of(student, "guided") == (4, 4, 16)
    assert shape_of(student, "features") == (3, 3, 12)


@pytest.mark.parametrize(
    "model",
    [fitnet_teacher, fitnet, mnist_teacher, mnist_student],
    ids=lambda model: model.__name__,
)
def test_the_features_are_found(model):
    model = model(1) if model is fitnet else model()
    assert find_feature_layer(model) == "features"


def test_the_features_of_fitnets_are_maxout_units():
    for model in (fitnet(1), fitnet_teacher()):
        assert isinstance(model.get_layer("features"), Maxout)


def test_the_name_is_the_models():
    assert fitnet(1).name == mnist_student().name == "student"
    assert fitnet_teacher().name == mnist_teacher().name == "teacher"
    assert fitnet(1, name="thin").name == "thin"


def test_dropout_has_the_rates_asked_for():
    teacher = mnist_teacher(dropout=0.3, input_dropout=0.1)
    rates = [
        layer.rate for layer in teacher.layers if type(layer) is keras.layers.Dropout
    ]
    assert rates == [0.1, 0.3, 0.3, 0.3]


# Other images


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ((28, 28, 1), (1, 1)),
        ((32, 32, 1), (1, 1)),
        ((4, 4, 3), (1, 1)),
        ((5, 30, 3), (1, 1)),
        ((64, 64, 3), (2, 2)),
    ],
)
def test_students_of_other_images(shape, left):
    model = fitnet(1, shape, classes=7)
    assert shape_of(model, "pool_3") == (*left, 64)
    assert model.output_shape == (None, 7)


@pytest.mark.parametrize(
    ("model", "smallest"),
    [(fitnet_teacher, 10), (mnist_teacher, 18), (mnist_student, 15)],
)
def test_padded_networks_of_other_images(model, smallest):
    for side in range(smallest, smallest + 6):
        built = model((side, side + 1, 2), classes=7)
        assert built.output_shape == (None, 7)
    with pytest.raises(ValueError, match="too small for these convolutions.*at conv"):
        model((smallest - 1, 40, 2))


def test_images_that_do_not_go_are_refused():
    with pytest.raises(ValueError, match="at least 4x4.*\\(3, 32, 3\\)"):
        fitnet(1, (3, 32, 3))
    for model in (fitnet_teacher, mnist_student, lambda shape: fitnet(2, shape)):
        for shape in [(None, None, 3), (28, 28)]:
            with pytest.raises(ValueError, match="height, width and channels"):
                model(shape)


@pytest.mark.parametrize("number", [0, 5, "1", True, None])
def test_there_are_four_fitnets(number):
    with pytest.raises(ValueError, match="`number` must be 1, 2, 3 or 4"):
        fitnet(number)


# Use


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_passes_through_keeps_its_scale(number):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
    model = fitnet(number, x.shape[1:])
    features = keras.Model(model.inputs, model.get_layer("features").output)([x])
    assert 0.2 < np.std(features) < 5


def test_files_load_in_a_fresh_process(tmp_path):
    x, _ = images((12, 12, 1))
    model = fitnet(1, (12, 12, 1))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (lambda: fitnet_teacher((10, 10, 3)), lambda: fitnet(1, (10, 10, 3))),
        (lambda: mnist_teacher((18, 18, 3)), lambda: mnist_student((18, 18, 3))),
    ],
    ids=["cifar", "mnist"],
)
def test_a_pair_distils(teacher, student):
    """Every weight of the student gets a gradient, none of the teacher's moves."""
    keras.utils.set_random_seed(0)
    teacher, student = teacher(), student()
    x, y = images(teacher.input_shape[1:])
    distiller = LPDistiller(
        teacher,
        student,
        distillation_losses=[
            LocalityPreserving(),
            LocalityPreserving(
                pooling="avg",
                teacher_layer_name="hint",
                student_layer_name="guided",
                name="hints",
            ),
        ],
    )
    assert (distiller.teacher_layer, distiller.student_layer) == ("features",) * 2
    before = {
        model.name: [weight.copy() for weight in model.get_weights()]
        for model in (teacher, student)
    }

    logs = distiller.fit(x, y, epochs=1, batch_size=8, verbose=0).history

    assert np.isfinite([values for values in logs.values()]).all()
    after = student.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    assert all((new != old).any() for new, old in zip(after, before["student"]))
    for new, old in zip(teacher.get_weights(), before["teacher"]):
        np.testing.assert_array_equal(new, old)
