import math

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller
from keras_lpd.features import find_feature_layer
from keras_lpd.models import resnet
from tests.models.helpers import images, shape_of


@pytest.mark.parametrize(
    ("depth", "width", "published"),
    [
        (8, 4, 1_233_540),
        (20, 1, 278_324),
        (32, 1, 472_756),
        (32, 4, 7_433_860),
        (56, 1, 861_620),
        (110, 1, 1_736_564),
    ],
)
def test_sizes_are_the_published_ones(depth, width, published):
    model = resnet(depth, width, classes=100)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == published


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_named_layers(width):
    model = resnet(14, width)
    assert shape_of(model, "group_1") == (32, 32, 16 * width)
    assert shape_of(model, "group_2") == (16, 16, 32 * width)
    assert shape_of(model, "group_3") == (8, 8, 64 * width)
    assert shape_of(model, "features") == (64 * width,)
    assert model.output_shape == (None, 10)
    assert find_feature_layer(model) == "features"


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 9, 3), (None, None, 3)])
def test_images_may_have_any_size(shape):
    model = resnet(8, input_shape=shape, classes=3)
    x, _ = images([side or 11 for side in shape], 2)
    assert model(x).shape == (2, 3)


def test_the_name():
    assert resnet(8).name == "resnet8"
    assert resnet(8, 4).name == "resnet8x4"
    assert resnet(8, name="student").name == "student"


@pytest.mark.parametrize("depth", [2, 6, 9, 10, 18, -4, 20.0, "20", True, None])
def test_depths_other_than_6n_plus_2_are_refused(depth):
    with pytest.raises(ValueError, match="`depth` must be 6n \\+ 2.*Received: depth="):
        resnet(depth)


@pytest.mark.parametrize("width", [0, -1, 1.5, True])
def test_widths_out_of_range_are_refused(width):
    with pytest.raises(ValueError, match="`width` must be an integer of at least 1"):
        resnet(8, width)


def test_maps_and_shortcuts_lie_on_each_other():
    """A block that halves the maps takes each pixel's surroundings, centred on it."""
    model = resnet(8, input_shape=(8, 8, 3))
    first = model.get_layer("group_2_block_1_1_conv")
    shortcut = model.get_layer("group_2_block_1_shortcut_conv")
    kernel = np.zeros(first.kernel.shape, "float32")
    kernel[1, 1] = shortcut.get_weights()[0][0, 0]
    first.set_weights([kernel])
    both = keras.Model(model.inputs, [first.output, shortcut.output])
    ours, theirs = both([images((8, 8, 3))[0]])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_files_load_again(tmp_path):
    x, _ = images((8, 8, 3))
    model = resnet(8, input_shape=(8, 8, 3))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_a_pair_distils():
    """Every weight of the student moves, none of the teacher's."""
    keras.utils.set_random_seed(0)
    teacher = resnet(8, 2, input_shape=(8, 8, 3), name="teacher")
    student = resnet(8, input_shape=(8, 8, 3), name="student")
    x, y = images((8, 8, 3))
    distiller = LPDistiller(teacher, student)
    assert (distiller.teacher_layer, distiller.student_layer) == ("features",) * 2
    before = [
        [weight.copy() for weight in model.get_weights()]
        for model in (teacher, student)
    ]

    logs = distiller.fit(x, y, epochs=1, batch_size=8, verbose=0).history

    assert np.isfinite(list(logs.values())).all()
    after = student.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    assert all((new != old).any() for new, old in zip(after, before[1]))
    for new, old in zip(teacher.get_weights(), before[0]):
        np.testing.assert_array_equal(new, old)
