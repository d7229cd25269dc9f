"""Losses that are built, and what is said of them."""

from keras_lpd.report import complexity


def built(loss, teacher_shape, student_shape):
    """A loss of its own, with its regressor, if it has one."""
    loss = type(loss).from_config(loss.get_config())
    loss.build((None, *teacher_shape), (None, *student_shape))
    return loss


def variables(loss):
    owned = getattr(loss, "layers", [])
    return [v for layer in owned for v in layer.trainable_weights]


def row_of(method, *pair, **arguments):
    """The row between two shapes."""
    (row,) = complexity(None, None, [pair], methods=[method], **arguments).rows
    return row
