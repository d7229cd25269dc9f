"""What is asked of every loss on features, besides its values."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_lpd import losses
from tests import oracles
from tests.losses.helpers import loss_and_gradient, normal


@dataclasses.dataclass(frozen=True)
class Case:
    """A loss with features that it compares, and what it should give."""

    kind: type
    oracle: Callable
    teacher: tuple[int, ...] = (20,)
    student: tuple[int, ...] = (7,)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    value_of_one: float | None = 0.0

    def make(self):
        keras.utils.set_random_seed(0)
        loss = self.kind(**self.settings)
        loss.build((None, *self.teacher), (None, *self.student))
        return loss

    def features(self, count=12):
        student = normal((count, *self.student), seed=1)
        return normal((count, *self.teacher)), student

    def expected(self, loss, teacher, student):
        if loss.layers:
            kernel, bias = (np.asarray(w, "float64") for w in loss.layer.weights)
            if kernel.ndim == 2:
                student = oracles.as_vectors(student) @ kernel + bias
            else:
                student = oracles.convolution(student, kernel, bias)
        return self.oracle(teacher, student)


CASES = {
    "locality": Case(losses.LocalityPreserving, oracles.locality_preserving_loss),
    "locality, l2": Case(
        losses.LocalityPreserving,
        functools.partial(oracles.locality_preserving_loss, k=3, normalize="l2"),
        settings={"k": 3, "normalize": "l2"},
    ),
    "locality, spread": Case(
        losses.LocalityPreserving,
        functools.partial(
            oracles.locality_preserving_loss,
            sigma=4.0,
            normalize="spread",
            pooling="avg",
        ),
        teacher=(2, 2, 6),
        student=(3, 4),
        settings={
            "sigma": 4.0,
            "normalize": "spread",
            "pooling": "avg",
            "teacher_layer_name": "backbone/conv5",
            "student_layer_name": "hidden",
            "name": "near",
        },
    ),
    "hint": Case(losses.Hint, oracles.hint_loss, value_of_one=None),
    "hint on maps": Case(
        losses.Hint,
        oracles.hint_loss,
        teacher=(2, 3, 4),
        student=(4, 4, 2),
        settings={"regressor": "convolutional", "teacher_layer_name": "conv"},
        value_of_one=None,
    ),
    "attention": Case(
        losses.AttentionTransfer,
        oracles.attention_transfer_loss,
        teacher=(5, 5, 4),
        student=(3, 4, 2),
        settings={"teacher_layer_name": "conv", "name": "look"},
        value_of_one=None,
    ),
    "similarity": Case(
        losses.SimilarityPreserving,
        oracles.similarity_preserving_loss,
        settings={"student_layer_name": "hidden"},
    ),
    "rkd": Case(
        losses.RelationalKnowledge,
        oracles.relational_loss,
        settings={"teacher_layer_name": "backbone/conv5"},
    ),
    "distances": Case(
        losses.RelationalKnowledge,
        lambda teacher, student: oracles.relational_loss(teacher, student, 3, 0),
        settings={"distance_weight": 3.0, "angle_weight": 0.0},
    ),
    "pkt": Case(
        losses.ProbabilisticTransfer,
        oracles.probabilistic_transfer_loss,
        settings={"name": "who_picks_whom"},
    ),
    "correlation": Case(
        losses.CorrelationCongruence,
        lambda teacher, student: oracles.correlation_congruence_loss(
            teacher, student, 1.5, 3
        ),
        settings={"width": 1.5, "order": 3, "name": "cc"},
    ),
    "neighbor probability": Case(
        losses.NeighborProbability,
        lambda teacher, student: oracles.neighbor_probability_loss(
            teacher, student, 3, 0.5, "avg"
        ),
        settings={"k": 3, "temperature": 0.5, "pooling": "avg"},
    ),
}
KINDS = sorted({case.kind for case in CASES.values()}, key=lambda kind: kind.__name__)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


every_kind = pytest.mark.parametrize("kind", KINDS)


def test_every_loss_on_features_is_asked():
    public = {
        one
        for one in vars(losses).values()
        if isinstance(one, type) and issubclass(one, losses.FeatureLoss)
    }
    assert public - {losses.FeatureLoss} == set(KINDS)


# Values


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
)
def test_any_dtype_gives_a_float32_loss(case, dtype):
    loss, features = case.make(), case.features()
    rounded = [side.astype(dtype) for side in features]

    value = loss.compute_loss(*map(ops.convert_to_tensor, rounded))

    assert value.shape == ()
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(value, case.expected(loss, *rounded), rtol=1e-4)
    in_float32 = loss.compute_loss(*features)
    np.testing.assert_allclose(value, in_float32, rtol=0.05)


def test_the_order_of_the_batch_does_not_matter(case):
    loss, features = case.make(), case.features()
    order = np.random.default_rng(2).permutation(12)
    value, gradient = loss_and_gradient(loss.compute_loss, *features)
    permuted, permuted_gradient = loss_and_gradient(
        loss.compute_loss, *(side[order] for side in features)
    )
    assert float(value) > 0
    np.testing.assert_allclose(permuted, value, rtol=1e-5)
    largest = np.abs(gradient).max()
    np.testing.assert_allclose(
        permuted_gradient, gradient.numpy()[order], rtol=1e-3, atol=1e-5 * largest
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_batch_may_be_of_unknown_size(case, jit_compile):
    loss = case.make()

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *case.teacher]),
            tf.TensorSpec([None, *case.student]),
        ],
        jit_compile=jit_compile,
    )
    def traced(teacher, student):
        return loss_and_gradient(loss.compute_loss, teacher, student)

    for count in (12, 4, 1):
        features = case.features(count)
        value, gradient = loss_and_gradient(loss.compute_loss, *features)
        traced_value, traced_gradient = traced(*features)
        np.testing.assert_allclose(traced_value, value, rtol=1e-4, atol=1e-9)
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(
            traced_gradient, gradient, rtol=1e-3, atol=1e-4 * largest + 1e-9
        )


@pytest.mark.parametrize(
    "kind",
    [
        losses.AttentionTransfer,
        losses.SimilarityPreserving,
        losses.RelationalKnowledge,
        losses.ProbabilisticTransfer,
        losses.CorrelationCongruence,
    ],
)
def test_a_student_with_the_teachers_features_has_nothing_to_learn(kind):
    features = normal((8, 3, 3, 4))
    value, gradient = loss_and_gradient(kind().compute_loss, features, features)
    np.testing.assert_allclose(value, 0, atol=1e-7)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    other, _ = loss_and_gradient(kind().compute_loss, features, features[::-1])
    assert other > 1e-4


# Gradients


def test_no_gradient_flows_into_the_teacher(case):
    teacher, student = map(tf.constant, case.features())
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        value = case.make().compute_loss(teacher, student)
    into_teacher, into_student = tape.gradient(
        value, [teacher, student], unconnected_gradients="zero"
    )
    np.testing.assert_array_equal(into_teacher, np.zeros(teacher.shape))
    assert np.abs(into_student).max() > 0


# The edges


def test_a_batch_of_one(case):
    value, gradient = loss_and_gradient(case.make().compute_loss, *case.features(1))
    assert np.isfinite(gradient).all()
    if case.value_of_one is None:
        assert value > 0
    else:
        np.testing.assert_allclose(value, case.value_of_one, atol=1e-9)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_a_batch_of_two(case):
    loss, features = case.make(), case.features(2)
    value, gradient = loss_and_gradient(loss.compute_loss, *features)
    np.testing.assert_allclose(
        value, case.expected(loss, *features), rtol=1e-4, atol=1e-6
    )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("changed", ["teacher", "student", "both"])
@pytest.mark.parametrize("what", ["a pair alike", "all alike", "a zero", "all zero"])
def test_features_that_lie_together_or_at_0(case, what, changed):
    loss = case.make()
    teacher, student = case.features()
    for name, side in (("teacher", teacher), ("student", student)):
        if changed in (name, "both"):
            if what == "a pair alike":
                side[3] = side[2]
            if what == "all alike":
                side[:] = side[0]
            if what == "a zero":
                side[3] = 0
            if what == "all zero":
                side[:] = 0

    value, gradient = loss_and_gradient(loss.compute_loss, teacher, student)

    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(
        value, case.expected(loss, teacher, student), rtol=1e-4, atol=1e-5
    )


@every_kind
@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ([np.ones((4, 3))], np.ones((4, 3)), "Received for the teacher: list"),
        (np.ones((4, 3)), {"a": np.ones((4, 3))}, "Received for the student: dict"),
        (np.float32(1), np.ones((4, 3)), "the teacher's features.*a scalar"),
        (np.ones((4, 3)), np.float32(1), "the student's features.*a scalar"),
        (np.ones((4, 3)), np.ones((5, 3)), "teacher batch of 4, student batch of 5"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(kind, teacher, student, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}.*{message}"):
        kind().validate_outputs(teacher, student)


# The class


def test_keras_serialization_round_trip(case):
    loss = case.make()
    serialized = keras.saving.serialize_keras_object(loss)
    assert serialized["registered_name"] == f"keras_lpd>{case.kind.__name__}"
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is case.kind
    assert again.get_config() == loss.get_config()
    assert case.settings.items() <= again.get_config().items()
    for name, value in case.settings.items():
        assert getattr(again, name) == value
    for new, old in zip(again.layers, loss.layers, strict=True):
        new.set_weights(old.get_weights())
    np.testing.assert_array_equal(
        again.compute_loss(*case.features()), loss.compute_loss(*case.features())
    )


@every_kind
def test_defaults_come_back(kind):
    serialized = keras.saving.serialize_keras_object(kind())
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is kind
    assert again.get_config() == kind().get_config()
    assert again.layers == []


def test_names_in_the_logs_differ():
    names = [kind().name for kind in KINDS]
    assert len(set(names)) == len(names)
