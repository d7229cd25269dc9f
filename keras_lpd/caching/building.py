"""Builds the folder of a teacher cache, so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_lpd.beside import sync_folder
from keras_lpd.caching import row_files
from keras_lpd.caching.progress import progress
from keras_lpd.caching.recipe import Recipe
from keras_lpd.caching.row_files import ArrayFile, RowWriter
from keras_lpd.caching.sample_stream import AUGMENTED, ELEMENTS, SampleStream
from keras_lpd.features import output_activation
from keras_lpd.locks import only_process
from keras_lpd.log import logger
from keras_lpd.refusals import explaining
from keras_lpd.version import __version__

CHECKPOINT_SECONDS = 5.0
"""How much of a build an interruption may cost."""

MANIFEST = "manifest.json"
FORMAT = {"format": "keras-lpd teacher cache", "version": 1}

_SUMMARIZED = 32
_SUMMARY_ERROR = 0.02

Plan = dict[str, Any]
"""What makes a cache what it is, as JSON data."""


def plan_of(recipe: Recipe, samples: SampleStream) -> Plan:
    """Settings and fingerprints, and what a few samples' features are like."""
    with explaining():
        first, _ = next(iter(samples.inputs(_SUMMARIZED)))
    return {
        "asked": {**recipe.about, **samples.about},
        "features_are_like": recipe.summary(first),
    }


def differences(here: Plan, there: Plan) -> str:
    """In words, in what two caches differ."""
    words = {
        "teacher": "the teacher's weights or layers",
        "inputs": "the shapes or dtypes of the data",
        "augmented": "`augment`",
    }
    asked, other = here["asked"], there["asked"]
    found = [
        words.get(name, f"`{name}` ({other.get(name)!r} there, {asked[name]!r} here)")
        for name in asked
        if asked[name] != other.get(name)
    ]
    return ", ".join(found)


def features_alike(here: Plan, there: Plan) -> bool:
    """Whether features agree, as far as other machines' rounding lets them."""
    for key, (mean, square, step) in here["features_are_like"].items():
        other = np.array(there["features_are_like"][key])
        allowed = np.array([square**0.5, square, square]) * _SUMMARY_ERROR
        if (np.abs(other - (mean, square, step)) > allowed).any():
            return False
    return True


