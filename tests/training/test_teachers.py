"""Both kinds of teachers: a model that runs, and a cache of what one made."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LocalityPreserving, TeacherCache
from keras_lpd.caching.recipe import Recipe
from keras_lpd.features import FEATURES, OUTPUTS
from keras_lpd.fingerprint import fingerprint
from keras_lpd.taught import Mark, join
from keras_lpd.training.teachers import CachedTeacher, RunningTeacher
from keras_lpd.training.terms import make_terms
from tests.subclassed import TwoLayers, body_and_head

layers = keras.layers

X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
LOGITS = keras.distillation.LogitsDistillation


def make_model(name="wise", seed=0, width=5, classes=3, activation=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh", name="body"),
            layers.Dropout(0.5),
            layers.Dense(width, name="features"),
            layers.Dense(classes, activation=activation, name="logits"),
        ],
        name=name,
    )


def make_mapper():
    """A teacher whose features are maps of 2x2 with 3 channels."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(3, 1, name="maps"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        name="mapper",
    )


def make_free():
    keras.utils.set_random_seed(0)
    model = TwoLayers(name="free")
    model(X)
    return model


def terms_of(*losses, gamma=LocalityPreserving.default_weight, pooling=None):
    """The terms of `LPDistiller`: locality preserving, and others beside it."""
    locality = LocalityPreserving(pooling=pooling)
    return make_terms(list(losses), [1.0] * len(losses), gamma, locality)


def prepared(teacher, *losses, layer="features", student=None, **kwargs):
    student = student or make_model("student", seed=1)
    teacher.prepare(terms_of(*losses, **kwargs), layer, student)
    return teacher


def outputs_of(model, *names):
    """What layers make, by Keras alone."""
    found = [model.get_layer(name).output for name in names]
    return keras.Model(model.inputs, found).predict(X, verbose=0)


def brought_along(model, mark=None, **features):
    """A batch that brings features which the model did not make."""
    mark = mark or Mark.of(fingerprint(model))
    return join(tf.constant(X), mark, {k: tf.constant(v) for k, v in features.items()})


@pytest.fixture
def model():
    return make_model()


# A model that runs


def test_a_model_runs_on_plain_batches(model):
    teacher = prepared(RunningTeacher(model), LOGITS())
    inputs, found = teacher(X)
    assert inputs is X
    assert sorted(found) == [OUTPUTS, "features"]
    features, logits = outputs_of(model, "features", "logits")
    np.testing.assert_allclose(found["features"], features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[OUTPUTS], logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "gamma", "keys"),
    [
        ([], 0.5, ["features"]),
        ([LOGITS()], None, [OUTPUTS]),
        ([LOGITS(), LOGITS()], 0.5, ["features", OUTPUTS]),
        (
            [
                LocalityPreserving(teacher_layer_name="body"),
                LocalityPreserving(),
                LocalityPreserving(teacher_layer_name="body"),
            ],
            None,
            ["body", "features"],
        ),
    ],
)
def test_just_what_the_losses_ask_for_is_given(model, losses, gamma, keys):
    teacher = prepared(RunningTeacher(model), *losses, gamma=gamma)
    _, found = teacher(X)
    assert sorted(found) == sorted(keys)
    rows = {key: np.ones((12, 2), "float16") for key in ("body", "features", OUTPUTS)}
    _, found = teacher(brought_along(model, **rows))
    assert sorted(found) == sorted(keys)


def test_what_is_asked_for_can_be_changed(model):
    teacher = prepared(RunningTeacher(model))
    prepared(teacher, LOGITS(), gamma=None)
    assert list(teacher(X)[1]) == [OUTPUTS]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_brought_along_take_the_place_of_the_model(model, dtype, compiled):
    rows = np.random.default_rng(1).normal(size=(12, 5)).astype(dtype)
    teacher = prepared(RunningTeacher(model))
    run = tf.function(teacher.__call__) if compiled else teacher
    inputs, found = run(brought_along(model, features=rows))
    np.testing.assert_array_equal(inputs, X)
    assert found["features"].dtype == "float32"
    np.testing.assert_array_equal(found["features"], rows.astype("float32"))


def test_a_model_does_not_run_on_what_brings_features_along():
    def never(model, inputs, training):
        raise AssertionError("the teacher ran")

    model = make_free()
    teacher = prepared(RunningTeacher(model, never), layer=FEATURES)
    rows = np.ones((12, 5), "float16")
    _, found = teacher(brought_along(model, features=rows))
    np.testing.assert_array_equal(found["features"], rows)
    with pytest.raises(AssertionError, match="the teacher ran"):
        teacher(X)


