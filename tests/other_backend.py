"""Values, gradients and a small fit, on whichever backend Keras runs on.

`test_backends.py` calls `compute` on TensorFlow and runs this file on another
backend, `python -m tests.other_backend INPUTS.npz RESULTS.npz`, in a process of
its own: Keras chooses its backend when it is imported.
"""

import functools
import sys

import keras
import numpy as np

from keras_lpd import losses
from keras_lpd.losses import LocalityPreserving, locality_preserving_loss
from keras_lpd.neighbors import as_vectors, heat_kernel, nearest_neighbors

NORMALIZE = (None, "l2", "spread")

# The other losses by name, each with the features of which sides it compares.
OTHERS = {
    "hint": (losses.hint_loss, "wide", "teacher"),
    "attention": (losses.attention_transfer_loss, "maps", "small_maps"),
    "similarity": (losses.similarity_preserving_loss, "teacher", "student"),
    "distance": (losses.relational_distance_loss, "teacher", "student"),
    "angle": (losses.relational_angle_loss, "teacher", "student"),
    "pkt": (losses.probabilistic_transfer_loss, "teacher", "student"),
    "correlation": (losses.correlation_congruence_loss, "teacher", "student"),
    "neighbor": (losses.neighbor_probability_loss, "teacher", "student"),
    "similarity_maps": (losses.similarity_preserving_loss, "maps", "student"),
}


def value_and_gradient(function, x):
    x = keras.ops.convert_to_tensor(x)
    if keras.config.backend() == "jax":
        import jax

        return jax.value_and_grad(function)(x)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return value, tape.gradient(value, x)


def compute(teacher, student, maps):
    """A dict of arrays by name, from teacher and student features."""
    squared, indices = nearest_neighbors(teacher, 5)
    result = {
        "squared": squared,
        "indices": indices,
        "kernel_auto": heat_kernel(squared),
        "kernel": heat_kernel(squared, sigma=3.0),
        "vectors": as_vectors(maps, "max"),
    }
    for name, x in (("one", teacher[:1]), ("few", teacher[:3])):
        result[f"squared_{name}"], result[f"indices_{name}"] = nearest_neighbors(x, 5)
    for normalize in NORMALIZE:
        for name, features, count in (
            ("", student, len(teacher)),
            ("_one", student, 1),
            ("_maps", maps, len(teacher)),
        ):

            def loss(features, count=count, normalize=normalize):
                return locality_preserving_loss(
                    teacher[:count], features, normalize=normalize, pooling="avg"
                )

            value, gradient = value_and_gradient(loss, features[:count])
            result[f"loss_{normalize}{name}"] = value
            result[f"gradient_{normalize}{name}"] = gradient
    return {key: keras.ops.convert_to_numpy(value) for key, value in result.items()}


def compute_jitted(teacher, student):
    """Losses and gradients through `jax.jit`, and neighbours."""
    import jax

    squared, indices = jax.jit(nearest_neighbors, static_argnums=1)(teacher, 5)
    result = {"squared": squared, "indices": indices}
    for normalize in NORMALIZE:

        @jax.jit
        def both(teacher, student, normalize=normalize):
            return jax.value_and_grad(
                lambda x: locality_preserving_loss(teacher, x, normalize=normalize)
            )(student)

        value, gradient = both(teacher, student)
        result[f"loss_{normalize}"] = value
        result[f"gradient_{normalize}"] = gradient
    return {f"jitted_{key}": np.asarray(value) for key, value in result.items()}


def sides_of(features):
    """What `OTHERS` compare: name, function, the teacher's features, the student's."""
    maps = features["maps"]
    features = {
        **features,
        "wide": np.tanh(features["teacher"][::-1]),
        "small_maps": np.square(maps[::-1, :2, 1:, :2]),
    }
    for name, (function, teacher, student) in OTHERS.items():
        yield name, function, features[teacher], features[student]


def compute_others(features):
    """Losses and gradients of `OTHERS`."""
    result = {}
    for name, function, teacher, student in sides_of(features):
        loss = functools.partial(function, teacher)
        value, gradient = value_and_gradient(loss, student)
        result[f"loss_{name}"], result[f"gradient_{name}"] = value, gradient
    return {key: keras.ops.convert_to_numpy(value) for key, value in result.items()}


def compute_others_jitted(features):
    """The same through `jax.jit`, of the batch and of its first sample alone."""
    import jax

    result = {}
    for name, function, teacher, student in sides_of(features):
        both = jax.jit(jax.value_and_grad(function, argnums=1))
        for suffix, count in (("", len(teacher)), ("_one", 1)):
            value, gradient = both(teacher[:count], student[:count])
            result[f"jitted_loss_{name}{suffix}"] = np.asarray(value)
            result[f"jitted_gradient_{name}{suffix}"] = np.asarray(gradient)
    return result


def hint_with_a_regressor(teacher, student):
    """The class: its regressor has weights from NumPy, and gets gradients."""
    loss = losses.Hint()
    loss.build((None, *teacher.shape[1:]), (None, *student.shape[1:]))
    shape = loss.layer.kernel.shape
    kernel = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    loss.layer.set_weights([kernel, np.ones(shape[-1])])
    value, gradient = value_and_gradient(
        lambda x: loss.compute_loss(teacher, x), student
    )
    return {
        "loss_regressor": keras.ops.convert_to_numpy(value),
        "gradient_regressor": keras.ops.convert_to_numpy(gradient),
    }


def small_model(width):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(width, activation="relu", name="hidden"),
            keras.layers.Dense(3),
        ]
    )


def fit_stock_distiller(x, y):
    """Trains in `keras.distillation.Distiller`, on the loss alone."""
    keras.utils.set_random_seed(0)
    student = small_model(4)
    before = student.get_weights()[0]
    distiller = keras.distillation.Distiller(
        small_model(16),
        student,
        distillation_losses=LocalityPreserving(
            teacher_layer_name="hidden", student_layer_name="hidden"
        ),
        student_loss_weight=0.0,
    )
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = distiller.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    return {
        "fit_distillation_loss": np.array(history["distillation_loss"]),
        "fit_step": student.get_weights()[0] - before,
    }


def error_of_lp_distiller():
    import keras_lpd

    try:
        return f"no error, but {keras_lpd.LPDistiller}"
    except ImportError as error:
        return str(error)


def main():
    tensorflow_was_imported = "tensorflow" in sys.modules
    with np.load(sys.argv[1]) as inputs:
        teacher, student, maps = inputs["teacher"], inputs["student"], inputs["maps"]
        x, y = inputs["x"], inputs["y"]
    features = {"teacher": teacher, "student": student, "maps": maps}
    np.savez(
        sys.argv[2],
        backend=keras.config.backend(),
        tensorflow_was_imported=tensorflow_was_imported,
        error=error_of_lp_distiller(),
        **compute(teacher, student, maps),
        **compute_jitted(teacher, student),
        **compute_others(features),
        **compute_others_jitted(features),
        **hint_with_a_regressor(teacher, student),
        **fit_stock_distiller(x, y),
    )


if __name__ == "__main__":
    main()
