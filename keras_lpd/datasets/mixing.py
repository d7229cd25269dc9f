"""Batches in which samples without labels come beside those that have them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lpd.arguments import as_integer, as_positive
from keras_lpd.taught import split

if TYPE_CHECKING:
    import tensorflow as tf

_BUFFER = 10_000  # Of an endless side, where no other is asked for.


def mix_unlabelled(
    labelled: tf.data.Dataset,
    unlabelled: tf.data.Dataset,
    ratio: float = 1.0,
    *,
    batch_size: int = 128,
    seed: int = 0,
    shuffle_buffer: int | None = None,
) -> tf.data.Dataset:
    """Mixes labelled and unlabelled samples in batches to distil on.

    The labelled rows of a batch alone have a say in the cross-entropy; what the
    teacher makes of a sample needs no label, and distillation losses see all rows:

    ```
    batches = mix_unlabelled(samples.take(500), images, ratio=3)
    LPDistiller(teacher, student).fit(batches, epochs=10)
    ```

    All batches are full, of the same composition, with the labelled rows spread
    evenly over them: every replica of a `tf.distribute` strategy gets its share. An
    epoch is over when each sample of both sides has come at least once. The smaller
    side is gone through again and again for that, in another order each time; the
    larger one may have to begin again in the last batch.

    **Weights.** Labelled rows have the weight `batch_size / labelled rows`, times
    their own if they come with one, and unlabelled rows 0. With Keras's default
    reduction, the loss is that of the labelled rows by themselves. Unlabelled rows
    repeat labels of the labelled ones, at weight 0, so that labels of any kind will
    do and no loss becomes NaN over a made-up one.

    **Metrics.** `LPDistiller` leaves rows of weight 0 out of its training metrics.
    Where a plain Keras model is fitted, give `compile` its metrics as
    `weighted_metrics`; those in `metrics` would count the repeated labels.

    **With a `TeacherCache`**, build one over all samples, and split what it gives:

    ```
    attached = cache.attach(samples)
    batches = mix_unlabelled(attached.take(500), attached.skip(500), ratio=3)
    LPDistiller(cache, student).fit(batches, epochs=10)
    ```

    Args:
        labelled: A `tf.data.Dataset` of single samples, `(inputs, labels)` or
            `(inputs, labels, sample_weights)`. Each may be a tensor or a structure
            of them; samples of one side must have one shape.
        unlabelled: A `tf.data.Dataset` of single samples, `inputs`, or tuples which
            begin with them: labels are left out. It may include the labelled
            samples.
        ratio: How many unlabelled samples a batch has for each labelled one; 1/3
            for one in four. Defaults to 1.
        batch_size: Samples in a batch, labelled and unlabelled together. Defaults
            to 128.
        seed: Seed of the order. As ever in `tf.data`, the global seed has a part in
            it as well, if one is set. Defaults to 0.
        shuffle_buffer: How many samples of each side are held in memory to be
            shuffled. Defaults to `None`: all of them, or 10,000 of an endless side.

    Returns:
        A `tf.data.Dataset` of batches `(inputs, labels, sample_weights)`, in another
        order each time it is gone through. It knows how many they are. Where a data
        set does not know its size, it is gone through once, now, to be counted. An
        endless one begins anew in each epoch, and the other side says how long that
        is.

    Raises:
        TypeError: If a side is no `tf.data.Dataset`, or has components that can't be
            mixed, such as sparse tensors.
        ValueError: If a number is out of its range, or no whole number of labelled
            samples makes that ratio in a batch; if a side is empty, or both are
            endless; if there are no labels, or batches in place of samples; if the
            inputs of both sides differ in structure, type or shape, or in the
            teacher that their features are of.

    Example:

    >>> samples = tf.data.Dataset.from_tensor_slices((x_train, y_train))
    >>> batches = mix_unlabelled(samples.take(8), samples, ratio=3, batch_size=16)
    >>> len(batches)
    6
    >>> x, y, weights = next(iter(batches))
    >>> x.shape, y.shape
    (TensorShape([16, 8, 8, 1]), TensorShape([16]))
    >>> print(weights[:8].numpy())
    [0. 0. 0. 4. 0. 0. 0. 4.]
    >>> history = LPDistiller(teacher, student).fit(batches, epochs=2, verbose=0)
    """
    import tensorflow as tf

    batch_size = as_integer("batch_size", batch_size, least=2)
    rows = _labelled_rows(batch_size, as_positive("ratio", ratio))
    seed = as_integer("seed", seed, least=0)
    if shuffle_buffer is not None:
        shuffle_buffer = as_integer("shuffle_buffer", shuffle_buffer, least=1)
    _check_samples(labelled, unlabelled)
    counts = _count("labelled", labelled), _count("unlabelled", unlabelled)
    sizes = rows, batch_size - rows
    epochs = [-(-count // size) for count, size in zip(counts, sizes) if count]
    if not epochs:
        raise ValueError(
            "Both data sets are endless, so that an epoch would be as well. Leave "
            "`repeat` out: the smaller side is repeated as needed."
        )
    if isinstance(unlabelled.element_spec, tuple):
        # In a tuple of its own, as `map` unpacks plain tuples but no named ones.
        unlabelled = tf.data.Dataset.zip((unlabelled,)).map(lambda element: element[0])

    def batches(side: int, samples: tf.data.Dataset) -> tf.data.Dataset:
        count = counts[side]
        buffer = min(shuffle_buffer or count or _BUFFER, count or math.inf)
        shuffled = samples.shuffle(
            buffer, seed=2 * seed + side, reshuffle_each_iteration=True
        )
        return shuffled.repeat().batch(sizes[side], drop_remainder=True)

    # Where each row of a batch comes from: out of the labelled and unlabelled ones
    # one after the other, and whose label it has.
    is_labelled = np.diff(np.arange(batch_size + 1) * rows // batch_size) == 1
    order = np.empty(batch_size, "int32")
    order[is_labelled] = np.arange(rows)
    order[~is_labelled] = np.arange(rows, batch_size)
    label_order = np.where(is_labelled, order, (order - rows) % rows)
    weights = np.where(is_labelled, batch_size / rows, 0.0).astype("float32")

    def mixed(known: Any, others: Any) -> tuple[Any, Any, Any]:
        x, y, *own = known
        inputs = tf.nest.map_structure(
            lambda one, other: tf.gather(tf.concat([one, other], axis=0), order),
            x,
            others,
        )
        labels = tf.nest.map_structure(lambda one: tf.gather(one, label_order), y)
        if not own:
            return inputs, labels, tf.constant(weights)
        return inputs, labels, tf.nest.map_structure(weighted, own[0])

    def weighted(own: tf.Tensor) -> tf.Tensor:
        dtype = own.dtype if own.dtype.is_floating else tf.float32
        factors = tf.reshape(weights, [-1] + [1] * (own.shape.rank - 1))
        return tf.cast(tf.gather(own, label_order), dtype) * tf.cast(factors, dtype)

    both = tf.data.Dataset.zip((batches(0, labelled), batches(1, unlabelled)))
    epoch = both.take(max(epochs)).map(mixed, tf.data.AUTOTUNE)
    return epoch.prefetch(tf.data.AUTOTUNE)


def _labelled_rows(batch_size: int, ratio: float) -> int:
    """How many rows of a batch are labelled."""

    def fitting(size: int) -> int | None:
        exact = size / (1 + ratio)
        rows = round(exact)
        fits = 1 <= rows < size and math.isclose(rows, exact, rel_tol=1e-6)
        return rows if fits else None

    if rows := fitting(batch_size):
        return rows
    exact = batch_size / (1 + ratio)
    smaller = range(batch_size - 1, 1, -1)
    larger = range(batch_size + 1, 2 * batch_size + 1)
    nearest = [next(filter(fitting, sizes), None) for sizes in (smaller, larger)]
    hint = " or ".join(f"batch_size={size}" for size in nearest if size)
    if not hint:
        some = {min(max(f(exact), 1), batch_size - 1) for f in (math.floor, math.ceil)}
        hint = " or ".join(f"ratio={batch_size - n}/{n}" for n in sorted(some))
    raise ValueError(
        "A batch must have whole numbers of labelled and unlabelled samples, at least "
        f"one of each. Received: batch_size={batch_size}, ratio={ratio:g}, which makes "
        f"{exact:.6g} labelled ones. Give {hint}."
    )


def _count(side: str, samples: tf.data.Dataset) -> int | None:
    """How many samples there are; `None` if they never end."""
    import tensorflow as tf

    from keras_lpd.refusals import explaining

    count = int(samples.cardinality())
    if count == tf.data.INFINITE_CARDINALITY:
        return None
    if count == tf.data.UNKNOWN_CARDINALITY:
        with explaining():
            count = int(samples.reduce(np.int64(0), lambda number, _: number + 1))
    if count == 0:
        raise ValueError(f"`{side}` is empty. Give at least one sample.")
    return count


def _check_samples(labelled: Any, unlabelled: Any) -> None:
    """Refuses what is no data set of samples, and sides that don't go together."""
    import tensorflow as tf

    for side, samples in (("labelled", labelled), ("unlabelled", unlabelled)):
        if not isinstance(samples, tf.data.Dataset):
            raise TypeError(
                f"`{side}` must be a tf.data.Dataset of single samples. Received: "
                f"{type(samples).__name__}. Make one of arrays with "
                "`tf.data.Dataset.from_tensor_slices((x, y))`."
            )
    element = labelled.element_spec
    if not isinstance(element, tuple) or len(element) not in (2, 3):
        message = (
            "`labelled` must have elements `(inputs, labels)` or `(inputs, labels, "
            f"sample_weights)`. Received: {element}."
        )
        if isinstance(element, dict):
            message += (
                " From tensorflow-datasets they come as such with "
                "`tfds.load(..., as_supervised=True)`."
            )
        raise ValueError(message)
    known, others = _inputs(labelled), _inputs(unlabelled)
    for part in tf.nest.flatten((element, others)):
        if not isinstance(part, (tf.TensorSpec, tf.RaggedTensorSpec)):
            raise TypeError(
                "Samples must be made of dense or ragged tensors. Received: "
                f"{part}. Make sparse ones dense: map `tf.sparse.to_dense`."
            )
    if all(map(_may_be_batch, tf.nest.flatten(element[:2]))):
        raise ValueError(
            "The data must be single samples, and these look like batches. Received: "
            f"{element}. Take them apart with `.unbatch()`; or, if each is a sample, "
            "map `tf.ensure_shape` to say its size."
        )
    _check_teachers(known, others)
    if not _agree(known, others):
        message = (
            "The inputs of both sides must have the same structure, type and shape. "
            f"Received: labelled {known}, unlabelled {others}."
        )
        if _agree(_inputs(labelled.batch(1)), others):
            message += " `unlabelled` looks like batches: use `.unbatch()`."
        elif _agree(known, _inputs(unlabelled.batch(1))):
            message += " `labelled` looks like batches: use `.unbatch()`."
        raise ValueError(message)


