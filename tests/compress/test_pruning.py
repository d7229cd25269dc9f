"""Pruning while distilling."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd.compress import prune
from keras_lpd.compress.bridge import cross
from keras_lpd.compress.packages import load
from tests.compress.students import distiller, images, same, shake, student

L = keras.layers


def zeros(kernels):
    return {path: int(np.sum(kernel == 0)) for path, kernel in kernels.items()}


def expected_zeros(kernels, sparsity):
    return {
        path: kernel.size - round(kernel.size * (1 - sparsity))
        for path, kernel in kernels.items()
    }


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_every_kernel_has_its_share_of_zeros():
    x, y = images()
    result = prune(distiller(shake(student())), 0.6, "constant")
    assert result.sparsity == 0.0
    result.fit(x, y, verbose=0)
    kernels = result.kernels()
    assert list(kernels) == ["conv", "features", "logits"]
    assert zeros(kernels) == expected_zeros(kernels, 0.6)
    total = sum(kernel.size for kernel in kernels.values())
    assert result.sparsity == pytest.approx(sum(zeros(kernels).values()) / total)
    stripped = result.strip()
    assert isinstance(stripped, keras.Model)
    np.testing.assert_allclose(
        stripped.predict(x, verbose=0), result.predict(x, verbose=0), atol=1e-5
    )
    assert np.array_equal(stripped.get_layer("conv").kernel, kernels["conv"])


def test_sparsity_rises_over_the_first_half():
    seen = []
    result = prune(distiller(shake(student())), 0.75)
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(result.sparsity)
    )
    x, y = images()
    result.fit(x, y, epochs=6, callbacks=look, verbose=0)
    assert 0.3 < seen[0] < seen[1] < seen[2]
    assert seen[2] == seen[3] == seen[5]
    kernels = result.kernels()
    assert zeros(kernels) == expected_zeros(kernels, 0.75)
    # And stays where it is in another training.
    result.fit(x, y, epochs=1, callbacks=look, verbose=0)
    assert seen[6] == seen[5]


def test_it_is_what_tfmot_does_in_tf_keras():
    """The same training there, by its own means: the same weights."""
    tfmot, tf_keras = load("tensorflow_model_optimization"), load("tf_keras")
    sparsity = tfmot.sparsity.keras
    x, y = images()

    model = shake(student())
    schedule = sparsity.PolynomialDecay(0.2, 0.8, 1, 7, frequency=2)
    result = prune(
        distiller(model, gamma=0.0, distillation_losses=None), schedule=schedule
    )
    result.compile(keras.optimizers.SGD(0.1), cross_entropy())
    result.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)

    native = sparsity.prune_low_magnitude(cross(model).model, schedule)
    native.compile(
        tf_keras.optimizers.SGD(0.1),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    native.fit(
        x, y, batch_size=32, epochs=3, shuffle=False, verbose=0,
        callbacks=[sparsity.UpdatePruningStep()],
    )  # fmt: skip
    native = sparsity.strip_pruning(native)
    stripped = result.strip()
    for path, name in result.crossing.names.items():
        theirs = native.get_layer(name).get_weights()
        assert same(stripped.get_layer(path).get_weights(), theirs)
    assert np.mean(stripped.get_layer("features").kernel == 0) == pytest.approx(
        0.8, 0.01
    )


def test_early_stopping_restores_a_pruned_student():
    result = prune(distiller(shake(student())), 0.5, "constant")
    kept = []
    x, y = images()
    callbacks = [
        keras.callbacks.EarlyStopping(
            "loss", mode="max", patience=1, restore_best_weights=True
        ),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: kept.append(result.student.get_weights())
        ),
    ]
    result.compile(keras.optimizers.Adam(0.1), cross_entropy())
    logs = result.fit(x, y, epochs=9, callbacks=callbacks, verbose=0).history
    best = int(np.argmax(logs["loss"]))
    assert len(logs["loss"]) == best + 2
    assert same(result.student.get_weights(), kept[best])
    kernel = np.asarray(result.student.inner.layers[1].layer.kernel)
    assert np.mean(kernel == 0) == 0.5  # without `strip`


def test_training_goes_on_from_saved_weights(tmp_path):
    """Masks and the count of steps are among them."""
    x, y = images()
    first = prune(distiller(shake(student())), 0.5, "constant")
    first.fit(x, y, verbose=0)
    first.save_weights(tmp_path / "latest.weights.h5")
    second = prune(distiller(student(seed=4)), 0.5, "constant")
    second.compile("adam", cross_entropy())
    second.optimizer.build(second.trainable_variables)
    second.load_weights(tmp_path / "latest.weights.h5")
    assert second.sparsity == first.sparsity > 0.4
    assert same(second.strip().get_weights(), first.strip().get_weights())


def test_what_is_not_pruned_is_told(caplog):
    model = student(
        L.Rescaling(1 / 255.0),
        L.Conv2D(4, 3, name="frozen", trainable=False),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.SeparableConv2D(4, 3, name="separable"),
    )
    x, y = images()
    with caplog.at_level("INFO", "keras_lpd"):
        result = prune(distiller(model), 0.5, "constant")
    assert "Pruning: separable, features, logits. Left as they are: " in caplog.text
    assert "frozen (Conv2D, frozen), depthwise (DepthwiseConv2D)" in caplog.text
    result.fit(255 * x, y, verbose=0)
    stripped = result.strip()
    separable = stripped.get_layer("separable")
    assert np.mean(separable.pointwise_kernel == 0) == 0.5
    assert np.all(separable.depthwise_kernel != 0)
    assert np.all(stripped.get_layer("depthwise").kernel != 0)
    frozen = model.get_layer("frozen").get_weights()
    assert same(stripped.get_layer("frozen").get_weights(), frozen)


def test_nothing_to_prune_is_refused():
    model = student()
    model.trainable = False
    with pytest.raises(ValueError, match="Nothing of model 'student'.*pruning"):
        prune(distiller(model))


def test_unknown_lengths_are_refused():
    x, y = images()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    data = data.filter(lambda x, y: True)
    result = prune(distiller())
    with pytest.raises(ValueError, match="`steps_per_epoch=`"):
        result.fit(data, verbose=0)
    result.fit(data, steps_per_epoch=3, verbose=0)
    assert result.sparsity == pytest.approx(0.75, abs=0.01)


def test_trainings_that_are_too_short_warn():
    tfmot = load("tensorflow_model_optimization")
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.9, 0, 1000, frequency=1)
    result = prune(distiller(shake(student())), schedule=schedule)
    with pytest.warns(
        UserWarning, match=r"\d\.\d% of the kernels are zeros, not 90.0%"
    ):
        result.fit(*images(), verbose=0)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan"), "half", True])
def test_impossible_sparsities_are_refused(sparsity):
    with pytest.raises(ValueError, match="at least 0 and under 1"):
        prune(distiller(), sparsity)


@pytest.mark.parametrize("schedule, error", [("linear", ValueError), (3, TypeError)])
def test_unknown_schedules_are_refused(schedule, error):
    with pytest.raises(error, match="'polynomial', 'constant', or a `PruningSchedule`"):
        prune(distiller(), schedule=schedule)
