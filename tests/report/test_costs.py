"""`complexity`: its table, and what it refuses."""

import dataclasses
import json

import keras
import pytest
from keras import layers

from keras_lpd import LPDistiller
from keras_lpd.losses import (
    AttentionTransfer,
    FeatureLoss,
    Hint,
    ProbabilisticTransfer,
)
from keras_lpd.models import cnn_student, cnn_teacher
from keras_lpd.report import METHODS, complexity
from tests.report.losses import built, row_of, variables


@pytest.fixture
def models():
    keras.utils.clear_session(free_memory=False)
    return cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1))


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


# Parameters and their bytes


@pytest.mark.parametrize(
    "optimizer, copies",
    [
        ("adam", 3),
        ("sgd", 1),
        (keras.optimizers.SGD(momentum=0.9), 2),
        (keras.optimizers.Adam(amsgrad=True), 4),
    ],
)
def test_bytes_are_those_of_weights_and_slots(optimizer, copies):
    row = row_of("hint (dense)", (11,), (5,), optimizer=optimizer)
    assert row.bytes == 4 * row.parameters * copies

    weights = variables(built(Hint(), (11,), (5,)))
    own = keras.optimizers.get(optimizer)
    own = type(own).from_config(own.get_config())
    own.build(weights)
    held = [*weights, *(v for v in own.variables if len(v.shape))]
    assert row.bytes == sum(keras.ops.convert_to_numpy(v).nbytes for v in held)


def test_the_users_optimizer_is_left_alone():
    optimizer = keras.optimizers.Adam()
    row_of("hint (dense)", (11,), (5,), optimizer=optimizer)
    assert not optimizer.built


@pytest.mark.parametrize("name", METHODS)
def test_the_distiller_counts_the_same_parameters(models, name):
    loss = built(METHODS[name], (4, 4, 128), (4, 4, 24))
    loss.teacher_layer_name, loss.student_layer_name = "conv_4", "conv_2"
    distiller = LPDistiller(*models, gamma=None, distillation_losses=loss)
    (row,) = complexity(*models, [("conv_4", "conv_2")], methods=[name]).rows
    assert row.parameters == distiller.auxiliary_parameters()
    assert (row.parameters > 0) == name.startswith("hint")


# The table


def test_default_layers_and_methods(models):
    report = complexity(*models)
    assert {(row.teacher_layer, row.student_layer) for row in report.rows} == {
        ("features", "features")
    }
    by_shape = complexity(*models, [((128,), (32,))])
    assert [row.macs for row in report.rows] == [row.macs for row in by_shape.rows]
    # Vectors: neither attention nor convolutions.
    used = set(METHODS) - {"AT", "hint (convolutional)"}
    assert {row.method for row in report.rows} == used


def test_rows_come_pair_by_pair(models):
    pairs = [("conv_4", "conv_2"), ("features", "features"), ((3, 3, 2), "conv_2")]
    report = complexity(*models, pairs, methods=["LP", AttentionTransfer()])
    assert [(row.method, row.teacher_layer) for row in report.rows] == [
        ("LP", "conv_4"),
        ("attention", "conv_4"),
        ("LP", "features"),
        ("LP", "3x3x2"),
        ("attention", "3x3x2"),
    ]


def test_markdown_holds_the_same_numbers(models):
    report = complexity(*models, [("conv_4", "conv_2")], batch_size=32)
    header, rule, *lines = report.to_markdown().splitlines()
    assert header.count("|") == rule.count("|") == 9
    assert "bytes, Adam" in header
    found = []
    for line in lines:
        cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        found.append([*cells[:3], *map(int, cells[3:])])
    assert found == [
        [
            row.method,
            row.teacher_layer,
            row.student_layer,
            row.parameters,
            row.bytes,
            row.teacher_macs,
            row.student_macs,
            row.macs_per_sample,
        ]
        for row in report.rows
    ]


def test_text_html_and_json(models):
    report = complexity(*models, methods="LP", optimizer="sgd")
    header, line, note = str(report).splitlines()
    numbers = ["0", "0", "2,228,224", "21,120", "17,573"]
    assert line.split() == ["LP", "features", "features", *numbers]
    assert header.endswith("MACs a sample")
    assert "batch of 128" in note and "SGD" in note
    assert "<td>2,228,224</td>" in report._repr_html_()
    facts = json.loads(report.to_json())
    assert facts["batch_size"] == 128
    assert facts["optimizer"] == "SGD"
    assert facts["rows"] == [dataclasses.asdict(row) for row in report.rows]


# Refusals


def test_unknown_layers(models):
    with pytest.raises(ValueError, match="has no layer 'conv_9'.*conv_"):
        complexity(*models, [("conv_9", "conv_2")])


def test_subclassed_models(models):
    teacher = Subclassed(name="own")
    for pairs in (None, [("features", "features")]):
        with pytest.raises(ValueError, match="Functional.*'own'.*shapes of a sample"):
            complexity(teacher, models[1], pairs)
    (row,) = complexity(teacher, models[1], [((128,), "features")], methods="LP").rows
    assert row.macs_per_sample == 17573


def test_no_clear_feature_layer(models):
    inputs = keras.Input((4,))
    two = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError, match="2 outputs.*For `complexity`: pairs="):
        complexity(models[0], two)


def test_sizes_that_are_unknown(models):
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3)])
    layer = model.layers[0].name
    with pytest.raises(ValueError, match="sizes of the features must be known"):
        complexity(model, models[1], [(layer, "conv_2")])


def test_nothing_to_show(models):
    with pytest.raises(ValueError, match="None of the methods \\['AT'\\]"):
        complexity(*models, methods=["AT"])


@pytest.mark.parametrize("pairs", [("conv_4", "conv_2"), [("conv_4",)], "ab"])
def test_pairs_that_are_none(models, pairs):
    with pytest.raises(ValueError, match="must be a list of pairs"):
        complexity(*models, pairs)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, None])
def test_batch_sizes_that_are_none(models, batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        complexity(*models, batch_size=batch_size)


def test_unknown_methods(models):
    class Own(ProbabilisticTransfer):
        """May compute anything."""

    for method in ("KD", Own(), FeatureLoss()):
        with pytest.raises(ValueError, match="must be names among.*`multiplications`"):
            complexity(*models, methods=[method])
