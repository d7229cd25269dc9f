"""What is kept of a batch, and which features are refused."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.decomposition import PCA
from sklearn.random_projection import GaussianRandomProjection

from keras_lpd.beside import PART
from keras_lpd.caching.recipe import FIT_ROWS, Recipe
from keras_lpd.features import FEATURES, OUTPUTS
from keras_lpd.fingerprint import fingerprint
from tests.subclassed import TwoLayers

layers = keras.layers

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def make_teacher(*behind, seed=0, features=5):
    """A teacher for vectors of 4; `behind` come between features and head."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh", name="body"),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            layers.Dense(features, name="features"),
            *behind,
            layers.Dense(3, name="logits"),
        ],
        name="wise",
    )


def make_recipe(teacher, layers=None, **changes):
    settings = {
        "outputs": False,
        "dtype": "float32",
        "project": None,
        "projection": "pca",
        "function": None,
        "preprocessing": None,
    }
    return Recipe(teacher, layers, **{**settings, **changes})


def no_spread(wanted):
    raise AssertionError("no more samples are needed")


@pytest.fixture(scope="module")
def teacher():
    model = make_teacher()
    normalization = model.layers[2]  # as if trained
    normalization.moving_mean.assign(np.linspace(-0.3, 0.5, 6))
    normalization.moving_variance.assign(np.linspace(0.5, 2, 6))
    return model


@pytest.fixture(scope="module")
def features_of(teacher):
    """What the teacher's layers make of `X`, by Keras alone."""

    def find(layer):
        cut = keras.Model(teacher.inputs, teacher.get_layer(layer).output)
        return cut.predict(X, verbose=0)

    return find


# The rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_are_what_the_teacher_predicts(teacher, features_of, dtype):
    recipe = make_recipe(teacher, ["body", "features"], outputs=True, dtype=dtype)

    rows = recipe.rows(X)

    assert list(rows) == recipe.keys == ["body", "features", OUTPUTS]
    for key, row in rows.items():
        expected = features_of(key or "logits")
        assert row.dtype == dtype
        np.testing.assert_allclose(row, expected.astype(dtype), rtol=1e-3, atol=1e-6)
        exact = recipe.features(X)[key]
        assert exact.dtype == "float32"
        np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=1e-6)
        assert recipe.shapes[key] == list(expected.shape[1:])


def test_rows_of_a_teacher_in_mixed_precision():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    half = layers.Dense(5, name="half", dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, layers.Dense(3, dtype="mixed_bfloat16")(half))
    recipe = make_recipe(model, "half", outputs=True)
    cut = keras.Model(inputs, half)
    for found in (recipe.features(X), recipe.rows(X)):
        assert found["half"].dtype == found[OUTPUTS].dtype == "float32"
        np.testing.assert_allclose(found["half"], cut.predict(X, verbose=0), rtol=2e-3)


