"""Small models and data for the distiller's tests."""

import pytest

from tests.helpers import (  # noqa: F401  # for the files of this folder
    cross_entropy,
    make_student,
    make_teacher,
    same,
    three_classes,
)


@pytest.fixture(scope="session")
def data():
    return three_classes()


@pytest.fixture
def teacher():
    return make_teacher()


@pytest.fixture
def student():
    return make_student()
