"""How much of the neighbourhoods is left when a teacher cache is projected.

    python benchmarks/projection.py --out runs/projection

Trains two teachers on Fashion-MNIST (or on `--dataset digits`), whose feature
layers are 128 and 2,048 wide, and builds a cache of the first 10,000 training
images for each way to keep the features: as they are, in half and in single
precision, and projected by PCA and by Gaussian random projection to 64, 128 and
256 dimensions.

The share of kept neighbours is that of a sample's 5 nearest in its batch of 128,
by the exact features, which are also among its 5 nearest by what the cache gives
back; over all batches of a shuffled pass. Random neighbours would keep 5/127.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from keras_lpd import TeacherCache, locality_preserving_loss
from keras_lpd.datasets import Arrays, load_arrays
from keras_lpd.models import cnn_teacher
from keras_lpd.neighbors import nearest_neighbors

SAMPLES, BATCH, K = 10_000, 128, 5
WIDTHS = (128, 2048)
WAYS: list[dict] = [
    {"dtype": "float32"},
    {"dtype": "float16"},
    *(
        {"project": dimensions, "projection": name}
        for name in ("pca", "gaussian")
        for dimensions in (64, 128, 256)
    ),
]


def teacher_of(width: int, data: Arrays, folder: pathlib.Path) -> keras.Model:
    """`cnn_teacher` with a feature layer of that width, trained for 3 epochs."""
    file = folder / f"teacher_{width}.keras"
    if not file.exists():
        keras.utils.set_random_seed(0)
        layers = []
        shape = data.x_train.shape[1:]
        for layer in cnn_teacher(shape).layers:
            config = layer.get_config()
            if layer.name == "features":
                config["units"] = width
            layers.append(type(layer).from_config(config))
        model = keras.Sequential([keras.Input(shape), *layers])
        model.compile(
            keras.optimizers.Adam(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(data.x_train, data.y_train, 128, epochs=3, verbose=2)
        accuracy = model.evaluate(data.x_test, data.y_test, verbose=0)[1]
        print(f"Teacher {width} wide: {accuracy:.2%} on the test split.")
        model.save(file)
    return keras.models.load_model(file)


def kept_neighbors(exact: np.ndarray, stored: np.ndarray) -> tuple[float, float]:
    """Share of neighbours kept, and how far LP is off, as means over the batches."""
    order = np.random.default_rng(0).permutation(len(exact))
    students = np.random.default_rng(1).normal(size=(len(exact), 32)).astype("float32")
    shares, errors = [], []
    for rows in np.split(order, range(BATCH, len(order), BATCH)):
        if len(rows) < BATCH:
            continue
        before, after = (
            np.asarray(nearest_neighbors(features[rows].astype("float32"), K)[1])
            for features in (exact, stored)
        )
        shares += [len(set(a) & set(b)) / K for a, b in zip(before, after)]
        loss, other = (
            float(locality_preserving_loss(features[rows], students[rows], K))
            for features in (exact, stored)
        )
        errors.append(abs(other / loss - 1))
    return float(np.mean(shares)), float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--dataset", default="fashion_mnist", help="fashion_mnist or digits")
    add("--out", default="runs/projection", help="folder of the results")
    options = parser.parse_args()
    folder = pathlib.Path(options.out, options.dataset)
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("keras_lpd").setLevel(logging.WARNING)
    data = load_arrays(options.dataset)
    samples = tf.data.Dataset.from_tensor_slices(
        (data.x_train[:SAMPLES], data.y_train[:SAMPLES])
    )
    found = []
    print(
        "| features | kept as | 5 neighbours kept | LP off by | bytes a sample |",
        end="",
    )
    print(" folder | build |\n|---|---|---|---|---|---|---|")
    for width in WIDTHS:
        teacher = teacher_of(width, data, folder)
        exact = None
        for way in WAYS:
            if way.get("project", 0) >= width:
                continue
            path = folder / "cache"
            shutil.rmtree(path, ignore_errors=True)
            start = time.perf_counter()
            cache = TeacherCache.build(teacher, samples, path, verbose=0, **way)
            seconds = time.perf_counter() - start
            stored = np.array(cache["features"])
            if exact is None:
                exact = stored
            share, error = kept_neighbors(exact, stored)
            name = " ".join(map(str, way.values()))
            print(
                f"| {width} | {name} | {share:.2%} | {error:.1e} "
                f"| {stored[0].nbytes:,} | {cache.nbytes / 1e6:.2f} MB "
                f"| {seconds:.1f} s |",
                flush=True,
            )
            found.append(
                {"width": width, **way, "kept": share, "lp_error": error}
                | {"bytes": stored[0].nbytes, "folder": cache.nbytes, "s": seconds}
            )
    (folder / "projection.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