def test_rows_of_a_subclassed_teacher():
    model = TwoLayers(name="free")
    model(X)

    def function(model, inputs, training):
        assert not training
        features = model.body(inputs)
        return {"body": features, "half": features[:, ::2]}, model.head(features)

    recipe = make_recipe(model, ["half"], outputs=True, function=function)
    rows = recipe.rows(X)
    assert list(rows) == ["half", OUTPUTS]
    np.testing.assert_allclose(rows["half"], model.body(X)[:, ::2], rtol=1e-5)
    np.testing.assert_allclose(rows[OUTPUTS], model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_a_sample_has_the_same_rows_in_any_company(teacher, count):
    recipe = make_recipe(teacher, ["body", "features"], outputs=True)
    whole = recipe.rows(X)
    part = recipe.rows(X[:count])
    for key in recipe.keys:
        assert len(part[key]) == count
        np.testing.assert_array_equal(part[key], whole[key][:count])


def test_a_lonely_sample_of_several_inputs():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    hidden = layers.Dense(5, name="both")(layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    recipe = make_recipe(model)
    whole = recipe.rows({"a": X, "b": -X})["both"]
    part = recipe.rows({"a": X[:1], "b": -X[:1]})["both"]
    np.testing.assert_array_equal(part, whole[:1])


# What can't be kept


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers(teacher, value):
    spoiled = np.where(np.arange(16)[:, None] == 7, value, X).astype("float32")
    recipe = make_recipe(teacher, outputs=True)
    with pytest.raises(ValueError, match="NaN or inf.*layer 'features' of model 'wise"):
        recipe.rows(spoiled)


def test_outputs_that_are_no_numbers():
    model = make_teacher()
    recipe = make_recipe(model, outputs=True)
    model.get_layer("logits").bias.assign([0, np.inf, 0])
    with pytest.raises(ValueError, match="NaN or inf.*: the outputs of model 'wise'"):
        recipe.rows(X)


def test_features_beyond_the_range_of_float16():
    model = make_teacher(layers.Rescaling(1e6, name="huge"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(
            ValueError, match=r"layer 'huge'.*reaches \d.*65,504. Pass dtype='float32'"
        ):
            make_recipe(model, "huge", dtype="float16").rows(X)
    rows = make_recipe(model, "huge").rows(X)["huge"]
    assert 65504 < np.abs(rows).max() < np.inf


def test_outputs_beyond_the_range_of_float16():
    model = make_teacher()
    model.get_layer("logits").bias.assign([0, -7e4, 0])
    with pytest.raises(ValueError, match=r"the outputs .*reaches 7e\+04.*65,504"):
        make_recipe(model, outputs=True, dtype="float16").rows(X)


def test_features_that_float16_blurs():
    """Far from 0 the next number is as far as the next neighbour."""
    model = make_teacher(layers.Rescaling(1.0, 2000.0, name="far"))
    recipe = make_recipe(model, "far", dtype="float16")
    with pytest.raises(
        ValueError, match="float16 is too coarse for layer 'far'.*Pass dtype='float32'"
    ):
        recipe.rows(X)
    make_recipe(model, "far").rows(X)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (1e-3, 0), (1e4, 0), (1, 10), (0, 1000)]
)
def test_features_that_float16_is_good_enough_for(scale, offset):
    model = make_teacher(layers.Rescaling(float(scale), float(offset), name="moved"))
    recipe = make_recipe(model, "moved", dtype="float16")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        recipe.rows(X)


def test_float16_is_judged_over_all_batches():
    """What comes first may have room enough, and what comes later not."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    moved = layers.Rescaling(1.0, name="moved")(inputs)
    hidden = layers.Dense(4)(moved)
    recipe = make_recipe(
        keras.Model(inputs, layers.Dense(2)(hidden)), "moved", dtype="float16"
    )
    recipe.rows(X)
    with pytest.raises(ValueError, match="float16 is too coarse for layer 'moved'"):
        for _ in range(20):
            recipe.rows(1000.0 + 1e-2 * X)


def test_many_samples_that_float16_is_good_enough_for():
    """Here and there it takes another neighbour of about the same distance."""
    model = TwoLayers(name="free")
    model(X)
    random = np.random.default_rng(0)

    def as_they_are(model, inputs, training):
        return inputs, inputs

    recipe = make_recipe(model, dtype="float16", function=as_they_are)
    for _ in range(8):
        recipe.rows(random.normal(size=(512, 16)).astype("float32"))


def test_a_batch_that_float16_blurs_is_no_matter_among_many():
    model = TwoLayers(name="free")
    model(X)

    def as_they_are(model, inputs, training):
        return inputs, inputs

    blurred = X + np.float32(50)
    with pytest.raises(ValueError, match="too coarse for layer 'features'"):
        recipe = make_recipe(model, dtype="float16", function=as_they_are)
        for _ in range(9):
            recipe.rows(blurred)
    recipe = make_recipe(model, dtype="float16", function=as_they_are)
    for _ in range(8):
        recipe.rows(X)
    recipe.rows(blurred)


def test_a_summary_is_of_values_and_of_steps_between_samples(teacher, features_of):
    summary = make_recipe(teacher, outputs=True).summary(X)
    assert list(summary) == ["features", OUTPUTS]
    for key, found in summary.items():
        made = features_of(key or "logits").astype("float64")
        step = np.mean([(made[i] - made[15 - i]) ** 2 for i in range(16)])
        expected = [made.mean(), np.mean(made**2), step]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("use", [(1.1, 0.0), (1.0, 0.2), (-1.0, 0.0)], ids=str)
def test_the_summary_tells_the_same_weights_used_in_another_way(use):
    def summary(scale, offset):
        model = make_teacher(layers.Rescaling(scale, offset, name="used"))
        return make_recipe(model, "used").summary(X)["used"]

    np.testing.assert_allclose(summary(1.0, 0.0), summary(1.0, 0.0), rtol=1e-6)
    assert not np.allclose(summary(*use), summary(1.0, 0.0), rtol=0.02)


def test_what_has_no_neighbours_is_not_blurred():
    model = make_teacher(layers.Rescaling(1.0, 2000.0, name="far"))
    make_recipe(model, "far", dtype="float16").rows(X[:1])
    logits = make_recipe(model, [], outputs=True, dtype="float16")
    model.get_layer("logits").bias.assign([2e3, 2e3, 2e3])
    logits.rows(X)  # outputs are compared one by one


@pytest.mark.parametrize(
    ("find", "what"),
    [
        (lambda i: (ops.cast(i, "int32"), i), r"layer 'features' .*'free' gave.*int32"),
        (lambda i: (i > 0, i), r"layer 'features' .*'free' gave.*bool"),
        (lambda i: ({"features": (i, i)}, i), "layer 'features' .*'free' gave tuple"),
        (lambda i: (i, ops.argmax(i, axis=1)), "the outputs .*'free' gave.*int"),
        (lambda i: (i, [i, i]), "the outputs .*'free' gave list"),
    ],
    ids=["integers", "truths", "nested", "integer outputs", "several outputs"],
)
def test_what_is_no_tensor_of_floats(find, what):
    model = TwoLayers(name="free")
    model(X)
    recipe = make_recipe(
        model, outputs=True, function=lambda model, inputs, training: find(inputs)
    )
    with pytest.raises(ValueError, match=f"keeps tensors of floats. {what}"):
        recipe.rows(X)


@pytest.mark.parametrize("find", [ops.sum, lambda x: x[::2], ops.transpose])
def test_features_without_one_row_a_sample(find):
    model = TwoLayers(name="free")
    model(X)
    recipe = make_recipe(model, function=lambda model, inputs, _: (find(inputs), X))
    with pytest.raises(ValueError, match="one row a sample. layer 'features'"):
        recipe.rows(X[:10])


# What is asked for


@pytest.mark.parametrize(
    ("asked", "outputs", "kept", "feature_layer"),
    [
        (None, False, ["features"], "features"),
        (None, True, ["features", OUTPUTS], "features"),
        ("body", False, ["body"], "body"),
        (["body"], True, ["body", OUTPUTS], "body"),
        (("features", "body"), False, ["features", "body"], None),
        ([], True, [OUTPUTS], None),
    ],
)
def test_the_layers(teacher, asked, outputs, kept, feature_layer):
    recipe = make_recipe(teacher, asked, outputs=outputs)
    assert recipe.keys == list(recipe.rows(X)) == kept
    assert recipe.feature_layer == feature_layer


def test_the_layer_of_a_feature_function():
    model = TwoLayers(name="free")
    model(X)
    recipe = make_recipe(model, function=lambda model, inputs, _: (inputs, inputs))
    assert recipe.keys == [recipe.feature_layer] == [FEATURES]


def test_about_is_the_same_for_the_same(teacher):
    about = make_recipe(teacher).about
    assert json.loads(json.dumps(about)) == about
    again = keras.models.clone_model(teacher)
    again.set_weights(teacher.get_weights())
    assert make_recipe(again, ["features"], projection="gaussian").about == about


def test_about_tells_all_that_changes_the_rows(teacher):
    abouts = [
        make_recipe(teacher, **changes).about
        for changes in (
            {},
            {"layers": "body"},
            {"layers": ["body", "features"]},
            {"outputs": True},
            {"dtype": "float16"},
            {"project": 2},
            {"project": 3},
            {"project": 3, "projection": "gaussian"},
        )
    ]
    abouts.append(make_recipe(make_teacher(seed=1)).about)
    assert all(abouts.count(about) == 1 for about in abouts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float64"}, r"`dtype` must be one of.*Received: 'float64'"),
        ({"dtype": None}, r"`dtype` must be one of"),
        ({"project": 0}, "`project` must be.*at least 1. Received: project=0"),
        ({"project": 2.0}, "`project` must be"),
        ({"project": "2"}, "`project` must be"),
        ({"projection": "tsne"}, r"`projection` must be one of.*Received: 'tsne'"),
        ({"layers": []}, "nothing to keep.*`layers` is empty"),
        ({"layers": "feature"}, "no layer 'feature'.*Did you mean: features"),
        ({"layers": ["body", "bdy"]}, "no layer 'bdy'"),
    ],
)
def test_settings_that_are_refused(teacher, changes, message):
    with pytest.raises(ValueError, match=message):
        make_recipe(teacher, **changes)


def test_a_teacher_without_a_clear_layer_needs_its_name():
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError, match="has 2 outputs. Name .* as `layers=`"):
        make_recipe(teacher)


def test_teachers_that_are_refused():
    with pytest.raises(TypeError, match="teacher must be a `keras.Model`"):
        make_recipe("resnet.keras")
    with pytest.raises(ValueError, match="teacher.*is not built"):
        make_recipe(keras.Sequential([layers.Dense(3)]))
    free = TwoLayers(name="free")
    free(X)
    with pytest.raises(ValueError, match="subclassed.*teacher_features="):
        make_recipe(free)
    broken = make_teacher()
    broken.get_layer("body").bias.assign(np.full(6, np.nan))
    with pytest.raises(ValueError, match="'wise' has NaN.*in its weights.*bias"):
        make_recipe(broken)


# Projections


def spread_of(batches):
    """Gives the same batches whatever is wanted, and notes what was."""

    def spread(wanted):
        spread.wanted = wanted
        return batches

    return spread


def fit(recipe, folder, spread):
    """As a build does, which has seen some features before."""
    recipe.summary(X)
    recipe.fit_projections(folder, spread)


def test_features_are_projected_and_outputs_are_not(teacher, features_of, tmp_path):
    recipe = make_recipe(teacher, ["body", "features"], outputs=True, project=3)
    spread = spread_of([X[:9], X[9:13]])
    fit(recipe, tmp_path, spread)
    assert spread.wanted == FIT_ROWS

    rows = recipe.rows(X)

    for key in ("body", "features"):
        features = features_of(key)
        pca = PCA(3, random_state=0).fit(features[:13])
        np.testing.assert_allclose(rows[key], pca.transform(features), atol=1e-5)
    np.testing.assert_allclose(rows[OUTPUTS], features_of("logits"), rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(recipe.files)


def test_random_projections_need_no_samples(teacher, features_of, tmp_path):
    recipe = make_recipe(teacher, project=3, projection="gaussian", dtype="float16")
    fit(recipe, tmp_path, no_spread)
    sklearn = GaussianRandomProjection(3, random_state=0).fit(features_of("features"))
    expected = sklearn.transform(features_of("features"))
    rows = recipe.rows(X)["features"]
    assert rows.dtype == "float16"
    np.testing.assert_allclose(rows, expected, rtol=2e-3, atol=2e-3)


def test_without_a_projection_nothing_is_fitted(teacher, tmp_path):
    recipe = make_recipe(teacher)
    fit(recipe, tmp_path, no_spread)
    assert not list(tmp_path.iterdir())
    assert recipe.rows(X)["features"].shape == (16, 5)


@pytest.fixture(scope="module")
def mapper():
    """A teacher whose features are maps of 2x2 with 3 channels."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    maps = layers.Conv2D(3, 1, name="maps")(layers.Reshape((2, 2, 1))(inputs))
    vectors = layers.Dense(5, name="vectors")(layers.Flatten()(maps))
    return keras.Model(inputs, layers.Dense(2)(vectors))


def test_feature_maps_are_flattened_to_be_projected(mapper, tmp_path):
    maps = keras.Model(mapper.inputs, mapper.get_layer("maps").output)
    vectors = maps.predict(X, verbose=0).reshape(16, 12)
    recipe = make_recipe(mapper, "maps", project=4)
    fit(recipe, tmp_path, spread_of([X]))
    expected = PCA(4, random_state=0).fit_transform(vectors)
    np.testing.assert_allclose(recipe.rows(X)["maps"], expected, atol=1e-5)
    assert recipe.mark.flattened

    beside = make_recipe(mapper, "maps")
    assert beside.rows(X)["maps"].shape == (16, 2, 2, 3)
    assert not beside.mark.flattened


def test_projections_found_in_the_folder_are_used(teacher, tmp_path):
    """So that what is built in several goes has rows of one kind."""
    first = make_recipe(teacher, project=2)
    fit(first, tmp_path, spread_of([X[:5]]))
    again = make_recipe(teacher, project=2)
    fit(again, tmp_path, no_spread)
    np.testing.assert_array_equal(again.rows(X)["features"], first.rows(X)["features"])
    assert again.mark == first.mark

    elsewhere = make_recipe(teacher, project=2)
    fit(elsewhere, make_folder(tmp_path / "new"), spread_of([X[5:]]))
    difference = elsewhere.rows(X)["features"] - first.rows(X)["features"]
    assert np.abs(difference).max() > 0.01
    assert elsewhere.mark != first.mark


def make_folder(path):
    path.mkdir()
    return path


def test_a_projection_that_was_cut_off_is_made_again(teacher, tmp_path):
    recipe = make_recipe(teacher, project=2)
    (tmp_path / f"{PART}{recipe.files[0]}").write_bytes(b"PK\x03\x04")
    fit(recipe, tmp_path, spread_of([X]))
    assert recipe.rows(X)["features"].shape == (16, 2)
    assert [path.name for path in tmp_path.iterdir()] == recipe.files


@pytest.mark.parametrize("projection", ["pca", "gaussian"])
def test_projections_to_no_fewer_dimensions(teacher, tmp_path, projection):
    recipe = make_recipe(teacher, project=5, projection=projection)
    with pytest.raises(ValueError, match="below the width of the features, 5"):
        fit(recipe, tmp_path, no_spread)
    assert not list(tmp_path.iterdir())


def test_projected_rows_are_checked_as_they_are_kept(tmp_path):
    """PCA takes the middle away: what is left float16 has room for."""
    model = make_teacher(layers.Rescaling(1.0, 2000.0, name="far"))
    recipe = make_recipe(model, "far", dtype="float16", project=3)
    fit(recipe, tmp_path, spread_of([X]))
    recipe.rows(X)


def test_the_mark_tells_teachers_and_projections_apart(teacher, mapper, tmp_path):
    def mark(model, project=None, projection="pca", rows=X):
        recipe = make_recipe(model, project=project, projection=projection)
        folder = make_folder(tmp_path / f"{len(list(tmp_path.iterdir()))}")
        fit(recipe, folder, spread_of([rows]))
        recipe.rows(X)
        return recipe.mark

    marks = [
        mark(teacher),
        mark(mapper),
        mark(teacher, 2),
        mark(teacher, 3),
        mark(teacher, 3, "gaussian"),
        mark(teacher, 3, rows=X[:9]),
    ]
    assert len(set(marks)) == len(marks)
    assert mark(teacher, 3) == marks[3]
    assert [one.made_by(fingerprint(teacher)) for one in marks] == [
        True,
        False,
        *[True] * 4,
    ]
