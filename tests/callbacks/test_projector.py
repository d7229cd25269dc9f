"""`EmbeddingProjector`: its files, as TensorBoard's own readers see them."""

import io
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util import tensor_util

from keras_lpd import LPDistiller
from keras_lpd.callbacks import EmbeddingProjector
from tests.helpers import cross_entropy, make_student, make_teacher, same
from tests.subclassed import TwoLayers, body_and_head

K = 4
COUNT = 60


@pytest.fixture(scope="module")
def data():
    """Images of 4 x 4 pixels, three classes."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, COUNT)
    x = (random.random((3, 4, 4, 1))[y] + random.random((COUNT, 4, 4, 1))) / 2
    return x.astype("float32"), y


def models(classes=3, shape=(4, 4, 1)):
    return make_teacher(shape=shape, classes=classes), make_student(shape=shape)


def fitted(model, data, callbacks, epochs=3, **kwargs):
    keras.utils.set_random_seed(7)
    model.compile("adam", cross_entropy())
    model.fit(*data, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    """A training that was watched: (folder, teacher, student)."""
    folder = tmp_path_factory.mktemp("logs") / "run"
    teacher, student = models()
    look = EmbeddingProjector(
        folder, data, every=2, k=K, class_names=["ant", "b\te\ne", "<img src=x>"]
    )
    fitted(LPDistiller(teacher, student), data, [look], epochs=4)
    return folder, teacher, student


def features_of(model, x):
    graph = keras.Model(model.inputs[0], model.get_layer("features").output)
    return np.asarray(graph(x, training=False))


def tensors_of(folder):
    """What an event file holds, by tag and step, read by TensorBoard."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        metadata = events.SummaryMetadata(tag)
        assert metadata.plugin_data.plugin_name == "neighborhoods"
        (event,) = events.Tensors(tag)
        name, step = tag.split("@")
        assert event.step == int(step)
        found[name, event.step] = tensor_util.make_ndarray(event.tensor_proto)
    return found


def config_of(folder):
    text = (folder / "projector_config.pbtxt").read_text()
    return text_format.Parse(text, ProjectorConfig())


def table_of(file):
    titles, *rows = (line.split("\t") for line in file.read_text().splitlines())
    return [dict(zip(titles, row, strict=True)) for row in rows]


def nearest(features):
    return NearestNeighbors(n_neighbors=K).fit(features).kneighbors()


# The Projector


def test_the_projector_has_a_run_for_each_model_and_keeps_the_epochs(written, data):
    folder, teacher, student = written
    names = {
        role: [
            embedding.tensor_name for embedding in config_of(folder / role).embeddings
        ]
        for role in ("teacher", "student")
    }
    assert names == {
        "teacher": ["teacher"],
        "student": ["epoch 001", "epoch 003", "epoch 004"],
    }
    for role, model in (("teacher", teacher), ("student", student)):
        run = folder / role
        assert list(run.glob("events.out.tfevents.*"))
        last = config_of(run).embeddings[-1]
        found = np.loadtxt(run / last.tensor_path, delimiter="\t")
        np.testing.assert_allclose(found, features_of(model, data[0]), rtol=1e-4)


def test_metadata_of_the_points(written, data):
    folder, teacher, student = written
    x, y = data
    embedding = config_of(folder / "student").embeddings[-1]
    rows = table_of(folder / "student" / embedding.metadata_path)
    names = np.array(["ant", "b e e", "<img src=x>"])
    (_, near), (_, found) = (nearest(features_of(m, x)) for m in (teacher, student))
    overlap = [len(set(a) & set(b)) / K for a, b in zip(near, found)]
    assert [row["sample"] for row in rows] == [str(i) for i in range(COUNT)]
    assert [row["label"] for row in rows] == [str(label) for label in y]
    assert [row["name"] for row in rows] == names[y].tolist()
    assert [row["overlap"] for row in rows] == [f"{share:.2f}" for share in overlap]
    for role, model in (("teacher", teacher), ("student", student)):
        predicted = np.argmax(model(x, training=False), axis=1)
        assert [row[f"{role} predicts"] for row in rows] == names[predicted].tolist()


