"""Chooses the default `gamma` and `normalize` on Fashion-MNIST.

10,000 labelled training images, a student of 15,000 parameters. The settings
are compared on a validation split (3 seeds); what wins, and the controls, are
then scored on the test split (5 other seeds), at the last epoch each time.

    python benchmarks/choose_defaults.py --out runs/defaults

Every run leaves one JSON file, so that an interrupted comparison goes on where
it stopped. The teacher runs once: its features travel with the images.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from controls import FeatureSize, OwnNeighbors, RandomPairs

from keras_lpd import LocalityPreserving, LPDistiller
from keras_lpd.beside import write_json
from keras_lpd.datasets import load_arrays
from keras_lpd.features import OUTPUTS, FeatureExtractor
from keras_lpd.losses.feature_loss import FeatureLoss
from keras_lpd.models import cnn_student, cnn_teacher

LABELLED, EPOCHS, BATCH, RATE = 10_000, 15, 128, 3e-3
CHOICE_SEEDS, TEST_SEEDS = range(3), range(100, 105)


Method = tuple[Callable[[], FeatureLoss], float]

# A name for the table, what makes the loss, and the weights to try.
FAMILIES: list[tuple[str, Callable[[], FeatureLoss], tuple[float, ...]]] = [
    ("LP", LocalityPreserving, (0.01, 0.03, 0.05, 0.1, 0.2)),
    ("LP l2", lambda: LocalityPreserving(normalize="l2"), (0.03, 0.1, 0.3)),
    ("LP spread", lambda: LocalityPreserving(normalize="spread"), (0.03, 0.1, 0.3)),
    ("control: random pairs", RandomPairs, (0.03, 0.05, 0.1, 0.2)),
    ("control: own neighbours", OwnNeighbors, (0.03, 0.1)),
    ("control: feature size", FeatureSize, (0.01, 0.03)),
]
METHODS: dict[str, Method | None] = {"cross-entropy alone": None} | {
    f"{family}, {weight}": (loss, weight)
    for family, loss, weights in FAMILIES
    for weight in weights
}


def prepare(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Images, labels, and the teacher's features of the labelled images."""
    data = load_arrays("fashion_mnist")
    train = slice(0, LABELLED)
    validation = slice(50_000, 60_000)
    file = folder / "teacher_features.npy"
    if not file.exists():
        keras.utils.set_random_seed(0)
        teacher = cnn_teacher()
        teacher.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(1e-3, 391 * 8)
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        # The validation images stay unseen.
        teacher.fit(
            data.x_train[:50_000], data.y_train[:50_000], 128, epochs=8, verbose=2
        )
        scores = {
            "parameters": teacher.count_params(),
            "test": teacher.evaluate(data.x_test, data.y_test, verbose=0)[1],
        }
        (folder / "teacher.json").write_text(json.dumps(scores))
        features = FeatureExtractor(teacher, ["features"], outputs=False)
        batches = np.split(data.x_train[train], LABELLED // 500)
        taught = [features(batch, training=False)["features"] for batch in batches]
        np.save(folder / "part.npy", np.concatenate(taught))
        (folder / "part.npy").rename(file)
    return {
        "x": data.x_train[train],
        "y": data.y_train[train],
        "taught": np.load(file),
        "x_validation": data.x_train[validation],
        "y_validation": data.y_train[validation],
        "x_test": data.x_test,
        "y_test": data.y_test,
    }


def train(method: Method | None, seed: int, data: dict[str, np.ndarray]) -> dict:
    """Trains one student; gives its accuracies and the spread of its features."""
    keras.utils.set_random_seed(seed)
    student = cnn_student()
    student_pass = FeatureExtractor(student, ["features"])
    loss, weight = (LocalityPreserving(), 0.0) if method is None else method
    if method is not None:
        loss = loss()

    def student_features(model, inputs, training):
        results = student_pass(inputs["image"], training=training)
        return results["features"], results[OUTPUTS]

    # The features are there already: the teacher is an empty shell.
    image, taught = (
        keras.Input((28, 28, 1), name="image"),
        keras.Input((128,), name="taught"),
    )
    distiller = LPDistiller(
        keras.Model({"image": image, "taught": taught}, taught),
        student,
        gamma=None,
        distillation_losses=loss,
        distillation_loss_weights=weight,
        teacher_features=lambda model, inputs, training: (inputs["taught"], 0.0),
        student_features=student_features,
    )
    steps = EPOCHS * -(-LABELLED // BATCH)
    distiller.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    inputs = {"image": data["x"], "taught": data["taught"]}
    batches = (
        tf.data.Dataset.from_tensor_slices((inputs, data["y"]))
        .cache()
        .shuffle(LABELLED, seed=seed)
        .batch(BATCH)
        .prefetch(2)
    )
    history = distiller.fit(batches, epochs=EPOCHS, verbose=0).history
    scores = {"spread": history["feature_spread"][-1], "loss": history["loss"][-1]}
    for split in ("validation", "test"):
        logits = student.predict(data[f"x_{split}"], batch_size=1000, verbose=0)
        scores[split] = float(np.mean(logits.argmax(1) == data[f"y_{split}"]))
    return scores


def run(folder: pathlib.Path, name: str, seed: int, data) -> dict:
    slug = name.replace(" ", "_").replace(",", "").replace(":", "")
    file = folder / f"{slug}-{seed}.json"
    if not file.exists():
        start = time.time()
        scores = train(METHODS[name], seed, data)
        scores["seconds"] = time.time() - start
        write_json(file, scores)
    return json.loads(file.read_text())


def table(folder: pathlib.Path, names, seeds, split: str, data) -> tuple[str, dict]:
    lines = [
        f"| method | {split} accuracy | per seed | feature spread |",
        "|---|---|---|---|",
    ]
    means = {}
    for name in names:
        runs = [run(folder, name, seed, data) for seed in seeds]
        scores = [100 * one[split] for one in runs]
        means[name] = float(np.mean(scores))
        spread = np.mean([one["spread"] for one in runs])
        each = " ".join(f"{score:.2f}" for score in scores)
        lines.append(
            f"| {name} | {means[name]:.2f} ± {np.std(scores, ddof=1):.2f} | {each} "
            f"| {spread:.3g} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines), means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="runs/defaults", help="folder of the results")
    folder = pathlib.Path(parser.parse_args().out)
    folder.mkdir(parents=True, exist_ok=True)
    data = prepare(folder)

    chosen_on, means = table(folder, METHODS, CHOICE_SEEDS, "validation", data)
    best = [
        max((f"{family}, {weight}" for weight in weights), key=means.get)
        for family, _, weights in FAMILIES
    ]
    print("\nBest of each family on validation; scored on the test split:")
    scored_on, _ = table(
        folder, ["cross-entropy alone", *best], TEST_SEEDS, "test", data
    )
    teacher = (folder / "teacher.json").read_text()
    (folder / "results.md").write_text(
        f"Teacher: {teacher}\n\n"
        f"Validation, {len(CHOICE_SEEDS)} seeds:\n\n{chosen_on}\n\n"
        f"Test, {len(TEST_SEEDS)} other seeds:\n\n{scored_on}\n"
    )


if __name__ == "__main__":
    main()
