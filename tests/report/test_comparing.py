import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_lpd import LPDistiller
from keras_lpd.metrics import neighbor_overlap
from keras_lpd.models import Maxout
from keras_lpd.report import compare
from tests.subclassed import TwoLayers, body_and_head


def dense(width, name, classes=3, activation=None, inputs=4):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(width, activation="relu", name="hidden"),
            layers.Dense(classes, activation=activation, name="logits"),
        ],
        name=name,
    )


@pytest.fixture
def models():
    keras.utils.set_random_seed(1)
    return {"teacher": dense(9, "big"), "small": dense(5, "little")}


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 4)).astype("float32"), rng.integers(0, 3, 40)


FRESH = """
import sys
import numpy as np
from keras_lpd.report import compare
report = compare({"maxout": sys.argv[1]}, np.zeros((3, 4), "float32"), runs=1)
print([row.macs for row in report.rows])
"""


def row_of(report, name):
    return next(row for row in report.rows if row.name == name)


def features_of(model, x, layer="hidden"):
    cut = keras.Model(model.inputs, model.get_layer(layer).output)
    return cut.predict(x, verbose=0)


def fast(models, dataset, **arguments):
    return compare(models, dataset, runs=1, **arguments)


# The numbers


def test_each_model_in_its_row(models, data):
    report = fast(models, data, k=5)
    assert [row.name for row in report.rows] == ["teacher", "small"]
    for row, model in zip(report.rows, models.values()):
        expected = np.mean(model.predict(data[0], verbose=0).argmax(axis=1) == data[1])
        assert row.accuracy == pytest.approx(expected)
        assert row.parameters == model.count_params()
        assert row.bytes > 4 * row.parameters
        assert row.latency_ms > 0
        assert row.feature_layer == "hidden"
    assert [row.macs for row in report.rows] == [4 * 9 + 9 * 3, 4 * 5 + 5 * 3]
    kept = neighbor_overlap(*(features_of(m, data[0]) for m in models.values()), k=5)
    assert [row.overlap for row in report.rows] == [1.0, pytest.approx(kept)]
    assert 0 < kept < 1
    assert report.chance == 5 / 39
    assert report.remarks == []


def test_labels_and_data_of_other_kinds(models, data):
    x, y = data
    expected = fast(models, data).rows
    one_hot = np.eye(3)[y]
    batches = tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(7)
    for dataset in ((x, one_hot), batches):
        found = fast(models, dataset).rows
        assert [row.accuracy for row in found] == [row.accuracy for row in expected]
        assert [row.overlap for row in found] == [row.overlap for row in expected]


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_binary_classifiers(data, activation):
    x, y = data[0], np.minimum(data[1], 1)
    model = dense(5, "binary", classes=1, activation=activation)
    model.get_layer("logits").bias.assign([0.3])
    threshold = 0.5 if activation else 0.0
    chosen = model.predict(x, verbose=0)[:, 0] > threshold
    (row,) = fast({"binary": model}, (x, y)).rows
    assert row.accuracy == pytest.approx(np.mean(chosen == y))


def test_several_batches(models, rng):
    x, y = rng.normal(size=(600, 4)).astype("float32"), rng.integers(0, 3, 600)
    (row,) = fast({"small": models["small"]}, (x, y)).rows
    expected = np.mean(models["small"].predict(x, verbose=0).argmax(axis=1) == y)
    assert row.accuracy == pytest.approx(expected)


def test_the_first_samples(models, data, monkeypatch):
    x, y = data
    part = fast(models, data, max_samples=20)
    assert part.samples == part.overlap_samples == 20
    assert row_of(part, "small").accuracy == pytest.approx(
        np.mean(models["small"].predict(x[:20], verbose=0).argmax(axis=1) == y[:20])
    )
    # The overlap has a limit of its own.
    monkeypatch.setitem(compare.__globals__, "OVERLAP_SAMPLES", 15)
    report = fast(models, data)
    assert (report.samples, report.overlap_samples) == (40, 15)
    sides = (features_of(model, x[:15]) for model in models.values())
    assert row_of(report, "small").overlap == pytest.approx(neighbor_overlap(*sides))
    assert "first 15 samples" in report.note()


def test_models_stay_as_they_are(models, data):
    model = models["small"]
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*data, verbose=0)
    before = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    fast(models, data)
    after = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    assert all(map(np.array_equal, before, after))


# What may stand for a model


def test_distillers_stand_for_their_students(models, data):
    teacher, student = models.values()
    distiller = LPDistiller(teacher, student, student_layer="logits")
    models = {"teacher": teacher, "distilled": distiller, "student": student}
    report = fast(models, data)
    row = row_of(report, "distilled")
    assert row.bytes == row_of(report, "student").bytes  # not the distiller's file
    assert row.parameters == student.count_params()
    assert row.feature_layer == "logits"
    sides = features_of(teacher, data[0]), features_of(student, data[0], "logits")
    assert row.overlap == pytest.approx(neighbor_overlap(*sides))


