"""`TeacherCache`: what it keeps, hands out with the samples, and refuses."""

import functools
import json
import pathlib
import pickle
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lpd import LPDistiller, TeacherCache
from keras_lpd.caching import row_files
from keras_lpd.features import OUTPUTS
from tests.caching.given import (
    COUNT,
    OTHERS,
    contents,
    dataset,
    digits,
    features_of,
    flat_model,
    handed_out,
    in_fresh_process,
    in_order,
    noisy,
    nothing_opens,
    other_noise,
    plain_student,
    quick_teacher,
    shuffled,
    swapped,
    train_plainly,
    uncounted,
)
from tests.helpers import same

layers = keras.layers

# What is kept


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_arrays_are_what_the_layers_give(build, teacher, exact, dtype):
    names = ["body/conv", "features"]
    cache = build(teacher, layers=names, outputs=True, dtype=dtype, batch_size=50)
    for layer in (*names, "logits"):
        kept = cache[OUTPUTS if layer == "logits" else layer]
        expected = exact[layer]
        assert kept.dtype == dtype and kept.shape == expected.shape
        rounding = 1e-5 if dtype == "float32" else 1e-3
        np.testing.assert_allclose(kept, expected, rtol=rounding, atol=rounding)
        assert isinstance(kept, np.memmap) and not kept.flags.writeable


def test_a_cache_describes_itself(build, teacher):
    cache = build(teacher, layers=["body/conv", "features"], outputs=True)
    assert len(cache) == cache.count == COUNT and cache.views == 1
    assert cache.layers == ["body/conv", "features"] and cache.outputs
    assert cache.shape("body/conv") == (8, 8, 8) and cache.shape(OUTPUTS) == (10,)
    assert "features" in cache and "logits" not in cache
    files = list(cache.path.iterdir())
    assert cache.nbytes == sum(file.stat().st_size for file in files)
    features = COUNT * (8 * 8 * 8 + 32 + 10) * 2
    assert features < cache.nbytes < features + 16 * COUNT + 10_000
    for word in ("321 samples", "'body/conv'", "'features'", "outputs"):
        assert word in repr(cache)
    with pytest.raises(KeyError, match="'logits'"):
        cache["logits"]


def test_a_cache_may_be_moved(whole, teacher, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "elsewhere" / "with spaces")
    moved = TeacherCache.open(path)
    assert same(contents(whole), contents(moved))
    assert same(
        handed_out(whole.attach(dataset())), handed_out(moved.attach(dataset()))
    )


def test_features_follow_their_samples(whole, exact):
    x, _ = digits()
    expected = exact["features"]
    data = dataset(x, np.arange(COUNT))
    attached = whole.attach(data)
    assert len(attached) == COUNT
    changed = (
        attached.map(lambda x, y: ({**x, "inputs": 2 * x["inputs"]}, y))
        .repeat(2)
        .shuffle(200, seed=1)
        .batch(10)
        .filter(lambda x, y: y[0] > 20)
        .unbatch()
        .batch(6)
    )
    seen = []
    for x_batch, places in changed.as_numpy_iterator():
        (features,) = (x_batch[key] for key in x_batch if key != "inputs")
        assert np.array_equal(x_batch["inputs"], 2 * x[places])
        np.testing.assert_allclose(
            features["features"], expected[places], rtol=1e-5, atol=1e-5
        )
        seen += list(places)
    assert len(set(seen)) > 250 and seen != sorted(seen)


def test_attached_data_may_be_saved_and_cached(tmp_path, whole):
    attached = whole.attach(dataset())
    attached.save(str(tmp_path / "saved"))
    loaded = tf.data.Dataset.load(str(tmp_path / "saved"))
    for data in (loaded, attached.cache()):
        assert data.element_spec == attached.element_spec
        assert same(handed_out(attached), handed_out(data))


