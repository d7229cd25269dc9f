"""What pruning, clustering and quantising have in common."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LocalityPreserving, LPDistiller, TeacherCache
from keras_lpd.compress import cluster, prune, quantize_aware
from keras_lpd.losses import Hint
from tests.compress.students import distiller, images, same, shake, student, teacher
from tests.devices import strategy
from tests.subclassed import TwoLayers, body_and_head

L = keras.layers
METHODS = [prune, cluster, quantize_aware]


@pytest.mark.parametrize("method", METHODS)
def test_the_rest_of_the_distiller_stays(method):
    losses = [
        LocalityPreserving(k=3),
        keras.distillation.LogitsDistillation(
            temperature=2.0, loss=keras.losses.KLDivergence()
        ),
    ]
    given = LPDistiller(
        teacher(),
        shake(student()),
        student_layer="flatten",
        teacher_layer="features",
        distillation_losses=losses,
        distillation_loss_weights=[0.3, 0.7],
        teacher_preprocessing=L.Identity(),
        name="mine",
    )
    weights = given.student.get_weights()
    result = method(given)
    assert isinstance(result, LPDistiller)
    assert result.teacher is given.teacher
    assert result.distillation_losses == losses
    assert result.distillation_loss_weights == [0.3, 0.7]
    assert (result.teacher_layer, result.student_layer) == ("features", "flatten")
    assert result.name == "mine"
    assert result._arguments() == given._arguments()
    x, y = images(32)
    features = result.feature_extractor("student")(x, training=False)["flatten"]
    assert features.shape == (32, 72)
    if method is prune:
        logs = result.fit(x, y, verbose=0).history
        assert {"lp_loss", "logits_distillation_loss", "student_loss"} <= set(logs)
        assert not same(result.strip().get_weights(), weights)
    assert same(given.student.get_weights(), weights)


def test_losses_on_features_have_an_effect():
    """The same training with and without the weight of it."""
    x, y = images()
    found = {}
    for gamma in (0.0, 1.0):
        given = distiller(gamma=gamma, distillation_losses=None)
        result = prune(given, schedule="constant")
        keras.utils.set_random_seed(0)
        logs = result.fit(x, y, epochs=2, shuffle=False, verbose=0).history
        assert logs["lp_loss"][0] > 0
        found[gamma] = result.strip().get_weights()
    assert not same(found[0.0], found[1.0])


def test_losses_that_train_something_go_on():
    given = distiller(
        distillation_losses=Hint(), teacher_layer="features", student_layer="features"
    )
    result = prune(given)
    assert result.auxiliary_parameters() == given.auxiliary_parameters() > 0


def test_without_compile_the_loss_fits_the_output(caplog):
    given = distiller(student(activation="softmax"))
    result = prune(given, schedule="constant")
    x, y = images()
    with caplog.at_level("INFO", "keras_lpd"):
        logs = result.fit(x, y, epochs=3, verbose=0).history
    assert "cross-entropy from probabilities" in caplog.text
    assert "assumed" not in caplog.text
    assert logs["student_loss"][-1] < logs["student_loss"][0]
    scores = result.evaluate(x, y, return_dict=True, verbose=0)
    assert 0 <= scores["accuracy"] <= 1


def test_a_teacher_cache_will_do(tmp_path):
    x, y = images()
    data = tf.data.Dataset.from_tensor_slices((x, y))
    cache = TeacherCache.build(teacher(), data, tmp_path / "cache", verbose=0)
    data = cache.attach(data).batch(32)
    result = quantize_aware(LPDistiller(cache, student()))
    assert result.fit(data, verbose=0).history["lp_loss"][0] > 0
    assert result.calibrated


def test_what_is_no_distiller_is_refused():
    for method in METHODS:
        with pytest.raises(TypeError, match=r"LPDistiller\(teacher, student\)"):
            method(student())


def test_subclassed_students_are_refused():
    model = TwoLayers()
    model(np.zeros((1, 8), "float32"))
    given = LPDistiller(teacher((8,)), model, student_features=body_and_head)
    with pytest.raises(ValueError, match="`student_features` can't look into it"):
        prune(given)


def test_the_order_of_methods():
    clustered = cluster(distiller(shake(student())))
    with pytest.raises(ValueError, match="`prune` can't follow on cluster"):
        prune(clustered)
    quantized = quantize_aware(clustered)
    assert quantized.methods == ("cluster", "quantize_aware")
    for method in METHODS:
        with pytest.raises(ValueError, match="can't follow on cluster and quantize"):
            method(quantized)


def test_the_whole_is_not_saved_meanwhile(tmp_path):
    result = prune(distiller())
    with pytest.raises(NotImplementedError, match=r"`strip\(\)`"):
        result.save(tmp_path / "distiller.keras")
    with pytest.raises(NotImplementedError, match=r"`strip\(\)`"):
        result.export(tmp_path / "saved_model")


def test_the_result_is_checked(monkeypatch):
    result = prune(distiller(shake(student())))
    other = shake(student(seed=3))
    monkeypatch.setattr(type(result.crossing), "back", lambda self, model: other)
    with pytest.raises(ValueError, match="does not give what the trained one gives"):
        result.strip()


# Packages


def output_of(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_keras_stays_what_it_is():
    """An import loads none of the extra, and the use of it leaves Keras 3 alone."""
    found = output_of(
        """
        import json, os, sys
        import keras_lpd, keras_lpd.compress
        extra = {"tf_keras", "tensorflow_model_optimization", "ai_edge_litert"}
        before = sorted(extra & set(sys.modules))
        from keras_lpd.models import cnn_student, cnn_teacher
        teacher, student = cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1))
        keras_lpd.compress.prune(keras_lpd.LPDistiller(teacher, student))
        import keras, tensorflow as tf
        print(json.dumps([
            before, keras.__version__, tf.keras.layers.Dense is keras.layers.Dense,
            "TF_USE_LEGACY_KERAS" in os.environ,
        ]))
        """
    )
    before, version, ours, told = found
    assert before == []
    assert version == keras.__version__ and version.startswith("3.")
    assert ours and not told


@pytest.mark.parametrize(
    "module, package",
    [
        ("tf_keras", "tf-keras"),
        ("tensorflow_model_optimization", "tensorflow-model-optimization"),
    ],
)
def test_missing_packages_name_the_extra(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{package}.*keras-lpd\[compress\]"):
        prune(distiller())


def test_several_devices_are_refused():
    with strategy(2).scope():
        pruning = prune(LPDistiller(teacher(), student()), 0.5)
    with pytest.raises(ValueError, match="compressed on one device; here are 2"):
        pruning.fit(*images(), verbose=0)