def test_distillers_bring_functions_along(models, data):
    student = TwoLayers()
    student(data[0][:1])
    distiller = LPDistiller(models["teacher"], student, student_features=body_and_head)
    report = fast({**models, "own": distiller, "alone": student}, data)
    sides = features_of(models["teacher"], data[0]), student.body(data[0])
    own, alone = row_of(report, "own"), row_of(report, "alone")
    assert own.overlap == pytest.approx(neighbor_overlap(*sides))
    assert own.accuracy == alone.accuracy
    assert own.macs == alone.macs == 4 * 5 + 5 * 3
    # The student by itself tells nobody where its features are.
    assert alone.overlap is None
    assert any("'alone'" in remark for remark in report.remarks)


def test_saved_models(models, data, tmp_path):
    expected = fast(models, data).rows
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    paths = {name: tmp_path / f"{name}.keras" for name in models}
    paths["small"] = str(paths["small"])
    for row, other in zip(fast(paths, data).rows, expected):
        assert dataclasses.replace(row, latency_ms=0) == dataclasses.replace(
            other, latency_ms=0
        )


def test_saved_models_in_a_process_that_knows_none_of_their_layers(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6), Maxout(), layers.Dense(3)]
    )
    model.save(tmp_path / "maxout.keras")
    run = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "maxout.keras"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[33]"


# Teacher and layers


def test_another_teacher(models, data):
    models["third"] = dense(7, "third")
    report = fast(models, data, teacher="small")
    assert report.teacher == "small"
    sides = features_of(models["small"], data[0]), features_of(models["third"], data[0])
    assert row_of(report, "small").overlap == 1.0
    assert row_of(report, "third").overlap == pytest.approx(neighbor_overlap(*sides))


def test_no_teacher(models, data):
    models["other"] = models.pop("teacher")
    report = fast(models, data)
    assert report.teacher is None
    assert [row.overlap for row in report.rows] == [None, None]
    assert report.chance is None
    assert "overlap" not in str(report)


def test_named_layers(models, data):
    report = fast(models, data, layers={"small": "logits"})
    sides = (
        features_of(models["teacher"], data[0]),
        features_of(models["small"], data[0], "logits"),
    )
    row = row_of(report, "small")
    assert row.overlap == pytest.approx(neighbor_overlap(*sides))
    assert row.feature_layer == "logits"
    assert "small 'logits'" in report.note()


def test_pooled_maps(rng):
    x = rng.normal(size=(30, 4, 4, 2)).astype("float32")
    models = {
        name: keras.Sequential(
            [
                keras.Input((4, 4, 2)),
                layers.Conv2D(width, 3, name="maps"),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        for name, width in (("teacher", 6), ("small", 3))
    }
    maps = [features_of(model, x, "maps") for model in models.values()]
    for pooling, sides in (
        (None, maps),
        ("avg", [one.mean(axis=(1, 2)) for one in maps]),
    ):
        report = fast(models, x, pooling=pooling)
        assert row_of(report, "small").overlap == pytest.approx(
            neighbor_overlap(*sides)
        )


def test_other_inputs_for_the_teacher(models, data):
    teacher = dense(9, "wide", inputs=8)

    def twice(x):
        return np.concatenate([x, x], axis=1)  # on arrays, which tensors turn into

    report = fast(
        {**models, "teacher": teacher}, data, preprocessing={"teacher": twice}
    )
    row = row_of(report, "teacher")
    x, y = twice(data[0]), data[1]
    assert row.accuracy == pytest.approx(
        np.mean(teacher.predict(x, verbose=0).argmax(axis=1) == y)
    )
    sides = features_of(teacher, x), features_of(models["small"], data[0])
    assert row_of(report, "small").overlap == pytest.approx(neighbor_overlap(*sides))
    assert row.macs == 8 * 9 + 9 * 3


def test_inputs_by_name(data):
    def model(name):
        inputs = keras.Input((4,), name=name)
        hidden = layers.Dense(5, activation="relu")(inputs)
        return keras.Model(inputs, layers.Dense(3)(hidden))

    models = {"teacher": model("a"), "small": model("b")}
    x, y = data
    report = fast(models, ({"a": x, "b": -x}, y))
    chosen = models["small"].predict(-x, verbose=0).argmax(axis=1)
    assert row_of(report, "small").accuracy == pytest.approx(np.mean(chosen == y))


# Cells that stay empty


def empty(report, name):
    """The attributes of a row that are empty, and the remarks on them."""
    row = dataclasses.asdict(row_of(report, name))
    return [key for key, value in row.items() if value is None], report.remarks


def test_no_labels(models, data):
    report = fast(models, data[0])
    assert empty(report, "small")[0] == ["accuracy"]
    assert "accuracy" not in report.columns()
    assert report.remarks == ["No accuracy: the data has no labels of classes."]


def test_other_classes_and_no_classifier(models, data):
    backbone = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, activation="relu", name="end")]
    )
    models.update(teacher=backbone, two=dense(5, "two", classes=2))
    report = fast(models, data)
    assert empty(report, "teacher")[0] == empty(report, "two")[0] == ["accuracy"]
    first, second = report.remarks
    assert "accuracy of 'teacher'" in first
    assert "'two'" in second and "2 classes" in second and "up to 2" in second
    assert row_of(report, "small").accuracy is not None


