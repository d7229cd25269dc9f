"""What `LPDistiller` refuses before it trains, and what it says then."""

import keras
import numpy as np
import pytest

from keras_lpd import LocalityPreserving, LPDistiller
from tests.distiller.conftest import cross_entropy, make_student, make_teacher, same

layers = keras.layers


def dense(shape, width=6, batch=None, name=None):
    return keras.Sequential(
        [
            keras.Input(shape, batch_size=batch),
            layers.Flatten(),
            layers.Dense(width, activation="relu", name="features"),
            layers.Dense(3, name="logits"),
        ],
        name=name,
    )


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("model", ["resnet.keras", None, layers.Dense(3)])
def test_what_is_no_keras_model(role, model):
    if role == "teacher" and model is None:
        return  # allowed: as loaded from a file
    models = {"teacher": dense((8,)), "student": dense((8,)), role: model}
    with pytest.raises(TypeError, match=f"The {role} must be a `keras.Model`"):
        LPDistiller(models["teacher"], models["student"])


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_model_that_is_not_built(role):
    models = {"teacher": dense((8,)), "student": dense((8,))}
    models[role] = keras.Sequential([layers.Dense(4), layers.Dense(3)])
    with pytest.raises(ValueError, match=f"The {role}.*is not built.*keras.Input"):
        LPDistiller(models["teacher"], models["student"])


def test_a_teacher_that_is_the_student():
    model = dense((8,))
    with pytest.raises(ValueError, match="the same model, 'twin'"):
        model = dense((8,), name="twin")
        LPDistiller(model, model)


def test_a_teacher_that_shares_the_students_weights():
    student = dense((8,))
    teacher = keras.Model(student.inputs, layers.Dense(9)(student.layers[1].output))
    with pytest.raises(ValueError, match=r"share weights.*clone_model"):
        LPDistiller(teacher, student)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        (dense((32, 32, 3)), dense((28, 28, 1))),
        (dense((8,), batch=16), dense((8,), batch=32)),
        (dense((8,)), dense((2, 2, 2))),
    ],
    ids=["images", "batches", "ranks"],
)
def test_inputs_that_do_not_agree(teacher, student):
    with pytest.raises(ValueError, match=r"inputs must\s+agree.*Resizing"):
        LPDistiller(teacher, student)


def test_a_last_axis_of_one_is_no_difference():
    LPDistiller(dense((28, 28)), dense((28, 28, 1)))


def test_inputs_of_the_same_name_that_do_not_agree():
    def model(width):
        inputs = {"a": keras.Input((width,), name="a")}
        hidden = layers.Dense(4)(inputs["a"])
        return keras.Model(inputs, layers.Dense(3)(hidden))

    with pytest.raises(ValueError, match=r"inputs must\s+agree"):
        LPDistiller(model(5), model(6))


def test_an_unknown_layer_lists_the_near_ones():
    with pytest.raises(ValueError, match="no layer 'feature'.*Did you mean: features"):
        LPDistiller(dense((8,)), dense((8,)), teacher_layer="feature")
    with pytest.raises(ValueError, match="no layer 'logit'.*Did you mean: logits"):
        LPDistiller(dense((8,)), dense((8,)), student_layer="logit")
    loss = LocalityPreserving(student_layer_name="fetures")
    with pytest.raises(ValueError, match="no layer 'fetures'.*Did you mean: features"):
        LPDistiller(dense((8,)), dense((8,)), distillation_losses=loss)