@pytest.mark.parametrize("compiled", [False, True])
def test_features_of_another_model_are_refused(model, compiled):
    rows = np.ones((12, 5), "float16")
    other = make_model("wise", seed=2)
    teacher = prepared(RunningTeacher(model))
    run = tf.function(teacher.__call__) if compiled else teacher
    with pytest.raises(
        ValueError, match="another teacher's.*weights or layers of 'wise'.*differ"
    ):
        run(brought_along(other, features=rows))

    same = make_model("of another name", seed=2)
    same.set_weights(model.get_weights())
    run(brought_along(same, features=rows))


def test_features_of_the_model_as_it_was_are_refused(model):
    batch = brought_along(model, features=np.ones((12, 5), "float16"))
    teacher = prepared(RunningTeacher(model))
    teacher(batch)
    kernel = model.get_layer("body").kernel
    assert not teacher.has_changed()
    kernel.assign(kernel + 1e-3)
    assert teacher.has_changed()  # as is asked when training begins
    with pytest.raises(ValueError, match="another teacher's"):
        teacher(batch)


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        (["features"], "the outputs of the teacher, which"),
        ([OUTPUTS], "layer 'features' of the teacher, which"),
        (["body"], "layer 'features', the outputs of the teacher, which"),
    ],
)
def test_features_that_were_not_brought_along(model, kept, missing):
    teacher = prepared(RunningTeacher(model), LOGITS())
    rows = {key: np.ones((12, 5), "float16") for key in kept}
    with pytest.raises(ValueError, match=rf"{missing}.*layers=\[...\].*outputs=True"):
        teacher(brought_along(model, **rows))


def flattened(model):
    return Mark.of(fingerprint(model), "pca-2-00000000", True)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_of_what_was_flattened(model, pooling):
    batch = brought_along(model, flattened(model), features=np.ones((12, 2), "float16"))
    prepared(RunningTeacher(model))(batch)
    teacher = prepared(RunningTeacher(model), pooling=pooling)
    with pytest.raises(ValueError, match="has `pooling`.*flattened.*without `project`"):
        teacher(batch)
    vectors = Mark.of(fingerprint(model), "pca-2-00000000")
    teacher(brought_along(model, vectors, features=np.ones((12, 2), "float16")))


def test_what_a_model_tells_of_itself(model):
    teacher = RunningTeacher(model)
    assert teacher.source is model
    assert teacher.name == "wise"
    assert teacher.feature_layer == "features"
    assert teacher.output_activation is None
    assert RunningTeacher(make_model(activation="softmax")).output_activation == (
        "softmax"
    )
    assert prepared(teacher).describe("features") == "'features' of 'wise' (5 wide)"
    mapper = prepared(RunningTeacher(make_mapper()), layer="maps")
    assert mapper.describe("maps") == "'maps' of 'mapper' (2x2x3 wide)"


def test_what_a_model_that_is_no_graph_tells_of_itself():
    teacher = RunningTeacher(make_free(), body_and_head)
    assert teacher.feature_layer == FEATURES
    assert teacher.output_activation is None
    prepared(teacher, LOGITS(), layer=FEATURES)
    assert teacher.describe(FEATURES) == "'features' of 'free'"
    _, found = teacher(X)
    expected = body_and_head(teacher.source, X, False)
    np.testing.assert_allclose(found[FEATURES], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[OUTPUTS], expected[1], rtol=1e-5)

    with pytest.raises(ValueError, match="subclassed.*teacher_features="):
        _ = RunningTeacher(make_free()).feature_layer


def test_a_model_with_broken_weights_is_refused_before_training(model):
    teacher = prepared(RunningTeacher(model))
    teacher.check()
    model.get_layer("logits").bias.assign([0, np.nan, 0])
    with pytest.raises(ValueError, match="'wise' has NaN.*bias"):
        teacher.check()


# A cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


DATA = tf.data.Dataset.from_tensor_slices(X)


def build(model, path, **settings):
    return TeacherCache.build(model, DATA, path, verbose=0, **settings)


@pytest.fixture(scope="module")
def cache(folder):
    return build(make_model(activation="softmax"), folder / "one")


@pytest.fixture(scope="module")
def full(folder):
    """With two layers and the outputs."""
    return build(
        make_model(), folder / "full", layers=["features", "body"], outputs=True
    )


@pytest.fixture(scope="module")
def maps(folder):
    return build(make_mapper(), folder / "maps")


@pytest.fixture(scope="module")
def projected(folder):
    return build(make_mapper(), folder / "projected", project=2)


def batch_of(cache):
    return next(iter(cache.attach(DATA).batch(12)))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_cache_gives_what_was_brought_along(full, compiled):
    teacher = prepared(CachedTeacher(full), LOGITS())
    run = tf.function(teacher.__call__) if compiled else teacher
    inputs, found = run(batch_of(full))
    np.testing.assert_array_equal(inputs, X)
    assert sorted(found) == [OUTPUTS, "features"]
    expected = outputs_of(make_model(), "features", "logits")
    for key, rows in zip(("features", OUTPUTS), expected):
        assert found[key].dtype == "float32"
        np.testing.assert_array_equal(found[key], full[key].astype("float32"))
        np.testing.assert_allclose(found[key], rows, rtol=2e-3, atol=1e-4)