def test_several_outputs(models, data):
    inputs = keras.Input((4,))
    two = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    found, remarks = empty(fast({**models, "two": two}, data), "two")
    assert found == ["accuracy", "overlap", "feature_layer"]
    assert any("2 outputs" in remark for remark in remarks)


def test_a_teacher_without_features(models, data):
    teacher = TwoLayers()
    teacher(data[0][:1])
    report = fast({**models, "teacher": teacher}, data)
    assert [row.overlap for row in report.rows] == [None, None]
    (remark,) = report.remarks
    assert "neighbours in 'teacher'" in remark


def test_features_that_are_not_finite(models, data):
    models["small"].get_layer("hidden").bias.assign([np.inf] * 5)
    report = fast(models, data)
    assert "overlap" in empty(report, "small")[0]
    assert any("must be finite" in remark for remark in report.remarks)


def test_macs_that_cannot_be_counted(rng):
    x = rng.normal(size=(20, 5, 2)).astype("float32")
    loops = keras.Sequential([keras.Input((5, 2)), layers.LSTM(3), layers.Dense(3)])
    report = fast({"loops": loops}, (x, np.zeros(20)))
    assert empty(report, "loops")[0] == ["macs", "overlap"]
    assert "MACs of 'loops'" in report.remarks[0] and "While" in report.remarks[0]


# Refusals, all before anything is run


@pytest.fixture
def untouched(monkeypatch):
    from keras_lpd.report import subjects

    def run(*_):
        raise AssertionError("A model was run.")

    monkeypatch.setattr(subjects.Subject, "answers", run)


@pytest.mark.usefixtures("untouched")
class TestRefusals:
    @pytest.mark.parametrize("nothing", [{}, None, []])
    def test_no_models(self, nothing, data):
        with pytest.raises(ValueError, match="`models` must be a dict.*Received"):
            compare(nothing, data)

    def test_no_model(self, models, data):
        with pytest.raises(TypeError, match="model 'other' must be a `keras.Model`"):
            compare({**models, "other": 3}, data)

    def test_not_built(self, models, data):
        models["other"] = keras.Sequential([layers.Dense(3)])
        with pytest.raises(ValueError, match="model 'other' .*not built"):
            compare(models, data)

    def test_files(self, models, data, tmp_path):
        for name, error, said in (
            ("none.keras", FileNotFoundError, "no file .*none.keras"),
            ("some.tflite", ValueError, "evaluate_litert"),
        ):
            with pytest.raises(error, match=said):
                compare({**models, "other": tmp_path / name}, data)

    def test_students_that_are_being_compressed(self, models, data):
        pytest.importorskip("tensorflow_model_optimization")
        from keras_lpd.compress import prune, quantize_aware

        distiller = LPDistiller(*models.values())
        for compressed, said in (
            (prune(distiller, 0.5), "distiller.strip()"),
            (quantize_aware(distiller), "evaluate_litert"),
        ):
            with pytest.raises(ValueError, match=said):
                compare({**models, "other": compressed}, data)

    def test_names_of_nobody(self, models, data):
        for arguments in (
            {"teacher": "big"},
            {"layers": {"big": "hidden"}},
            {"preprocessing": {"big": np.abs}},
        ):
            (argument,) = arguments
            said = f"`{argument}` names \\['big'\\].*\\['teacher', 'small'\\]"
            with pytest.raises(ValueError, match=said):
                compare(models, data, **arguments)

    def test_layers(self, models, data):
        with pytest.raises(ValueError, match="has no layer 'hiden'"):
            compare(models, data, layers={"small": "hiden"})
        with pytest.raises(ValueError, match="teacher='small'"):
            compare({"small": models["small"]}, data, layers={"small": "hidden"})

    def test_numbers(self, models, data):
        for name in ("k", "runs", "max_samples"):
            with pytest.raises(ValueError, match=f"`{name}` must be an integer"):
                compare(models, data, **{name: 0})
        with pytest.raises(ValueError, match="pooling"):
            compare(models, data, pooling="median")

    def test_samples(self, models, data):
        x, y = data
        with pytest.raises(ValueError, match="as many samples"):
            compare(models, (x, y[:-1]))
        with pytest.raises(ValueError, match="10 samples.*more than 10"):
            compare(models, (x[:10], y[:10]))
        endless = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(4)
        with pytest.raises(ValueError, match="max_samples"):
            compare(models, endless)

    def test_samples_that_do_not_fit(self, models, data):
        models["other"] = dense(5, "other", inputs=7)
        with pytest.raises(
            ValueError, match="'other' does not take.*\\(1, 4\\).*preprocessing="
        ):
            compare(models, data)

    def test_preprocessing_that_is_none(self, models, data):
        with pytest.raises(TypeError, match="callable"):
            compare(models, data, preprocessing={"small": 3})
