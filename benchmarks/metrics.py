"""Times the metrics of neighbourhoods against scikit-learn's trustworthiness.

    python benchmarks/metrics.py --json metrics.json

For n samples, a teacher's features 500 wide and a student's 32 wide, all float32:

    scikit-learn      its `trustworthiness`, k = 5, which holds matrices of n x n
    trustworthiness   ours, k = 5: the same value
    an epoch          what a callback computes again and again: the student's 10
                      nearest, overlap, trustworthiness, continuity, accuracy; the
                      teacher's neighbours are known

They take turns on the same inputs, and the ratios to scikit-learn are taken within
each round. The median is given, and where 80 % of the rounds lie. Memory is what a
fresh process needs for one call at its peak, besides the inputs (Linux only).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timing
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from timing import cell, summary

from keras_lpd import metrics

SIZES = [1000, 2000, 5000, 10_000]
TEACHER_WIDTH, STUDENT_WIDTH = 500, 32
SMALL = 100
"""How many samples load what is loaded at the first call."""

CONTENDERS = ("scikit-learn", "trustworthiness", "an epoch")


def contenders(size: int) -> dict[str, Callable[[], Any]]:
    """What is timed, at one size, with its inputs."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, size)
    hidden = random.normal(size=(size, 20)) + 2 * random.normal(size=(10, 20))[labels]
    teacher = hidden @ random.normal(size=(20, TEACHER_WIDTH))
    teacher += random.normal(size=teacher.shape)
    student = hidden @ random.normal(size=(20, STUDENT_WIDTH))
    student += 5 * random.normal(size=student.shape)
    teacher, student = teacher.astype("float32"), student.astype("float32")
    known = metrics.Neighborhoods.of(teacher, 10)

    def epoch() -> tuple[float, ...]:
        learned = metrics.Neighborhoods.of(student, 10)
        return (
            metrics.neighbor_overlap(known, learned, 10),
            metrics.trustworthiness(known, learned, 5),
            metrics.continuity(known, learned, 5),
            metrics.knn_accuracy(learned, labels, 10),
        )

    functions = (
        lambda: sklearn_trustworthiness(teacher, student, n_neighbors=5),
        lambda: metrics.trustworthiness(teacher, student, 5),
        epoch,
    )
    return dict(zip(CONTENDERS, functions))


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(size: int, rounds: int) -> np.ndarray:
    """Seconds of each contender, an array of shape `(contenders, rounds)`."""
    functions = contenders(size)
    one, other = (functions[name]() for name in CONTENDERS[:2])
    if abs(one - other) > 1e-6:
        raise ValueError(f"scikit-learn has {one}, and ours is {other}.")
    times = [
        [seconds(function) for function in functions.values()] for _ in range(rounds)
    ]
    return np.array(times).T


def peak(name: str, size: int) -> float:
    """Megabytes that one call takes at its peak, besides the inputs."""
    contenders(SMALL)[name]()
    return timing.peak(contenders(size)[name])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="default: 1000 to 10000"
    )
    parser.add_argument("--json", type=pathlib.Path, help="file for the figures")
    parser.add_argument("--peak", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak, options.sizes[0]))
        return

    print("| n | | seconds | ratio | peak, MB |\n|---|---|---|---|---|")
    found = []
    for size in options.sizes:
        peaks = {
            name: timing.in_fresh_process(__file__, "--peak", name, "--sizes", size)
            for name in CONTENDERS
            if timing.STATUS.exists()
        }
        times = take_turns(size, options.rounds)
        for name, own in zip(CONTENDERS, times):
            row = {"seconds": summary(own), "ratio": summary(own / times[0])}
            cells = " | ".join(map(cell, row.values()))
            megabytes = f"{peaks[name]:.3g}" if peaks else "?"
            print(f"| {size:,} | {name} | {cells} | {megabytes} |", flush=True)
            found.append({"n": size, "what": name, **row, "peak_mb": peaks.get(name)})
    if options.json:
        facts = {"rounds": options.rounds, "rows": found}
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
