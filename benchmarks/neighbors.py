"""Times the locality preserving loss against the matrix product it can't do without.

    python benchmarks/neighbors.py --json neighbors.json
    python benchmarks/neighbors.py --backend jax

For batches of m samples, teacher features of width 2,048 and student features
of width 256, all float32:

    product   one product of an m x 2,048 by a 2,048 x m matrix, the floor
    LP        the loss and its gradient by the student's features

The two take turns on the same inputs, and the ratio is taken within each round.
The median is given, and where 80 % of the rounds lie. Memory is what a fresh
process needs for one LP at its peak, besides the inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timing
from timing import cell, summary

SIZES = [2**power for power in range(6, 14)]
TEACHER_WIDTH, STUDENT_WIDTH = 2048, 256
AIM, AIM_SIZE = 3.0, 1024
"""How many products LP may cost at most, and at which batch size."""

TURN = 0.05
"""Seconds that a turn takes at least."""


def compiled(backend: str, size: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The two contenders at one batch size, compiled, with their inputs on board."""
    import keras

    from keras_lpd.losses import locality_preserving_loss

    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((size, TEACHER_WIDTH), "float32")
    student = rng.standard_normal((size, STUDENT_WIDTH), "float32")
    teacher, student = map(keras.ops.convert_to_tensor, (teacher, student))
    transposed = keras.ops.transpose(teacher)

    if backend == "jax":
        import jax

        term = jax.value_and_grad(locality_preserving_loss, argnums=1)
        lp = jax.jit(term).lower(teacher, student).compile()
        product = jax.jit(jax.numpy.matmul).lower(teacher, transposed).compile()
    else:
        import tensorflow as tf

        def term(teacher, student):
            with tf.GradientTape() as tape:
                tape.watch(student)
                loss = locality_preserving_loss(teacher, student)
            return loss, tape.gradient(loss, student)

        lp = tf.function(term).get_concrete_function(teacher, student)
        product = tf.function(tf.matmul).get_concrete_function(teacher, transposed)
    return lambda: product(teacher, transposed), lambda: lp(teacher, student)


def seconds(function: Callable[[], Any], times: int) -> float:
    """Time of a call, the mean over several."""
    import keras

    start = time.perf_counter()
    for _ in range(times):
        result = function()
    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(result)
    else:
        import tensorflow as tf

        tf.test.experimental.sync_devices()
    return (time.perf_counter() - start) / times


def take_turns(backend: str, size: int, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of the product and of LP, each an array over the rounds."""
    contenders = compiled(backend, size)
    for function in contenders:
        seconds(function, 2)
    lengths = [int(TURN / seconds(function, 1)) + 1 for function in contenders]
    times = [
        [seconds(function, length) for function, length in zip(contenders, lengths)]
        for _ in range(rounds)
    ]
    product, lp = 1000 * np.array(times).T
    return product, lp


def peak(backend: str, size: int) -> float:
    """Megabytes that one LP takes at its peak, besides the inputs."""
    for function in compiled(backend, SIZES[0]):
        seconds(function, 2)  # Loads kernels, starts threads.
    _, lp = compiled(backend, size)
    if not on_accelerator(backend):
        return timing.peak(lambda: seconds(lp, 1))
    before, _ = accelerator_memory(backend)
    seconds(lp, 1)
    return (accelerator_memory(backend)[1] - before) / 1e6


def on_accelerator(backend: str) -> bool:
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def accelerator_memory(backend: str) -> tuple[int, int]:
    """Bytes in use now, and the most there ever were."""
    if backend == "jax":
        import jax

        stats = jax.devices()[0].memory_stats()
        return stats["bytes_in_use"], stats["peak_bytes_in_use"]
    import tensorflow as tf

    stats = tf.config.experimental.get_memory_info("GPU:0")
    return stats["current"], stats["peak"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backend", choices=["tensorflow", "jax"], default="tensorflow"
    )
    parser.add_argument("--rounds", type=int, default=20, help="default: 20")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="default: 64 to 8192"
    )
    parser.add_argument("--json", type=pathlib.Path, help="file for the figures")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = options.backend  # Before Keras is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.peak:
        print(peak(options.backend, options.peak))
        return

    alone = ("--backend", options.backend, "--peak")
    peaks = {
        size: timing.in_fresh_process(__file__, *alone, size) for size in options.sizes
    }
    print("| m | product, ms | LP, ms | ratio | peak, MB |\n|---|---|---|---|---|")
    found, aims = [], []
    for size in options.sizes:
        product, lp = take_turns(options.backend, size, options.rounds)
        row = {
            "product_ms": summary(product),
            "lp_ms": summary(lp),
            "ratio": summary(lp / product),
        }
        cells = " | ".join(map(cell, row.values()))
        print(f"| {size:,} | {cells} | {peaks[size]:.3g} |", flush=True)
        found.append({"m": size, **row, "peak_mb": peaks[size]})
        if size == AIM_SIZE:
            verdict = "met" if row["ratio"]["median"] <= AIM else "**not met**"
            aims.append(f"at most {AIM:g} products at m = {size:,}: {verdict}")
    for aim in aims:
        print(f"\nAim: {aim}.")
    if options.json:
        facts = {"backend": options.backend, "rounds": options.rounds, "sizes": found}
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