@contextlib.contextmanager
def only_builder(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from building the same cache at the same time."""
    lock = path.with_name(f"{path.name}.lock")
    busy = (
        f"Another process is building the teacher cache {path} just now. Wait until it "
        "is done and open that, or choose another path."
    )
    with only_process(lock, busy):
        try:
            yield
        finally:
            # While something is unfinished the file stays, for it is the lock of that.
            if not folder_for(path).exists():
                lock.unlink(missing_ok=True)


def folder_for(path: pathlib.Path) -> pathlib.Path:
    """Where the cache at `path` is, as long as it is unfinished."""
    return path.with_name(f"{path.name}.building")


def build(
    path: pathlib.Path,
    recipe: Recipe,
    samples: SampleStream,
    plan: Plan,
    batch: int,
    verbose: bool,
) -> None:
    """Builds beside `path`; the folder gets that name when all is in it."""
    folder = folder_for(path)
    writer = _begun(folder, plan)
    try:
        # Found here when the last build was cut off just before its very end.
        (folder / MANIFEST).unlink(missing_ok=True)
        writer.checkpoint()
        # As it was when the build began, perhaps on a machine that rounds in another
        # way: the files have their names from it.
        plan = {name: writer.about[name] for name in plan}
        features, fingerprints = _file_names(recipe.keys, plan)
        with explaining():
            _prepare_projections(writer, recipe, samples, batch)
            _write_rows(writer, recipe, samples, features, fingerprints, batch, verbose)
        files = writer.finish()
    finally:
        writer.close()
        if not writer.rows:
            shutil.rmtree(folder)
    manifest = {
        **_manifest(recipe, plan, writer.rows),
        "features": _entries(features, files),
        "fingerprints": _entries(fingerprints, files),
    }
    row_files.write_sealed(folder / MANIFEST, manifest)
    if path.exists():
        path.rmdir()
    folder.rename(path)
    sync_folder(path.parent)
    for leftover in (row_files.PROGRESS, *recipe.files):
        (path / leftover).unlink(missing_ok=True)


def _begun(folder: pathlib.Path, plan: Plan) -> RowWriter:
    """The writer of a new folder, or of one in which the same build was begun."""
    writer = RowWriter(folder, plan)
    if different := differences(plan, writer.about):
        problem = (
            f"It differs in {different}. Build with its settings to finish it, or "
            "delete that folder."
        )
    elif not features_alike(plan, writer.about):
        problem = (
            "The first samples differ, or what the teacher makes of them. Delete that "
            "folder to begin again."
        )
    else:
        return writer
    writer.close()
    raise FileExistsError(f"{folder} is an unfinished cache. {problem}")


def _manifest(recipe: Recipe, plan: Plan, rows: int) -> dict[str, Any]:
    """What a cache tells of itself, beside its files."""
    return {
        **FORMAT,
        "written_by": f"keras-lpd {__version__}",
        **plan,
        "count": rows // plan["asked"]["views"],
        "teacher_name": recipe.teacher.name,
        "output_activation": output_activation(recipe.teacher),
        "feature_layer": recipe.feature_layer,
        "mark": recipe.mark,
    }


def _entries(names: dict[str, str], files: dict[str, ArrayFile]) -> dict[str, Any]:
    """The files of those names, as JSON data, as far as there are such."""
    return {
        key: dataclasses.asdict(files[name])
        for key, name in names.items()
        if name in files
    }


def _prepare_projections(
    writer: RowWriter, recipe: Recipe, samples: SampleStream, batch: int
) -> None:
    """The projections, which must be the same ones for all rows."""
    recipe.fit_projections(writer.folder, lambda n: samples.spread(n, batch))
    if writer.rows and writer.about["projection_mark"] != recipe.mark.projection:
        raise ValueError(
            f"The projection of the unfinished cache {writer.folder} was lost or "
            "altered. Delete that folder, and begin again."
        )
    writer.about = {**writer.about, "projection_mark": recipe.mark.projection}
    writer.checkpoint()


def _write_rows(
    writer: RowWriter,
    recipe: Recipe,
    samples: SampleStream,
    feature_files: dict[str, str],
    fingerprint_files: dict[str, str],
    batch: int,
    verbose: bool,
) -> None:
    """Appends what is missing, having compared the samples of what is there."""
    done, at = writer.rows, 0
    if done:
        logger.info("Going on with %s at row %s.", writer.folder, f"{done:,}")
    missing = samples.total and samples.total - done
    saved = time.monotonic()
    try:
        with progress(missing, "Running the teacher", verbose) as advance:
            for inputs, prints in samples.inputs(batch).prefetch(1):
                arrays = {
                    fingerprint_files[name]: one.numpy() for name, one in prints.items()
                }
                size = len(prints[ELEMENTS])
                known = min(max(done - at, 0), size)
                _compare_with_unfinished(writer, arrays, at, known)
                if known < size:
                    for key, rows in recipe.rows(inputs).items():
                        arrays[feature_files[key]] = rows
                    if missing and writer.rows == done:
                        _check_space(writer.folder, arrays, missing)
                    writer.append({name: one[known:] for name, one in arrays.items()})
                    advance(size - known)
                at += size
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    writer.checkpoint()
                    saved = time.monotonic()
    except KeyboardInterrupt:
        writer.checkpoint()
        raise
    if at < done:
        raise ValueError(
            f"The unfinished cache {writer.folder} has {done:,} rows already, but the "
            f"data set only gives {at:,}. Delete that folder, and begin again."
        )


def _compare_with_unfinished(
    writer: RowWriter, fingerprints: dict[str, np.ndarray], at: int, known: int
) -> None:
    for name, given in fingerprints.items():
        if known and (writer.read(name, at, at + known) != given[:known]).any():
            raise ValueError(
                f"The unfinished cache {writer.folder} was begun with other data, or "
                "in another order. Delete that folder to begin again."
            )


def _check_space(
    folder: pathlib.Path, arrays: dict[str, np.ndarray], rows: int
) -> None:
    """Refuses to begin what the disk has no room for."""
    needed = rows * sum(array[0].nbytes for array in arrays.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"The teacher cache needs {needed / 1e6:,.0f} MB more, and there are "
            f"{free / 1e6:,.0f} MB free. Use `project` or fewer `layers`, or a path "
            "on another disk",
            str(folder),
        )


def _file_names(
    keys: Sequence[str], plan: Plan
) -> tuple[dict[str, str], dict[str, str]]:
    """Names of files, without ending, by layer and by kind of fingerprint.

    Caches of other teachers, settings or data have other names, so that a pipeline
    that was attached to one never reads another that took its place.
    """
    mark = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
    features = {
        key: f"{index}-{re.sub('[^A-Za-z0-9_.]+', '-', key) or 'outputs'}-{mark}"
        for index, key in enumerate(keys)
    }
    return features, {name: f"{name}-{mark}" for name in (ELEMENTS, AUGMENTED)}
