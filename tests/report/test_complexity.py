import dataclasses
import json
import math

import keras
import pytest
from keras import layers

from keras_lpd import LPDistiller
from keras_lpd.losses import (
    AttentionTransfer,
    CorrelationCongruence,
    FeatureLoss,
    Hint,
    LocalityPreserving,
    NeighborProbability,
    ProbabilisticTransfer,
    RelationalKnowledge,
)
from keras_lpd.models import cnn_student, cnn_teacher
from keras_lpd.report import METHODS, complexity, multiplications

PAIRS = {
    "vectors": ((11,), (5,)),
    "wider student": ((6,), (9,)),
    "equal maps": ((6, 6, 7), (6, 6, 3)),
    "larger student maps": ((7, 7, 5), (8, 8, 3)),
    "oblong maps": ((4, 3, 11), (5, 9, 2)),
    "oblong maps, one size in common": ((4, 3, 3), (4, 6, 5)),
    "oblong maps, halved": ((2, 3, 4), (4, 6, 3)),
    "smaller student maps": ((8, 6, 4), (4, 5, 6)),
    "map and vector": ((4, 4, 3), (7,)),
    "vector and sequence": ((9,), (4, 3)),
}
VARIANTS = [
    Hint(),
    RelationalKnowledge(angle_weight=0),
    RelationalKnowledge(distance_weight=0),
    CorrelationCongruence(order=4),
    LocalityPreserving(k=3, normalize="l2", pooling="avg"),
    LocalityPreserving(sigma=2.0, normalize="spread"),
    NeighborProbability(k=4, pooling="max"),
]


@pytest.fixture
def models():
    keras.utils.clear_session(free_memory=False)
    return cnn_teacher((8, 8, 1)), cnn_student((8, 8, 1))


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def built(loss, teacher_shape, student_shape):
    """A loss of its own, with its regressor, if it has one."""
    loss = type(loss).from_config(loss.get_config())
    loss.build((None, *teacher_shape), (None, *student_shape))
    return loss


def variables(loss):
    owned = getattr(loss, "layers", [])
    return [v for layer in owned for v in layer.trainable_weights]


def row_of(method, *pair, **arguments):
    """The row between two shapes."""
    (row,) = complexity(None, None, [pair], methods=[method], **arguments).rows
    return row


# Formulas against what is there


@pytest.mark.parametrize("batch_size", [1, 2, 7, 128])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_formulas_equal_the_built_losses(pair, batch_size):
    losses = [*METHODS.values(), *VARIANTS]
    for loss in losses:
        try:
            row = row_of(loss, *pair, batch_size=batch_size)
        except ValueError as error:
            assert "None of the methods" in str(error)
            with pytest.raises(ValueError):
                own = built(loss, *pair)
                multiplications(own.compute_loss, *((batch_size, *s) for s in pair))
            continue
        own = built(loss, *pair)
        counted = multiplications(own.compute_loss, *((batch_size, *s) for s in pair))
        assert [row.teacher_macs, row.student_macs] == counted, loss.name
        assert row.parameters == sum(math.prod(v.shape) for v in variables(own))
        assert row.macs == row.macs_per_sample * batch_size


def test_channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        pair = (5, 7, 7), (3, 8, 9)
        losses = METHODS["AT"], METHODS["hint (convolutional)"], VARIANTS[4]
        for loss in losses:
            row, own = row_of(loss, *pair, batch_size=6), built(loss, *pair)
            counted = multiplications(own.compute_loss, (6, *pair[0]), (6, *pair[1]))
            assert [row.teacher_macs, row.student_macs] == counted
            assert row.parameters == sum(math.prod(v.shape) for v in variables(own))
    finally:
        keras.config.set_image_data_format(before)


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


# Numbers by hand


def test_by_hand():
    # Three samples, a teacher 4 wide, a student 2 wide.
    rows = complexity(None, None, [((4,), (2,))], batch_size=3).rows
    assert {row.method: (row.teacher_macs, row.student_macs) for row in rows} == {
        # 3 samples: 4 products of 2, 4 squares.
        "hint (dense)": (0, 3 * (4 * 2 + 4)),
        # 3x3 products of 4 or 2; squares and scaling of 3x3; squares of differences.
        "SP": (36 + 18, 18 + 18 + 9),
        # Distances: 3x3 products of 4 or 2, 3 times 3x4 or 3x2; Huber: 2 times 3x3.
        # Angles: 3x3 products, distances, 2 times 3x3x3; Huber: 2 times 3x3x3.
        "RKD": (72 + 36 + 72 + 54, 36 + 18 + 18 + 36 + 54 + 54),
        # Squares and scaling of 3x4 or 3x2, 3x3 products; 3x3 times logarithms.
        "PKT": (24 + 36, 12 + 18 + 9),
        # As before; 5 times 3x3 for the series; squares of differences.
        "CC": (24 + 36 + 45, 12 + 18 + 45 + 9),
        # Distances, squares for 3x2 neighbours; squares for them, and their weights.
        "LP": (72 + 24, 12 + 6),
        # The same; squares and scaling of 3x2, 3x3 products, 3x2 probabilities.
        "neighbour probability": (72 + 24, 12 + 18 + 6),
    }


def test_attention_by_hand():
    row = row_of("AT", (2, 2, 3), (4, 4, 5), batch_size=1)
    # Squares; 2x2 times 2x2 twice; squares and scaling.
    assert row.teacher_macs == 12 + 8 + 8 + 8
    # Squares; 2x4 times 4x4, 2x4 times 4x2; squares and scaling; the comparison.
    assert row.student_macs == 80 + 32 + 16 + 8 + 4


def test_hints_have_the_papers_parameters():
    teacher, student = (7, 6, 19), (8, 8, 5)
    dense = row_of("hint (dense)", teacher, student)
    assert dense.parameters == (8 * 8 * 5) * (7 * 6 * 19) + 7 * 6 * 19
    convolutional = row_of("hint (convolutional)", teacher, student)
    k1, k2 = 8 - 7 + 1, 8 - 6 + 1
    assert convolutional.parameters == k1 * k2 * 5 * 19 + 19
    assert convolutional.bytes == 3 * 4 * convolutional.parameters


def test_locality_preserving_has_no_parameters_but_its_multiplications():
    row = row_of("LP", (500,), (500,))
    assert (row.parameters, row.bytes) == (0, 0)
    assert row.macs_per_sample == (128 + 3 + 5) * 500 + 5 * 500 + 5


# The count of the graph


def test_multiplications_of_a_model():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same"),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(5),
        ]
    )
    convolution, depthwise, dense = 64 * 9 * 3 * 4, 16 * 9 * 4, 64 * 5
    counted = multiplications(model, (2, 8, 8, 3))
    assert counted == [2 * (convolution + depthwise + dense)]


def test_multiplications_by_input():
    def function(x, y):
        return keras.ops.einsum("ab,cb->ac", x * x, y), keras.ops.transpose(x) @ x

    assert multiplications(function, (2, 3), (5, 3)) == [6 + 3 * 2 * 3, 2 * 3 * 5]


def test_multiplications_that_cannot_be_counted():
    def loop(x):
        return keras.ops.while_loop(lambda x: x[0] < 1, lambda x: (x * x,), (x,))

    with pytest.raises(ValueError, match="can't be counted"):
        multiplications(loop, (3,))
    with pytest.raises(ValueError, match="not all known"):
        multiplications(lambda x: x * x, (None, 3))


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