def test_a_feature_layer_without_a_batch_axis():
    class Total(layers.Layer):
        def call(self, inputs):
            return keras.ops.sum(inputs, axis=0)

        def compute_output_shape(self, input_shape):
            return input_shape[1:]

    inputs = keras.Input((8,))
    hidden = layers.Dense(4)(inputs)
    total = Total(name="total")(hidden)
    outputs = layers.Dense(3)(hidden) + keras.ops.sum(total)
    teacher = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="'total'.*without the batch axis"):
        LPDistiller(teacher, dense((8,)), teacher_layer="total")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4)
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_subclassed_model_needs_a_feature_function(role):
    models = {"teacher": dense((8,)), "student": dense((8,))}
    models[role] = Subclassed()
    models[role](np.ones((2, 8)))
    with pytest.raises(ValueError, match=r"subclassed.*teacher_features=.*callable"):
        LPDistiller(models["teacher"], models["student"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "`k` must be an integer of at least 1.*k=0"),
        ({"k": 2.0}, "`k` must be an integer"),
        ({"sigma": 0}, "`sigma` must be 'auto' or a positive number.*sigma=0"),
        ({"sigma": -1.0}, "`sigma`"),
        ({"sigma": float("nan")}, "`sigma`"),
        ({"gamma": -0.1}, "`gamma` must be a number of at least 0.*-0.1"),
        ({"gamma": float("nan")}, "`gamma`"),
        ({"gamma": "big"}, "`gamma`.*'big'"),
        ({"normalize": "max"}, "`normalize` must be None, 'l2' or 'spread'"),
        ({"pooling": "mean"}, "`pooling` must be None, 'avg' or 'max'"),
        ({"gamma": None}, "nothing to distil"),
        (
            {
                "distillation_losses": [keras.distillation.LogitsDistillation()],
                "distillation_loss_weights": [1.0, 2.0],
            },
            "one weight for each of the 1",
        ),
        (
            {
                "distillation_losses": [keras.distillation.LogitsDistillation()],
                "distillation_loss_weights": [-1.0],
            },
            "at least 0",
        ),
        (
            {"gamma": 0.7, "distillation_losses": LocalityPreserving()},
            "takes the place.*distillation_loss_weights.*gamma=0.7",
        ),
        (
            {"k": 17, "distillation_losses": LocalityPreserving()},
            "takes the place.*'k': 17",
        ),
        (
            {
                "k": 0,
                "gamma": None,
                "distillation_losses": keras.distillation.LogitsDistillation(),
            },
            "`k` must be",
        ),
    ],
)
def test_numbers_and_names_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LPDistiller(dense((8,)), dense((8,)), **options)


def test_what_is_no_distillation_loss():
    with pytest.raises(TypeError, match=r"DistillationLoss.*Received: 'mse'"):
        LPDistiller(dense((8,)), dense((8,)), distillation_losses="mse")


def test_outputs_that_a_loss_can_not_compare():
    inputs = keras.Input((8,))
    teacher = keras.Model(inputs, layers.Dense(7)(layers.Dense(9)(inputs)))
    LPDistiller(teacher, dense((8,)))  # other classes are no matter to LP
    with pytest.raises(ValueError, match=r"compares the outputs.*\(None, 7\)"):
        LPDistiller(
            teacher,
            dense((8,)),
            distillation_losses=keras.distillation.LogitsDistillation(),
        )


def test_a_softmax_beside_logits_distillation_is_warned_of():
    student = make_student(activation="softmax")
    with pytest.warns(UserWarning, match="expects logits, but model 'student' ends"):
        LPDistiller(
            make_teacher(),
            student,
            distillation_losses=keras.distillation.LogitsDistillation(),
        )


def test_logits_distillation_that_takes_no_softmax_is_warned_of():
    raw = keras.distillation.LogitsDistillation(temperature=3.0)
    with pytest.warns(UserWarning, match=r"logits themselves.*KLDivergence\(\)"):
        LPDistiller(make_teacher(), make_student(), distillation_losses=raw)


