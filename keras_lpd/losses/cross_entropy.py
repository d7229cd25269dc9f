"""The cross-entropy that fits the labels it is given."""

from __future__ import annotations

from typing import Any

import keras

from keras_lpd.neighbors import Tensor


@keras.saving.register_keras_serializable(package="keras_lpd")
class CrossEntropy(keras.losses.Loss):
    """Binary, sparse or one-hot cross-entropy, as outputs and labels have it.

    What `LPDistiller.fit` uses where nobody called `compile`. The choice falls
    when the first labels come by, and equals the Keras loss of that name.

    Args:
        from_logits: Whether the predictions are logits, not probabilities.
        binary: Whether every output is a yes or no of its own. Otherwise the
            outputs are exclusive classes, and the labels may be indices or
            one-hot.
        name: Name of the loss.

    Attributes:
        chosen: In words, what was chosen; `None` before the first labels.
    """

    def __init__(
        self,
        from_logits: bool = False,
        binary: bool = False,
        name: str = "cross_entropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.from_logits = from_logits
        self.binary = binary
        self.chosen: str | None = None

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        one_hot = len(y_true.shape) == len(y_pred.shape) and (
            y_true.shape[-1] == y_pred.shape[-1]
        )
        if self.binary:
            kind = "binary"
            function = keras.losses.binary_crossentropy
            if len(y_true.shape) != len(y_pred.shape):
                y_true = keras.ops.reshape(y_true, keras.ops.shape(y_pred))
        elif one_hot:
            kind = "categorical (one-hot labels)"
            function = keras.losses.categorical_crossentropy
        else:
            kind = "sparse categorical (integer labels)"
            function = keras.losses.sparse_categorical_crossentropy
        if self.chosen is None:
            source = "logits" if self.from_logits else "probabilities"
            self.chosen = f"{kind} cross-entropy from {source}"
        return function(y_true, y_pred, from_logits=self.from_logits)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "binary": self.binary,
        }
