"""The formulas, against the graphs of the losses and against numbers by hand."""

import math

import keras
import pytest

from keras_lpd.losses import (
    CorrelationCongruence,
    Hint,
    LocalityPreserving,
    NeighborProbability,
    RelationalKnowledge,
)
from keras_lpd.report import METHODS, complexity, multiplications
from tests.report.losses import built, row_of, variables

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