def test_labels_may_be_of_any_size(build):
    """Only the inputs concern the teacher: boxes in an image have no part in it."""
    x, _ = digits(40)

    def boxes():
        for index, image in enumerate(x):
            yield image, np.full((index % 3, 4), index)

    data = tf.data.Dataset.from_generator(
        boxes,
        output_signature=(
            tf.TensorSpec((8, 8, 1), tf.float32),
            tf.TensorSpec((None, 4), tf.int64),
        ),
    )
    teacher = quick_teacher()
    cache = build(teacher, data, dtype="float32", batch_size=16)
    given = list(cache.attach(data))
    assert [len(label) for _, label in given] == [index % 3 for index in range(40)]


def test_labels_may_change(whole):
    x, y = digits()
    before, after = whole.attach(dataset()), whole.attach(dataset(x, (y + 1) % 10))
    for (one, label), (other, changed) in zip(before, after):
        assert changed == (label + 1) % 10
        assert same(tf.nest.flatten(one), tf.nest.flatten(other))


# Views


def test_the_student_sees_the_views_that_the_teacher_saw(teacher, views):
    x, y = digits(70)
    attached = views.attach(dataset(x, y), augment=noisy)
    assert len(attached) == 210 and len(views) == 70 and views.views == 3
    assert "3 views" in repr(views)
    passes = []
    for data in (attached, attached.batch(9).unbatch()):
        elements, labels = zip(*data.as_numpy_iterator())
        assert np.array_equal(labels, np.tile(y, 3))
        inputs = np.stack([element["inputs"] for element in elements])
        key = next(key for key in elements[0] if key != "inputs")
        features = np.stack([element[key]["features"] for element in elements])
        passes.append((inputs, features))
    assert same(*passes)
    np.testing.assert_allclose(
        features, features_of(teacher, inputs), rtol=1e-5, atol=1e-5
    )
    first, second, third = np.split(inputs, 3)
    for one, other in ((first, x), (first, second), (second, third), (first, third)):
        assert (np.abs(one - other).max(axis=(1, 2, 3)) > 0.1).all()

    # Online distillation on the very same samples makes the same student.
    online = train_plainly(teacher, shuffled(dataset(inputs, np.array(labels))))
    assert same(online, train_plainly(views, shuffled(attached)))


def test_another_seed_gives_other_views(build, teacher, views):
    """Each of them, also where the seeds are neighbours."""
    data = dataset(*digits(70))
    other = build(teacher, data, augment=noisy, views=3, seed=11, dtype="float32")
    for theirs in np.split(other["features"], 3):
        for ours in np.split(views["features"], 3):
            assert (np.abs(ours - theirs).max(axis=1) > 1e-3).all()


def test_another_augmentation_is_refused(whole, views):
    data = dataset(*digits(70))
    with pytest.raises(ValueError, match="augmentation differs"):
        views.attach(data, augment=other_noise)
    with pytest.raises(ValueError, match="built with `augment`"):
        views.attach(data)
    with pytest.raises(ValueError, match="built without `augment`"):
        whole.attach(dataset(), augment=noisy)
    with pytest.raises(ValueError, match="count differs"):
        views.attach(dataset(*digits(69)), augment=noisy)
    with pytest.raises(ValueError, match="data differ"):
        views.attach(dataset(digits(70)[0] + 1), augment=noisy)
    unseen = views.attach(data, augment=other_noise, verify=False)
    with pytest.raises(ValueError, match="not the samples"):
        train_plainly(views, in_order(unseen))


# Other data are refused


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_are_refused(whole, name):
    make, said = OTHERS[name]
    with pytest.raises(ValueError, match=said):
        whole.attach(make(digits()[0]))


@pytest.mark.parametrize(
    ("kept", "served"),
    [
        *((321, served) for served in (1, 256, 320, 322, 768)),
        *((512, served) for served in (256, 511, 513, 768)),
    ],
)
def test_another_count_is_found_while_training(build, kept, served):
    """Where nobody told how many there are, with nothing verified beforehand."""
    x, y = digits(768)
    flat = functools.partial(dataset, x.reshape(-1, 64), y)
    cache = counted_cache(build, kept)
    attached = cache.attach(uncounted(flat().take(served)), verify=False)
    said = "more or fewer|not the samples|another count|expected to contain"
    with pytest.raises(tf.errors.OpError, match=said):
        list(attached.batch(64))
    # `fit` takes no more batches than it knows there are.
    if (kept, served) in ((512, 256), (321, 322)):
        with pytest.raises(ValueError, match=said):
            LPDistiller(cache, flat_model(4)).fit(attached.batch(64), verbose=0)
    with pytest.raises(ValueError, match="count differs"):
        cache.attach(uncounted(flat().take(served)))