def test_what_the_warning_advises_is_hintons_loss_and_not_warned_of(recwarn):
    advised = keras.distillation.LogitsDistillation(
        temperature=3.0, loss=keras.losses.KLDivergence()
    )
    LPDistiller(make_teacher(), make_student(), distillation_losses=advised)
    assert not [one for one in recwarn if "LogitsDistillation" in str(one.message)]

    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 16, 5))
    p, q = (np.exp(side / 3.0) for side in (teacher, student))
    p, q = (side / side.sum(axis=1, keepdims=True) for side in (p, q))
    expected = 9.0 * np.mean(np.sum(p * np.log(p / q), axis=1))
    np.testing.assert_allclose(
        advised.compute_loss(teacher, student), expected, rtol=1e-5
    )


def linear_teacher():
    """Hands on the NaN that it gets."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, name="features"),
            layers.Dense(3),
        ],
        name="linear",
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_broken_teacher_weights_are_named_before_the_first_step(data, jit_compile):
    """A ReLU may hide them: on CPUs it makes 0 of NaN."""
    teacher, student = make_teacher(), make_student()
    teacher.layers[1].kernel.assign(teacher.layers[1].kernel * np.nan)
    before = student.get_weights()
    distiller = LPDistiller(teacher, student)
    distiller.compile("adam", cross_entropy(), jit_compile=jit_compile)
    with pytest.raises(ValueError, match="'teacher' has NaN.*in its weights.*kernel"):
        distiller.fit(*data, verbose=0)
    assert same(before, student.get_weights())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_teacher_features_are_named_before_the_first_step(data, value):
    x, y = data
    x = np.where(np.arange(96)[:, None] == 7, value, x)
    teacher, student = linear_teacher(), make_student()
    before = student.get_weights()
    distiller = LPDistiller(teacher, student)
    with pytest.raises(
        ValueError, match="teacher's features have NaN.*'features' of model 'linear'"
    ):
        distiller.fit(x, y, batch_size=96, verbose=0)
    assert same(before, student.get_weights())


def test_broken_teacher_features_are_named_under_xla_too(data):
    """XLA drops checks inside a step: there it is seen after the first."""
    x, y = data
    x = np.where(np.arange(96)[:, None] == 7, np.nan, x)
    distiller = LPDistiller(linear_teacher(), make_student())
    distiller.compile("adam", cross_entropy(), jit_compile=True)
    with pytest.raises(ValueError, match="`lp_loss` is nan at the first batch"):
        distiller.fit(x, y, batch_size=96, verbose=0)


def test_a_student_with_nothing_to_train(data, teacher, student):
    student.trainable = False
    with pytest.raises(ValueError, match="no trainable weights"):
        LPDistiller(teacher, student).fit(*data, verbose=0)


def test_fit_without_a_teacher(data, student):
    distiller = LPDistiller(None, student)
    with pytest.raises(ValueError, match=r"needs a teacher.*set_teacher"):
        distiller.fit(*data, verbose=0)
    distiller.compile("adam", cross_entropy())
    with pytest.raises(ValueError, match=r"needs a teacher.*set_teacher"):
        distiller.train_on_batch(*data)


def test_evaluation_without_labels(data, teacher, student):
    distiller = LPDistiller(teacher, student)
    distiller.compile("adam", cross_entropy())
    with pytest.raises(ValueError, match="needs labels"):
        distiller.evaluate(data[0], verbose=0)


def test_two_outputs_need_a_compile(data):
    def model(width):
        inputs = keras.Input((8,))
        hidden = layers.Dense(width, name="hidden")(inputs)
        return keras.Model(inputs, [layers.Dense(3)(hidden), layers.Dense(2)(hidden)])

    distiller = LPDistiller(
        model(9), model(4), teacher_layer="hidden", student_layer="hidden"
    )
    with pytest.raises(ValueError, match="one output.*has 2.*compile"):
        distiller.fit(data[0], [data[1], data[1]], verbose=0)


def test_gamma_can_not_be_changed_without_effect(teacher, student):
    distiller = LPDistiller(teacher, student, gamma=0.2)
    assert distiller.gamma == 0.2
    with pytest.raises(AttributeError):
        distiller.gamma = 0.0
