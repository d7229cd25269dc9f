import numpy as np
import pytest

from keras_lpd.arguments import as_integer, as_positive


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_any_type_become_ints(value):
    found = as_integer("k", value, least=3)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize("value", [2, -1, True, 3.0, "3", None, float("nan")])
def test_other_values_are_no_integers_of_at_least_3(value):
    with pytest.raises(ValueError, match="`k` must be an integer of at least 3.*k="):
        as_integer("k", value, least=3)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2.0)])
def test_numbers_of_any_type_become_floats(value):
    found = as_positive("temperature", value)
    assert type(found) is float
    assert found == 2.0


@pytest.mark.parametrize(
    "value", [0, -1.0, True, "2", None, float("nan"), float("inf"), 1j]
)
def test_other_values_are_no_positive_numbers(value):
    with pytest.raises(ValueError, match="`width` must be a positive number.*width="):
        as_positive("width", value)
