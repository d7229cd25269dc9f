"""Small models and data for the distiller's tests."""

import numpy as np
import pytest

from tests.helpers import (  # noqa: F401  # for the files of this folder
    cross_entropy,
    make_student,
    make_teacher,
    same,
)


@pytest.fixture(scope="session")
def data():
    """Three classes of 8-wide vectors, a little apart: (x, y)."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 96)
    centers = 1.5 * random.normal(size=(3, 8))
    x = centers[y] + random.normal(size=(96, 8))
    return x.astype("float32"), y


@pytest.fixture
def teacher():
    return make_teacher()


@pytest.fixture
def student():
    return make_student()
