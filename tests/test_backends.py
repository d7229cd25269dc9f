"""What runs on JAX gives there what it gives on TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.other_backend import (
    NORMALIZE,
    OTHERS,
    compute,
    compute_others,
    hint_with_a_regressor,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)

NEIGHBORS = ["squared", "kernel_auto", "kernel", "vectors", "squared_few"]


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    arrays = {
        "teacher": rng.normal(size=(16, 20)),
        "student": rng.normal(size=(16, 7)),
        "maps": rng.normal(size=(16, 3, 4, 5)),
        "x": rng.normal(size=(24, 6)),
    }
    arrays["teacher"][5] = arrays["teacher"][4]
    arrays = {name: array.astype("float32") for name, array in arrays.items()}
    return {**arrays, "y": rng.integers(0, 3, 24)}


@pytest.fixture(scope="module")
def on_tensorflow(inputs):
    teacher, student, maps = (inputs[name] for name in ("teacher", "student", "maps"))
    return {
        **compute(teacher, student, maps),
        **compute_others({"teacher": teacher, "student": student, "maps": maps}),
        **hint_with_a_regressor(teacher, student),
    }


@pytest.fixture(scope="module")
def on_jax(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jax")
    np.savez(folder / "inputs.npz", **inputs)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.other_backend", "inputs.npz", "results.npz"]
    command[-2:] = [str(folder / name) for name in command[-2:]]
    done = subprocess.run(
        command,
        cwd=pathlib.Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "results.npz") as results:
        return dict(results)


def test_the_other_process_ran_on_jax(on_jax):
    assert on_jax["backend"] == "jax"


@pytest.mark.parametrize("name", NEIGHBORS)
def test_neighbors_agree(on_jax, on_tensorflow, name):
    assert on_jax[name].dtype == np.float32
    np.testing.assert_allclose(on_jax[name], on_tensorflow[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["indices", "indices_few"])
def test_neighbor_indices_agree(on_jax, on_tensorflow, name):
    assert on_jax[name].dtype == np.int32
    np.testing.assert_array_equal(on_jax[name], on_tensorflow[name])


def test_a_batch_of_one_has_no_neighbors_on_jax(on_jax):
    assert on_jax["squared_one"].shape == on_jax["indices_one"].shape == (1, 0)


@pytest.mark.parametrize("features", ["", "_maps"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_losses_and_gradients_agree(on_jax, on_tensorflow, normalize, features):
    loss, gradient = (f"{kind}_{normalize}{features}" for kind in ("loss", "gradient"))
    assert on_jax[loss] > 0.01
    assert on_jax[loss].dtype == np.float32
    np.testing.assert_allclose(on_jax[loss], on_tensorflow[loss], rtol=1e-5)
    np.testing.assert_allclose(
        on_jax[gradient], on_tensorflow[gradient], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_batch_of_one_gives_zero_on_jax(on_jax, normalize):
    assert on_jax[f"loss_{normalize}_one"] == 0
    np.testing.assert_array_equal(on_jax[f"gradient_{normalize}_one"], np.zeros((1, 7)))


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_jax_jit_changes_nothing(on_jax, normalize):
    for name in (f"loss_{normalize}", f"gradient_{normalize}", "squared"):
        np.testing.assert_allclose(
            on_jax[f"jitted_{name}"], on_jax[name], rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(on_jax["jitted_indices"], on_jax["indices"])


def check_same(gradient, expected):
    largest = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("name", [*OTHERS, "regressor"])
def test_the_other_losses_and_gradients_agree(on_jax, on_tensorflow, name):
    loss, gradient = f"loss_{name}", f"gradient_{name}"
    assert on_jax[loss] > 1e-4
    assert on_jax[loss].dtype == np.float32
    np.testing.assert_allclose(on_jax[loss], on_tensorflow[loss], rtol=1e-4)
    assert np.abs(on_jax[gradient]).max() > 1e-6
    check_same(on_jax[gradient], on_tensorflow[gradient])


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_losses_under_jax_jit(on_jax, name):
    np.testing.assert_allclose(
        on_jax[f"jitted_loss_{name}"], on_jax[f"loss_{name}"], rtol=1e-4
    )
    check_same(on_jax[f"jitted_gradient_{name}"], on_jax[f"gradient_{name}"])


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_losses_of_a_batch_of_one_on_jax(on_jax, name):
    loss = on_jax[f"jitted_loss_{name}_one"]
    if name in ("hint", "attention"):
        assert loss > 0
    else:
        np.testing.assert_allclose(loss, 0, atol=1e-9)
    assert np.isfinite(on_jax[f"jitted_gradient_{name}_one"]).all()


def test_the_stock_distiller_trains_on_jax(on_jax):
    losses = on_jax["fit_distillation_loss"]
    assert np.isfinite(losses).all()
    assert 0 < losses[1] < losses[0]
    assert np.abs(on_jax["fit_step"]).max() > 1e-4


def test_the_package_does_not_import_tensorflow_on_jax(on_jax):
    assert not on_jax["tensorflow_was_imported"]


def test_lp_distiller_says_that_it_needs_tensorflow(on_jax):
    message = str(on_jax["error"])
    assert "needs Keras on TensorFlow; here it runs on 'jax'" in message
    assert "KERAS_BACKEND=tensorflow" in message
    assert "keras.distillation.Distiller" in message