@functools.cache
def counted_cache(build, kept):
    x, y = digits(768)
    keras.utils.set_random_seed(0)
    return build(flat_model(16), dataset(x.reshape(-1, 64), y).take(kept))


def test_a_data_set_that_does_not_tell_its_count_is_as_good(build, teacher, whole):
    cache = build(teacher, uncounted(dataset()), outputs=True, dtype="float32")
    assert cache.count == COUNT
    assert same(contents(whole), contents(cache))
    expected = handed_out(whole.attach(dataset()))
    for data in (dataset(), uncounted(dataset())):
        for verify in (True, False):
            attached = cache.attach(data, verify=verify)
            assert len(attached) == COUNT
            assert same(expected, handed_out(attached))


def shortened(x):
    return x[:300]


@pytest.mark.parametrize("change", [swapped, shortened])
def test_data_that_change_between_epochs_are_found(whole, change):
    x, y = digits()
    served = [x]

    def samples():
        yield from zip(served[-1], y)

    data = tf.data.Dataset.from_generator(
        samples,
        output_signature=(
            tf.TensorSpec((8, 8, 1), tf.float32),
            tf.TensorSpec((), y.dtype),
        ),
    )
    attached = whole.attach(data, verify=False)
    epochs = []

    def after(epoch, logs):
        epochs.append(logs["lp_loss"])
        served.append(change(x))

    then = keras.callbacks.LambdaCallback(on_epoch_end=after)
    distiller = LPDistiller(whole, plain_student())
    with pytest.raises(ValueError, match="not the samples|more or fewer|another count"):
        distiller.fit(in_order(attached), epochs=3, verbose=0, callbacks=then)
    assert len(epochs) == 1 and epochs[0] > 0


def test_data_shuffled_anew_each_epoch_are_found(build, whole, teacher):
    anew = dataset().shuffle(COUNT)
    with pytest.raises(ValueError, match="order, each time"):
        build(teacher, anew)
    with pytest.raises(ValueError, match="not the samples"):
        train_plainly(whole, in_order(whole.attach(anew, verify=False)))


# Damaged files are refused


