"""`LPDistiller.feature_extractor`: what is compared, for others to look at."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.features import OUTPUTS
from tests.distiller.conftest import make_student, make_teacher
from tests.subclassed import TwoLayers, body_and_head


def of_layer(model, x, layer):
    return keras.Model(model.inputs[0], model.get_layer(layer).output)(x)


@pytest.mark.parametrize(
    "distiller_layer, asked, expected",
    [(None, None, "features"), ("early", None, "early"), ("early", "logits", "logits")],
)
def test_features_and_outputs_of_both(data, distiller_layer, asked, expected):
    models = {"teacher": make_teacher(), "student": make_student()}
    for model in models.values():
        model.layers[1].name = "early"
    distiller = LPDistiller(
        *models.values(), teacher_layer=distiller_layer, student_layer=distiller_layer
    )
    for role, model in models.items():
        extract = distiller.feature_extractor(role, asked)
        assert extract.layers == [expected]
        found = extract(data[0], training=False)
        assert np.array_equal(found[expected], of_layer(model, data[0], expected))
        assert np.array_equal(found[OUTPUTS], model(data[0], training=False))


def test_without_a_loss_on_features(data):
    distiller = LPDistiller(
        make_teacher(),
        make_student(),
        gamma=None,
        distillation_losses=keras.distillation.LogitsDistillation(
            loss=keras.losses.KLDivergence()
        ),
    )
    assert distiller.teacher_layer is None
    for role in ("teacher", "student"):
        assert distiller.feature_extractor(role).layers == ["features"]


def test_with_functions_and_preprocessing(data):
    teacher, student = TwoLayers(20), TwoLayers(6)
    for model in (teacher, student):
        model(data[0])
    distiller = LPDistiller(
        teacher,
        student,
        teacher_features=body_and_head,
        student_features=body_and_head,
        teacher_preprocessing=lambda x: -x,
    )
    for role, model, x in (
        ("teacher", teacher, -data[0]),
        ("student", student, data[0]),
    ):
        found = distiller.feature_extractor(role)(data[0], training=False)
        assert np.array_equal(found["features"], model.body(x))


def test_refusals(data, tmp_path):
    teacher, student = make_teacher(), make_student()
    distiller = LPDistiller(teacher, student)
    with pytest.raises(ValueError, match="'teacher' or 'student'. Received: role='x'"):
        distiller.feature_extractor("x")
    with pytest.raises(ValueError, match="needs a teacher"):
        LPDistiller(None, student).feature_extractor("teacher")
    samples = tf.data.Dataset.from_tensor_slices(data)
    cache = TeacherCache.build(teacher, samples, tmp_path / "cache", verbose=0)
    with pytest.raises(ValueError, match="teacher is a cache"):
        LPDistiller(cache, student).feature_extractor("teacher")