def test_what_a_cache_tells_of_its_teacher(cache, full, maps, projected):
    teacher = CachedTeacher(cache)
    assert teacher.source is cache
    assert teacher.name == "wise"
    assert teacher.output_activation == "softmax"
    assert CachedTeacher(full).output_activation is None
    assert teacher.feature_layer == "features"
    of_it = "of the cache of"
    assert teacher.describe("features") == f"'features' {of_it} 'wise' (5 wide)"
    assert CachedTeacher(full).describe("body") == f"'body' {of_it} 'wise' (6 wide)"
    for one, wide in ((maps, "2x2x3"), (projected, "2")):
        said = CachedTeacher(one).describe("maps")
        assert said == f"'maps' {of_it} 'mapper' ({wide} wide)"


def test_the_layer_of_a_cache_with_several_has_to_be_named(full):
    teacher = CachedTeacher(full)
    said = r"full has 'features', 'body', the outputs. Name.*`teacher_layer=`"
    with pytest.raises(ValueError, match=said):
        _ = teacher.feature_layer
    for layer, width in (("features", 5), ("body", 6)):
        _, found = prepared(teacher, layer=layer)(batch_of(full))
        assert found[layer].shape == (12, width)


def test_a_cache_without_layers_has_none_to_name(folder):
    outputs = build(make_model(), folder / "outputs", layers=[], outputs=True)
    with pytest.raises(ValueError, match="has the outputs"):
        _ = CachedTeacher(outputs).feature_layer
    teacher = prepared(CachedTeacher(outputs), LOGITS(), gamma=None)
    assert list(teacher(batch_of(outputs))[1]) == [OUTPUTS]


@pytest.mark.parametrize("x", [X, {"inputs": X}, (X, X)])
def test_a_cache_needs_features_brought_along(cache, x):
    teacher = prepared(CachedTeacher(cache))
    with pytest.raises(ValueError, match=r"without its features.*cache.attach"):
        teacher(x)


def test_features_of_another_cache_are_refused(cache, full, maps, projected):
    """Of another teacher, or of the same one but projected."""
    for one, other in ((full, maps), (maps, projected), (projected, maps)):
        teacher = prepared(CachedTeacher(one), layer=one.layers[0])
        teacher(batch_of(one))
        with pytest.raises(ValueError, match="of another cache.*Received") as refusal:
            teacher(batch_of(other))
        assert str(one.mark) in str(refusal.value)
        assert str(other.mark) in str(refusal.value)


def test_projected_features_go_to_the_teacher_that_made_them(projected):
    teacher = prepared(RunningTeacher(make_mapper()), layer="maps")
    _, found = teacher(batch_of(projected))
    np.testing.assert_array_equal(found["maps"], projected["maps"].astype("float32"))


@pytest.mark.parametrize(
    ("losses", "layer", "missing"),
    [
        ([LOGITS()], "features", "the outputs of the teacher, which"),
        ([], "body", "layer 'body' of the teacher, which"),
        (
            [LocalityPreserving(teacher_layer_name="body"), LOGITS()],
            "features",
            "layer 'body', the outputs of the teacher, which",
        ),
    ],
)
def test_what_a_cache_does_not_have_is_said_before_training(
    cache, losses, layer, missing
):
    with pytest.raises(ValueError, match=rf"{missing}.*layers=\[...\].*outputs=True"):
        prepared(CachedTeacher(cache), *losses, layer=layer)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_of_a_cache_of_what_was_flattened(maps, projected, pooling):
    with pytest.raises(ValueError, match="has `pooling`.*flattened.*without `project`"):
        prepared(CachedTeacher(projected), layer="maps", pooling=pooling)
    prepared(CachedTeacher(projected), layer="maps")
    prepared(CachedTeacher(maps), layer="maps", pooling=pooling)


def test_outputs_of_a_cache_that_a_loss_can_not_compare(full):
    student = make_model("small", seed=1, classes=4)
    prepared(CachedTeacher(full), student=student)  # other classes are no matter
    said = "teacher 'wise' [(None, 3)], student 'small' [(None, 4)]"
    with pytest.raises(ValueError, match=re.escape(said)):
        prepared(CachedTeacher(full), LOGITS(), student=student)


def test_the_mark_of_a_cache_is_its_recipes(projected, tmp_path):
    """So that other goes at building it, elsewhere too, give the same."""
    recipe = Recipe(make_mapper(), None, False, "float16", 2, "pca", None, None)
    recipe.summary(X)
    recipe.fit_projections(tmp_path, lambda wanted: [X])
    recipe.rows(X)
    assert projected.mark == recipe.mark
    assert projected.mark.made_by(fingerprint(make_mapper()))
