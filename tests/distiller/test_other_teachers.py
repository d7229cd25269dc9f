"""Teachers without a head, of other classes, other inputs or another modality."""

import warnings

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller, TeacherCache
from tests import oracles
from tests.distiller.conftest import cross_entropy, make_student, same

layers = keras.layers

WIDE, NARROW = (12, 12, 1), (6, 6, 1)


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    x = random.random((32, *NARROW), dtype="float32")
    return x, random.integers(0, 3, 32)


def backbone(shape=WIDE, name="backbone"):
    """Ends in features, as those of `keras.applications` without a top."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(7, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(name="pooled"),
        ],
        name=name,
    )


def fitted(distiller, x, y, **kwargs):
    distiller.compile(keras.optimizers.SGD(0.05), cross_entropy())
    distiller.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False, **kwargs)
    return distiller.student.get_weights()


def first_loss(distiller, x, y):
    distiller.compile(keras.optimizers.SGD(0.05), cross_entropy())
    logs = distiller.train_on_batch(x, y, return_dict=True)
    return logs["lp_loss"]


# No head, and other classes


def test_the_output_of_a_backbone_is_its_features(images):
    teacher, student = backbone(NARROW), make_student(shape=NARROW)
    learned = keras.Model(student.inputs, student.get_layer("features").output)
    distiller = LPDistiller(teacher, student)
    assert distiller.teacher_layer == "pooled"

    keras.utils.set_random_seed(1)  # for dropout
    value = first_loss(distiller, *images)

    keras.utils.set_random_seed(1)
    fresh = make_student(shape=NARROW)
    learned = keras.Model(fresh.inputs, fresh.get_layer("features").output)
    keras.utils.set_random_seed(1)
    expected = oracles.locality_preserving_loss(
        teacher.predict(images[0], verbose=0),
        np.asarray(learned(images[0], training=True)),
    )
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_a_teacher_of_other_classes(images, activation):
    teacher = backbone(NARROW)
    classes = layers.Dense(11, activation=activation)(teacher.outputs[0])
    teacher = keras.Model(teacher.inputs, classes)
    distiller = LPDistiller(teacher, make_student(shape=NARROW))
    assert distiller.teacher_layer == "pooled"
    before = distiller.student.get_weights()
    assert not same(before, fitted(distiller, *images))


def divergence():
    return keras.distillation.LogitsDistillation(2.0, keras.losses.KLDivergence())


def test_losses_on_logits_are_refused_without_a_head():
    teacher = backbone(NARROW)
    student = make_student(shape=NARROW, classes=7)  # as wide as the features
    with pytest.raises(
        ValueError,
        match=r"LogitsDistillation wants the teacher's logits.*'backbone' has no "
        r"classifier.*\(None, 7\).*NeighborProbability",
    ):
        LPDistiller(teacher, student, distillation_losses=divergence())


def test_losses_on_logits_are_refused_with_other_classes():
    teacher = make_student("teacher", shape=NARROW, classes=11)
    with pytest.raises(ValueError, match=r"\(None, 11\).*other classes.*features"):
        LPDistiller(
            teacher, make_student(shape=NARROW), distillation_losses=divergence()
        )


# Preprocessing


PREPROCESSING = {
    "a layer": lambda: layers.Resizing(*WIDE[:2]),
    "several": lambda: keras.Sequential(
        [layers.Resizing(*WIDE[:2]), layers.Rescaling(2.0, offset=-1.0)]
    ),
    "a function": lambda: lambda x: 2 * keras.ops.image.resize(x, WIDE[:2]),
    "in inference mode": lambda: keras.Sequential(
        [layers.Resizing(*WIDE[:2]), layers.RandomFlip(), layers.Dropout(0.5)]
    ),
}


@pytest.mark.parametrize("case", PREPROCESSING)
def test_preprocessing_is_as_good_as_a_layer_before_the_teacher(images, case):
    preprocessing = PREPROCESSING[case]()
    inputs = keras.Input(NARROW)
    if isinstance(preprocessing, keras.Layer):
        before = preprocessing(inputs, training=False)
    else:
        before = preprocessing(inputs)
    teacher = keras.Model(inputs, backbone()(before))
    expected = fitted(LPDistiller(teacher, make_student(shape=NARROW)), *images)

    student = make_student(shape=NARROW)
    distiller = LPDistiller(backbone(), student, teacher_preprocessing=preprocessing)
    weights = fitted(distiller, *images)

    assert same(weights, expected)


def test_preprocessing_is_neither_trained_nor_saved(images, tmp_path):
    preprocessing = keras.Sequential(
        [keras.Input(NARROW), layers.Resizing(*WIDE[:2]), layers.Conv2D(1, 1)]
    )
    before = preprocessing.get_weights()
    student = make_student(shape=NARROW)
    distiller = LPDistiller(backbone(), student, teacher_preprocessing=preprocessing)
    fitted(distiller, *images)

    assert same(preprocessing.get_weights(), before)
    assert distiller.auxiliary_parameters() == 0
    assert {id(v) for v in distiller.weights} == {id(v) for v in student.weights}

    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    with pytest.warns(UserWarning, match="The teacher before had `teacher_prepr"):
        loaded.set_teacher(backbone(NARROW))
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The teacher before")
        loaded.set_teacher(backbone(), preprocessing)
    distiller.fit(*images, verbose=0, shuffle=False)
    loaded.fit(*images, verbose=0, shuffle=False)
    for one, other in zip(loaded.student.get_weights(), student.get_weights()):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_teacher_that_is_refused_changes_nothing():
    resize = layers.Resizing(*WIDE[:2])
    distiller = LPDistiller(
        backbone(), make_student(shape=NARROW), teacher_preprocessing=resize
    )
    before = distiller.teacher
    with (
        pytest.warns(UserWarning, match="The teacher before"),
        pytest.raises(ValueError, match="inputs must agree"),
    ):
        distiller.set_teacher(backbone())
    assert distiller.teacher is before
    with pytest.warns(UserWarning, match="The teacher before"):
        distiller.set_teacher(backbone(NARROW))


@pytest.mark.parametrize(
    ("preprocessing", "kind", "message"),
    [
        ("resize", TypeError, "layer, or a callable.*'resize'"),
        (
            layers.Resizing(10, 10),
            ValueError,
            r"does not fit teacher 'backbone'.*\(None, 12, 12, 1\).*10, 10",
        ),
        (
            lambda x: x["image"],
            ValueError,
            "`teacher_preprocessing` fails on the student's inputs",
        ),
    ],
    ids=["no callable", "other shape", "fails"],
)
def test_preprocessing_that_does_not_fit(preprocessing, kind, message):
    with pytest.raises(kind, match=message):
        LPDistiller(
            backbone(),
            make_student(shape=NARROW),
            teacher_preprocessing=preprocessing,
        )


def test_a_cache_of_a_teacher_with_preprocessing(images, tmp_path):
    import tensorflow as tf

    x, y = images
    samples = tf.data.Dataset.from_tensor_slices((x, y))
    resize = layers.Resizing(*WIDE[:2])
    cache = TeacherCache.build(
        backbone(), samples, tmp_path / "cache", teacher_preprocessing=resize
    )
    features = backbone().predict(np.asarray(resize(x)), verbose=0)
    np.testing.assert_allclose(cache["pooled"], features, atol=1e-3)

    student = make_student(shape=NARROW)
    with pytest.raises(ValueError, match=r"has features of.*`TeacherCache.build`"):
        LPDistiller(cache, student, teacher_preprocessing=resize)
    with pytest.raises(FileExistsError, match="what the teacher makes of the first"):
        TeacherCache.build(
            backbone(),
            samples,
            tmp_path / "cache",
            teacher_preprocessing=keras.Sequential([layers.Rescaling(3.0), resize]),
        )


# Another modality


def model_on(name, shape, width, in_dict):
    keras.utils.set_random_seed(width)
    inputs = keras.Input(shape, name=name)
    hidden = layers.Dense(width, name="features")(layers.Flatten()(inputs))
    outputs = layers.Dense(3)(hidden)
    return keras.Model({name: inputs} if in_dict else inputs, outputs)


@pytest.mark.parametrize("teacher_in_dict", [False, True])
@pytest.mark.parametrize("student_in_dict", [False, True])
def test_each_model_takes_its_own_of_a_dict(teacher_in_dict, student_in_dict):
    random = np.random.default_rng(0)
    x = {
        "sound": random.normal(size=(32, 9)).astype("float32"),
        "image": random.normal(size=(32, 4, 4)).astype("float32"),
    }
    y = random.integers(0, 3, 32)
    teacher = model_on("sound", (9,), 8, teacher_in_dict)
    student = model_on("image", (4, 4), 5, student_in_dict)
    taught, learned = (
        keras.Model(model.inputs, model.get_layer("features").output).predict(
            x[name], verbose=0
        )
        for model, name in ((teacher, "sound"), (student, "image"))
    )
    distiller = LPDistiller(teacher, student)

    value = first_loss(distiller, x, y)

    expected = oracles.locality_preserving_loss(taught, learned)
    assert value == pytest.approx(expected, rel=1e-4)
    fitted(distiller, x, y, validation_data=(x, y))
    alone = student.predict({"image": x["image"]} if student_in_dict else x["image"])
    np.testing.assert_array_equal(distiller.predict(x, verbose=0), alone)


def test_preprocessing_sees_the_whole_dict():
    random = np.random.default_rng(0)
    x = {
        "left": random.normal(size=(32, 4)).astype("float32"),
        "right": random.normal(size=(32, 4)).astype("float32"),
    }
    y = random.integers(0, 3, 32)
    teacher = model_on("sum", (4,), 8, False)
    distiller = LPDistiller(
        teacher,
        model_on("left", (4,), 5, True),
        teacher_preprocessing=lambda batch: batch["left"] + batch["right"],
    )
    learned = keras.Model(
        distiller.student.inputs, distiller.student.get_layer("features").output
    ).predict(x["left"], verbose=0)
    taught = keras.Model(teacher.inputs, teacher.get_layer("features").output)
    expected = oracles.locality_preserving_loss(
        taught.predict(x["left"] + x["right"], verbose=0), learned
    )
    assert first_loss(distiller, x, y) == pytest.approx(expected, rel=1e-4)
