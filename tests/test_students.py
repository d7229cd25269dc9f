"""Models, and the students of distillers."""

import keras

from keras_lpd import LPDistiller
from keras_lpd.students import is_being_compressed, model_of


def dense(name):
    layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
    return keras.Sequential(layers, name=name)


def test_a_distiller_stands_for_its_student():
    teacher, student = dense("teacher"), dense("student")
    ours = LPDistiller(teacher, student)
    stock = keras.distillation.Distiller(
        teacher, student, keras.distillation.LogitsDistillation()
    )
    for given in (ours, stock, student):
        assert model_of(given) is student
        assert not is_being_compressed(given)
