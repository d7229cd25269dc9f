"""What `fit` keeps an eye on: features that collapse."""

import warnings

import keras
import numpy as np
import pytest

from keras_lpd import LPDistiller
from keras_lpd.training.guard import SPREAD, Guard
from tests.helpers import cross_entropy, make_student, make_teacher, three_classes

layers = keras.layers


def pulled_hard(learning_rate):
    """A distiller whose `gamma` leaves the labels no say."""
    keras.utils.set_random_seed(1)
    student = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, name="features"), layers.Dense(3)]
    )
    distiller = LPDistiller(
        make_teacher(), student, gamma=1000.0, distillation_losses=None
    )
    distiller.compile(keras.optimizers.Adam(learning_rate), cross_entropy())
    return distiller


def fit(model, *args, **kwargs):
    keras.utils.set_random_seed(5)
    return model.fit(*args, verbose=0, **kwargs)


def test_a_collapse_is_warned_of_once_with_the_remedy():
    distiller = pulled_hard(learning_rate=0.02)
    with pytest.warns(UserWarning, match="collapsed.*smaller `gamma`") as caught:
        history = fit(distiller, *three_classes(), epochs=40).history
    assert len([w for w in caught if "collapsed" in str(w.message)]) == 1
    assert history["feature_spread"][-1] < 0.1 * history["feature_spread"][0]


@pytest.mark.parametrize("fits", [1, 6])
def test_a_quick_collapse_is_warned_of(fits):
    """Within the first epoch, or over several calls of `fit`."""
    x, y = three_classes()
    x, y = np.tile(x, (10, 1)), np.tile(y, 10)
    distiller = pulled_hard(learning_rate=0.03 / fits)
    with pytest.warns(UserWarning, match="collapsed") as caught:
        for _ in range(fits):
            fit(distiller, x, y, batch_size=8)
    assert len([w for w in caught if "collapsed" in str(w.message)]) == 1


def test_a_collapse_of_what_had_spread_out_is_warned_of():
    """Measured against the largest spread, however small it was at the first batch."""
    guard = Guard([])
    logs = [{SPREAD: value} for value in (0.1, 8.0, 9.0, 1.0, 0.89, 0.5)]
    guard.on_train_begin()
    guard.on_train_batch_end(0, logs[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in range(1, 4):
            guard.on_epoch_end(epoch, logs[epoch])
    with pytest.warns(UserWarning, match="is 0.89, under 10% of the 9 it") as caught:
        for epoch in (4, 5):
            guard.on_epoch_end(epoch, logs[epoch])
    assert len(caught) == 1


def test_a_healthy_training_is_not_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(LPDistiller(make_teacher(), make_student()), *three_classes(), epochs=5)
    assert not [w for w in caught if "collapsed" in str(w.message)]