def test_thumbnails_of_the_points(written, data):
    folder = written[0]
    for role in ("teacher", "student"):
        sprite = config_of(folder / role).embeddings[-1].sprite
        assert list(sprite.single_image_dim) == [4, 4]
        sheet = np.asarray(Image.open(folder / role / sprite.image_path))
        assert sheet.shape == (32, 32)  # 8 rows and columns
        shown = sheet[4 * (10 // 8) :, 4 * (10 % 8) :][:4, :4]
        np.testing.assert_allclose(shown / 255, data[0][10, ..., 0], atol=0.003)


# The Neighborhoods dashboard


def test_what_the_dashboard_is_told_once(written, data):
    folder, teacher, _ = written
    x, y = data
    tensors = tensors_of(folder / "student")
    about = json.loads(tensors["samples", 0].item())
    assert about == {
        "count": COUNT,
        "k": K,
        "labels": y.tolist(),
        "class_names": ["ant", "b\te\ne", "<img src=x>"],
        "thumbnails": {"width": 4, "height": 4, "columns": 8},
        "teacher": {"name": "teacher", "layer": "features", "width": 24},
        "student": {"name": "student", "layer": "features", "width": 6},
    }
    sheet = Image.open(io.BytesIO(tensors["thumbnails", 0].item()))
    assert sheet.size == (32, 32)
    distances, indices = nearest(features_of(teacher, x))
    np.testing.assert_array_equal(tensors["teacher/neighbors", 0], indices)
    np.testing.assert_allclose(tensors["teacher/distances", 0], distances, rtol=1e-4)
    predicted = np.argmax(teacher(x, training=False), axis=1)
    np.testing.assert_array_equal(tensors["teacher/predictions", 0], predicted)
    assert tensors["teacher/map", 0].shape == (COUNT, 2)


def test_what_the_dashboard_is_told_of_an_epoch(written, data):
    folder, teacher, student = written
    x, _ = data
    tensors = tensors_of(folder / "student")
    names = {"neighbors", "distances", "map", "predictions"}
    for step in (0, 2, 3):
        assert {f"student/{name}" for name in names} <= {
            name for name, at in tensors if at == step
        }
    distances, indices = nearest(features_of(student, x))
    np.testing.assert_array_equal(tensors["student/neighbors", 3], indices)
    np.testing.assert_allclose(tensors["student/distances", 3], distances, rtol=1e-4)
    predicted = np.argmax(student(x, training=False), axis=1)
    np.testing.assert_array_equal(tensors["student/predictions", 3], predicted)
    _, near = nearest(features_of(teacher, x))
    overlap = [len(set(a) & set(b)) / K for a, b in zip(near, indices)]
    np.testing.assert_allclose(tensors["overlap", 3], overlap)
    assert tensors["mean_overlap", 3] == pytest.approx(np.mean(overlap))
    assert tensors["overlap", 3].dtype == tensors["student/map", 3].dtype == np.float32
    assert tensors["student/neighbors", 3].dtype == np.int32


# All kinds of data and models


def seen(tmp_path, model, data, **kwargs):
    fitted(model, data, [EmbeddingProjector(tmp_path, data, k=K, **kwargs)], epochs=1)
    tensors = tensors_of(tmp_path / "student")
    return json.loads(tensors["samples", 0].item()), {name for name, _ in tensors}


def test_inputs_that_are_no_images_go_without_thumbnails(data, tmp_path):
    flat = data[0].reshape(COUNT, 16), data[1]
    model = LPDistiller(*models(shape=(16,)))
    about, tensors = seen(tmp_path / "none", model, flat)
    assert about["thumbnails"] is None and "thumbnails" not in tensors
    assert not config_of(tmp_path / "none" / "student").embeddings[0].HasField("sprite")

    drawn = {"sprites": lambda x: x.reshape(-1, 4, 4, 1)}
    about, _ = seen(tmp_path / "drawn", model, flat, **drawn)
    assert about["thumbnails"] == {"width": 4, "height": 4, "columns": 8}

    about, tensors = seen(tmp_path / "off", LPDistiller(*models()), data, sprites=False)
    assert about["thumbnails"] is None

    with pytest.raises(ValueError, match="`sprites` must make images.*\\(60, 16\\)"):
        seen(tmp_path / "wrong", model, flat, sprites=lambda x: x)


def test_without_names_and_without_labels(data, tmp_path):
    about, _ = seen(tmp_path / "unnamed", LPDistiller(*models()), data)
    assert about["class_names"] is None and len(about["labels"]) == COUNT
    rows = table_of(tmp_path / "unnamed" / "student" / "epoch_001_metadata.tsv")
    assert "name" not in rows[0] and rows[0]["student predicts"] in ("0", "1", "2")

    look = EmbeddingProjector(tmp_path / "unlabelled", data[0], k=K)
    fitted(LPDistiller(*models()), data, [look], epochs=1)
    tensors = tensors_of(tmp_path / "unlabelled" / "student")
    assert json.loads(tensors["samples", 0].item())["labels"] is None
    rows = table_of(tmp_path / "unlabelled" / "teacher" / "teacher_metadata.tsv")
    assert rows[0].keys() == {
        "sample", "teacher predicts", "student predicts", "overlap"
    }  # fmt: skip


def test_a_teacher_of_other_classes_predicts_nothing(data, tmp_path):
    _, tensors = seen(tmp_path, LPDistiller(*models(classes=5)), data)
    assert "teacher/predictions" not in tensors and "student/predictions" in tensors


@pytest.mark.parametrize("activation, edge", [("sigmoid", 0.5), (None, 0.0)])
def test_two_classes_by_one_output(data, tmp_path, activation, edge):
    x, y = data[0], (data[1] > 0).astype("float32")
    teacher, _ = models(classes=1)
    student = make_student(shape=(4, 4, 1), classes=1, activation=activation)
    distiller = LPDistiller(teacher, student)
    look = EmbeddingProjector(tmp_path, (x, y), k=K)
    distiller.fit(x, y, epochs=1, verbose=0, callbacks=[look])
    tensors = tensors_of(tmp_path / "student")
    predicted = np.asarray(student(x, training=False))[:, 0] > edge
    np.testing.assert_array_equal(tensors["student/predictions", 0], predicted)
    predicted = np.asarray(teacher(x, training=False))[:, 0] > 0
    np.testing.assert_array_equal(tensors["teacher/predictions", 0], predicted)


def test_two_classes_by_one_probability_of_a_subclassed_model(data, tmp_path):
    class Probability(TwoLayers):
        def call(self, inputs):
            return split(self, inputs, False)[1]

    def split(model, inputs, training):
        flat = keras.ops.reshape(inputs, (-1, 16))
        features, logits = body_and_head(model, flat, training)
        return features, keras.ops.sigmoid(logits)

    x, y = data[0], (data[1] > 0).astype("float32")
    student = Probability(classes=1)
    middle = np.median(student.head(student.body(x.reshape(-1, 16))))
    student(x[:1])
    student.head.bias.assign([-middle])
    distiller = LPDistiller(models()[0], student, student_features=split)
    distiller.compile(keras.optimizers.SGD(0.0), keras.losses.BinaryCrossentropy())
    look = EmbeddingProjector(tmp_path, (x, y), k=K)
    distiller.fit(x, y, epochs=1, verbose=0, callbacks=[look])
    found = tensors_of(tmp_path / "student")["student/predictions", 0]
    predicted = np.asarray(student(x, training=False))[:, 0] > 0.5
    np.testing.assert_array_equal(found, predicted)
    assert 0 < found.sum() < COUNT


def test_a_student_that_is_fitted_by_itself(data, tmp_path):
    teacher, student = models()
    look = EmbeddingProjector(tmp_path, data, k=K, teacher=teacher)
    fitted(student, data, [look])
    tensors = tensors_of(tmp_path / "student")
    _, indices = nearest(features_of(student, data[0]))
    np.testing.assert_array_equal(tensors["student/neighbors", 2], indices)


@pytest.mark.parametrize("distils", [True, False])
def test_training_is_not_disturbed(data, tmp_path, distils):
    def weights(watched):
        teacher, student = models()
        model = LPDistiller(teacher, student) if distils else student
        look = EmbeddingProjector(
            tmp_path, data, every=1, k=K, teacher=None if distils else teacher
        )
        fitted(model, data, [look] if watched else [])
        return student.get_weights()

    assert same(weights(True), weights(False))


# What is on disk already


def test_a_training_goes_on_in_the_same_folder(data, tmp_path):
    teacher, student = models()
    look = EmbeddingProjector(tmp_path, data, every=10, k=K)
    distiller = LPDistiller(teacher, student)
    fitted(distiller, data, [look], epochs=2)
    first = {file: file.read_bytes() for file in (tmp_path / "student").glob("epoch_*")}
    look = EmbeddingProjector(tmp_path, data, every=10, k=K)
    fitted(distiller, data, [look], epochs=4, initial_epoch=2)
    embeddings = config_of(tmp_path / "student").embeddings
    assert [one.tensor_name for one in embeddings] == [
        "epoch 001",
        "epoch 002",
        "epoch 004",
    ]
    assert len(first) == 4 and all(f.read_bytes() == x for f, x in first.items())
    assert ("overlap", 3) in tensors_of(tmp_path / "student")
    assert not list(tmp_path.rglob("*.part"))


def test_a_training_that_is_stopped_early_ends_with_its_last_epoch(data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            model = self.model.student
            model.set_weights([0 * weight for weight in model.get_weights()])

    for name, order in (("before", slice(None)), ("after", slice(None, None, -1))):
        folder = tmp_path / name
        look = EmbeddingProjector(folder, data, every=10, k=K)
        callbacks = [Stop(), look][order]
        fitted(LPDistiller(*models()), data, callbacks, epochs=9)
        embeddings = config_of(folder / "student").embeddings
        assert [one.tensor_name for one in embeddings] == ["epoch 001", "epoch 002"]
        last = np.loadtxt(folder / "student" / embeddings[-1].tensor_path)
        assert np.ptp(last) > 0


def test_collapsed_features_are_shown_as_well(data, tmp_path):
    teacher, student = models()
    layer = student.get_layer("features")
    layer.set_weights([0 * weight for weight in layer.get_weights()])
    layer.trainable = False
    fitted(
        LPDistiller(teacher, student), data, [EmbeddingProjector(tmp_path, data, k=K)]
    )
    tensors = tensors_of(tmp_path / "student")
    assert not tensors["student/map", 2].any()
    assert not tensors["student/distances", 2].any()


@pytest.mark.parametrize(
    "kwargs, words",
    [
        ({"class_names": ["one", "two"]}, "has 2 names, but there are labels up to 2"),
        ({"k": 40}, "has 60 samples.*more than 80"),
    ],
)
def test_refusals_before_training(data, tmp_path, kwargs, words):
    with pytest.raises(ValueError, match=words):
        fitted(
            LPDistiller(*models()), data, [EmbeddingProjector(tmp_path, data, **kwargs)]
        )
    assert not list(tmp_path.iterdir())


def test_tensorboard_is_asked_for(data, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="tensorboard and Pillow.*keras-lpd\\[tens"):
        EmbeddingProjector("logs", data)
    assert not pathlib.Path("logs").exists()


def test_names_that_tensorflow_may_not_know(data, tmp_path):
    """Folders with spaces and letters of all kinds."""
    folder = tmp_path / "größe = 3, ゼロ"
    fitted(
        LPDistiller(*models()), data, [EmbeddingProjector(folder, data, k=K)], epochs=1
    )
    assert tf.io.gfile.exists(str(folder / "student" / "epoch_001.tsv"))