@pytest.fixture
def own(whole, tmp_path):
    """A copy of that cache, to be damaged."""
    return TeacherCache.open(shutil.copytree(whole.path, tmp_path / "own"))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_single_altered_byte_is_found(own):
    """Anywhere in the arrays, their headers included."""
    arrays = sorted(own.path.glob("*.npy"))
    assert len(arrays) == 3
    for file in arrays:
        size = file.stat().st_size
        for at in (0, 9, 30, 255, 256, size // 2, size - 1):
            flip(file, at)
            with pytest.raises(ValueError, match=f"{file.name} was altered"):
                TeacherCache.open(own.path)
            flip(file, at)
    assert same(contents(TeacherCache.open(own.path)), contents(own))


def test_an_altered_manifest_is_found(own):
    manifest = own.path / "manifest.json"
    known = json.loads(manifest.read_text())
    for at in range(manifest.stat().st_size):
        flip(manifest, at)
        try:  # The last digit of a number need not make it another.
            harmless = json.loads(manifest.read_text()) == known
        except ValueError:
            harmless = False
        if not harmless:
            with pytest.raises(ValueError, match=r"manifest\.json"):
                TeacherCache.open(own.path, verify=False)
        flip(manifest, at)
    TeacherCache.open(own.path)

    known.pop("checksum")
    row_files.write_sealed(manifest, {**known, "version": 99})
    with pytest.raises(ValueError, match="another version"):
        TeacherCache.open(own.path)


@pytest.mark.parametrize("verify", [True, False])
def test_files_cut_off_lengthened_or_missing_are_found(own, verify):
    for file in sorted(own.path.iterdir()):
        data = file.read_bytes()
        damages = [data[:-2], data[: len(data) // 2], data[:100], b""]
        if file.suffix == ".npy":
            damages.append(data + b"\0")
        for damage in damages:
            file.write_bytes(damage)
            with pytest.raises(ValueError, match=f"can't be used.*{file.name}"):
                TeacherCache.open(own.path, verify=verify)
        file.unlink()
        missing = ValueError if file.suffix == ".npy" else FileNotFoundError
        with pytest.raises(missing, match=r"missing|no teacher cache"):
            TeacherCache.open(own.path, verify=verify)
        file.write_bytes(data)
    TeacherCache.open(own.path, verify=verify)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("verify", [True, False])
def test_nothing_is_ever_unpickled(own, tmp_path, verify):
    sprung = tmp_path / "sprung"
    for file in sorted(own.path.iterdir()):
        data = file.read_bytes()
        with file.open("wb") as opened:
            trap = np.array([Trap(sprung)], dtype=object)
            np.save(opened, trap, allow_pickle=True)
            opened.write(bytes(max(0, len(data) - opened.tell())))
        with pytest.raises(ValueError, match=file.name):
            TeacherCache.open(own.path, verify=verify)
        file.write_bytes(pickle.dumps(Trap(sprung)))
        with pytest.raises(ValueError, match=file.name):
            TeacherCache.open(own.path, verify=verify)
        assert not sprung.exists()
        file.write_bytes(data)
    TeacherCache.open(own.path, verify=verify)

    pickle.loads(pickle.dumps(Trap(sprung)))  # The trap does work.
    assert sprung.exists()


def test_damage_after_opening_is_not_handed_on(own, whole):
    """The features are altered, and the fingerprints with them, while it is open."""
    attached = in_order(own.attach(dataset()))
    file = next(file for file in own.path.glob("*.npy") if "elements" in file.name)
    flip(file, file.stat().st_size - 1)
    with pytest.raises(ValueError, match="not the samples"):
        train_plainly(own, attached)


def test_a_cache_that_is_gone_is_not_taken_for_another(build, own):
    """Its folder is deleted, or has another cache now, after it was attached."""
    attached = in_order(own.attach(dataset()))
    shutil.rmtree(own.path)
    with pytest.raises(ValueError, match="is gone.*[Aa]ttach it again"):
        train_plainly(own, attached)
    build(quick_teacher(), path=own.path, outputs=True, dtype="float32")
    with pytest.raises(tf.errors.OpError, match="No such file"):
        list(attached)
    with pytest.raises(ValueError, match="missing"):
        own.attach(dataset())


def test_what_is_no_cache_does_not_open(tmp_path):
    assert nothing_opens(tmp_path / "nowhere")
    assert nothing_opens(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert nothing_opens(tmp_path / "file")


# Memory


def memory_peak():
    """The most memory this process ever took, in MB.

    Not by `resource.getrusage`: that begins with the peak of the parent.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory_of_a_million(folder, count):
    """Builds and attaches; gives by how much each of them raised the peak."""
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential(
        [keras.Input((64,)), layers.Dense(64, name="features"), layers.Dense(2)]
    )

    def sample(index):
        seed = tf.stack([index, tf.constant(1, tf.int64)])
        return tf.random.stateless_normal((64,), seed)

    def build_and_attach(count):
        data = tf.data.Dataset.range(count).map(sample, tf.data.AUTOTUNE)
        peaks = [memory_peak()]
        cache = TeacherCache.build(
            teacher, data, folder / str(count), batch_size=1000, verbose=0
        )
        peaks.append(memory_peak())
        seen = 0
        for batch in cache.attach(data).batch(1000):
            seen += len(batch["inputs"])
        peaks.append(memory_peak())
        assert seen == count
        return np.diff(peaks)

    build_and_attach(20_000)
    return build_and_attach(count)


@pytest.mark.slow
@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="reads /proc"
)
def test_memory_does_not_grow_with_the_data(tmp_path):
    """A million samples, whose features take 128 MB and which take 256 MB."""
    built, attached = in_fresh_process(memory_of_a_million, tmp_path, 1_000_000)
    assert built < 40
    assert attached < 40