def _may_be_batch(part: Any) -> bool:
    """Whether it has an open first dimension, other than that of one ragged row."""
    return part.shape[:1] == [None] and getattr(part, "ragged_rank", 1) > 0


def _check_teachers(known: Any, others: Any) -> None:
    """Refuses inputs that bring features of different teachers along."""
    sides = {"labelled": split(known), "unlabelled": split(others)}
    marks = {side: taught.mark for side, taught in sides.items() if taught}
    hint = (
        "Build one cache over all samples, and split what it gives: `attached = "
        "cache.attach(samples)`, then `attached.take(n)` and `attached.skip(n)`."
    )
    if len(marks) == 1:
        raise ValueError(
            f"Of the two sides, only `{next(iter(marks))}` is attached to a "
            f"TeacherCache. {hint}"
        )
    if len(set(marks.values())) > 1:
        raise ValueError(
            "The two sides are attached to caches of different teachers or "
            f"projections. Received: labelled {marks['labelled']}, unlabelled "
            f"{marks['unlabelled']}. {hint}"
        )


def _inputs(samples: tf.data.Dataset) -> Any:
    """What the inputs of a data set are like."""
    element = samples.element_spec
    return element[0] if isinstance(element, tuple) else element


def _agree(one: Any, other: Any) -> bool:
    """Whether inputs that are like that can be of one batch."""
    import tensorflow as tf

    try:
        tf.nest.assert_same_structure(one, other)
    except (TypeError, ValueError):
        return False
    parts = zip(tf.nest.flatten(one), tf.nest.flatten(other))
    return all(part.is_compatible_with(as_well) for part, as_well in parts)
