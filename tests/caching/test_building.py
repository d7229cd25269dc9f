"""What a build makes, which builds are refused, and what is there already."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from keras_lpd import TeacherCache
from keras_lpd.features import OUTPUTS
from tests.caching.given import (
    COUNT,
    FEW,
    OTHERS,
    contents,
    dataset,
    digits,
    noisy,
    nothing_opens,
    quick_teacher,
    seen_by,
)
from tests.helpers import same


@pytest.mark.parametrize("batch_size", [7, 100])
def test_the_batches_of_the_build_do_not_matter(build, teacher, whole, batch_size):
    other = build(teacher, outputs=True, dtype="float32", batch_size=batch_size)
    assert same(contents(whole), contents(other))


def test_a_build_leaves_the_cache_alone_in_its_folder(teacher, build, tmp_path):
    (tmp_path / "cache").mkdir()  # Empty: as good as none.
    build(teacher, path=tmp_path / "cache")
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]
    suffixes = {file.suffix for file in (tmp_path / "cache").iterdir()}
    assert suffixes == {".npy", ".json"}


# Projections


def median_error(kept, exact):
    """Of the distances between samples, up to a common scale."""
    ratio = pdist(kept) / pdist(exact)
    return np.median(np.abs(ratio / np.median(ratio) - 1))


@pytest.mark.parametrize("projection", ["pca", "gaussian"])
def test_projections_keep_distances(build, teacher, exact, projection):
    outputs, exact = exact["logits"], exact["body/conv"].reshape(COUNT, -1)
    assert exact.shape[1] == 512
    cache = build(
        teacher,
        layers=["body/conv", "features"],
        outputs=True,
        project=24,
        projection=projection,
    )
    kept = cache["body/conv"]
    assert kept.shape == (COUNT, 24) == cache["features"][:, :24].shape
    assert cache[OUTPUTS].shape == (COUNT, 10)  # Outputs are as they were.
    np.testing.assert_allclose(cache[OUTPUTS], outputs, rtol=1e-3, atol=1e-3)
    error = median_error(kept, exact)
    assert error < 0.12
    # As many of the features would not do, let alone those of other samples.
    assert error < median_error(exact[:, :24], exact) / 2
    assert error < median_error(np.roll(kept, 1, axis=0), exact) / 2
    # Nor does the scale change, which absolute widths (`sigma`) depend on.
    ratio = pdist(kept).sum() / pdist(exact).sum()
    assert ratio == pytest.approx(1, abs=0.15)


# Builds that are refused


def test_what_is_refused_at_once_leaves_nothing(build, tmp_path):
    refused = {
        "`batch_size` must be": {"batch_size": 0},
        "don't fit teacher": {"data": dataset(digits()[0][:, :5])},
    }
    for said, arguments in refused.items():
        with pytest.raises(ValueError, match=said):
            build(quick_teacher(), path=tmp_path / "cache", **arguments)
        assert not list(tmp_path.iterdir())


def test_half_precision_is_refused_also_late(build, tmp_path):
    x = digits()[0].copy()
    x[300] *= 1e7
    with pytest.raises(ValueError, match="float16 ends at"):
        build(quick_teacher(), dataset(x), tmp_path / "cache", batch_size=32)
    assert nothing_opens(tmp_path / "cache")


# Building where there is something already


def test_the_same_build_again_does_not_run_the_teacher_again(build, teacher, whole):
    """But on a few samples, to know it."""
    before, files = seen_by(teacher), list(whole.path.iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    again = build(
        teacher, path=whole.path, outputs=True, dtype="float32", batch_size=32
    )
    assert again.path == whole.path and same(contents(again), contents(whole))
    assert seen_by(teacher) - before <= FEW
    assert times == [file.stat().st_mtime_ns for file in files]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float16"}, "`dtype`"),
        ({"outputs": False}, "`outputs`"),
        ({"layers": ["body/conv"]}, "`layers`"),
        ({"project": 8}, "`project`"),
        ({"augment": "noisy"}, "`augment`"),
        ({"augment": "noisy", "views": 2}, "`views`"),
        ({"teacher": "another"}, "the teacher's weights"),
        ({"data": "altered"}, "the data differ"),
        ({"data": "swapped"}, "the order differs"),
        ({"data": "fewer"}, "the count differs"),
        ({"data": "fewer, uncounted"}, "the count differs"),
        ({"data": "doubles"}, "dtypes"),
    ],
    ids=str,
)
def test_another_build_leaves_the_cache_as_it_is(build, teacher, whole, change, said):
    arguments = {"teacher": teacher, "outputs": True, "dtype": "float32", **change}
    if "teacher" in change:
        arguments["teacher"] = quick_teacher()
    if "augment" in change:
        arguments["augment"] = noisy
    if "data" in change:
        make, _ = OTHERS[change["data"]]
        arguments["data"] = make(digits()[0])
    before = [(file.name, file.read_bytes()) for file in whole.path.iterdir()]
    with pytest.raises((FileExistsError, ValueError), match=said):
        build(path=whole.path, **arguments)
    assert before == [(file.name, file.read_bytes()) for file in whole.path.iterdir()]
    TeacherCache.open(whole.path)
    assert not list(whole.path.parent.glob(f"{whole.path.name}.*"))


def test_another_seed_is_another_build(build, teacher, views):
    with pytest.raises(FileExistsError, match="`seed`"):
        build(
            teacher,
            dataset(*digits(70)),
            path=views.path,
            augment=noisy,
            views=3,
            seed=12,
            dtype="float32",
        )


def test_files_of_others_are_left_alone(build, teacher, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "cache.building").mkdir()
    (tmp_path / "cache.building" / "thesis.txt").write_text("mine")
    for name in ("folder", "file", "cache"):
        with pytest.raises(FileExistsError, match="path"):
            build(teacher, path=tmp_path / name)
    left = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert left - {tmp_path / "cache.lock"} == {
        tmp_path / "folder" / "thesis.txt",
        tmp_path / "file",
        tmp_path / "cache.building" / "thesis.txt",
    }
    assert all(file.read_text() == "mine" for file in left if file.suffix != ".lock")
