"""What is refused on several devices, and that nothing is on one."""

import warnings

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller
from tests.devices import strategy
from tests.helpers import cross_entropy
from tests.training.given import apart, network, samples

L = keras.layers


def distiller_under(devices, **kwargs):
    with strategy(devices).scope():
        distiller = LPDistiller(network(40, 0), network(24, 1))
        distiller.compile(**{"optimizer": "sgd", "loss": cross_entropy(), **kwargs})
    return distiller


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps_per_execution": 2}, "steps_per_execution=2"),
        ({"jit_compile": True}, "jit_compile=True"),
        (
            {"optimizer": lambda: keras.optimizers.SGD(gradient_accumulation_steps=2)},
            "gradient_accumulation_steps=2",
        ),
        (
            {
                "optimizer": lambda: keras.optimizers.SGD(
                    use_ema=True, ema_overwrite_frequency=3
                )
            },
            "ema_overwrite_frequency=3",
        ),
        ({"run_eagerly": True}, "run_eagerly=True"),
        (
            {"loss": lambda y, y_pred: keras.ops.mean(y_pred)},
            "gives one value for a batch",
        ),
        (
            {"loss": cross_entropy(reduction="mean_with_sample_weight")},
            "mean_with_sample_weight",
        ),
    ],
)
def test_settings_that_are_refused(settings, message):
    x, y, _ = samples()
    with strategy(2).scope():
        made = {
            name: one() if name == "optimizer" else one
            for name, one in settings.items()
        }
    distiller = distiller_under(2, **made)
    before = distiller.student.get_weights()
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, y, verbose=0)
    assert apart(before, distiller.student.get_weights()) == 0


def test_a_distiller_made_outside_is_refused():
    x, y, _ = samples()
    distiller = LPDistiller(network(40, 0), network(24, 1))
    with strategy(2).scope():
        distiller.compile("sgd", cross_entropy())
        with pytest.raises(ValueError, match="were not made inside of `strategy.scope"):
            distiller.fit(x, y, verbose=0)


def test_a_student_made_outside_is_refused():
    x, y, _ = samples()
    student = network(24, 1, name="small")
    with strategy(2).scope():
        distiller = LPDistiller(network(40, 0), student)
        distiller.compile("sgd", cross_entropy())
    with pytest.raises(ValueError, match="of 'lp_distiller' were not made inside"):
        distiller.fit(x, y, verbose=0)


def test_an_optimizer_made_outside_is_refused():
    x, y, _ = samples()
    distiller = distiller_under(2, optimizer=keras.optimizers.SGD())
    with pytest.raises(ValueError, match="optimizer SGD and the distiller were not"):
        distiller.fit(x, y, verbose=0)


def test_an_inner_optimizer_made_outside_is_refused():
    x, y, _ = samples()
    outside = keras.optimizers.Adam()
    with strategy(2).scope():
        scaled = keras.optimizers.LossScaleOptimizer(outside)
    with pytest.raises(ValueError, match="optimizer Adam and the distiller were not"):
        distiller_under(2, optimizer=scaled).fit(x, y, verbose=0)


def test_an_optimizer_made_inside_for_a_distiller_outside_is_refused():
    x, y, _ = samples()
    distiller = LPDistiller(network(40, 0), network(24, 1))
    with strategy(2).scope():
        distiller.compile(keras.optimizers.SGD(), cross_entropy())
    with pytest.raises(ValueError, match="optimizer SGD and the distiller were not"):
        distiller.fit(x, y, verbose=0)


def test_single_batches_are_refused():
    x, y, _ = samples()
    with pytest.raises(ValueError, match="hands each device the whole batch"):
        distiller_under(2).train_on_batch(x[:32], y[:32])


def test_plain_batch_statistics_are_warned_of():
    x, y, _ = samples()
    with strategy(2).scope():
        distiller = LPDistiller(network(40, 0), network(24, 1, L.BatchNormalization))
        distiller.compile("sgd", cross_entropy())
    with pytest.warns(UserWarning, match="synchronized=True"):
        distiller.fit(x, y, verbose=0)


def test_an_unknown_neighbourhood_is_refused():
    with pytest.raises(
        ValueError, match="`neighborhood` must be .*Received: .*'local'"
    ):
        LPDistiller(network(40, 0), network(24, 1), neighborhood="local")


def test_nothing_is_refused_on_one_device():
    """What several devices can't do, one still can."""
    x, y, _ = samples()
    distiller = LPDistiller(network(40, 0), network(24, 1))
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    distiller.compile(optimizer, cross_entropy(), steps_per_execution=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = distiller.fit(x, y, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
