"""Small students that keep the neighbourhoods of large teachers."""

import keras as _keras

from keras_lpd.losses import FeatureLoss as FeatureLoss
from keras_lpd.losses import LocalityPreserving as LocalityPreserving
from keras_lpd.losses import NeighborProbability as NeighborProbability
from keras_lpd.losses import locality_preserving_loss as locality_preserving_loss
from keras_lpd.losses import neighbor_probability_loss as neighbor_probability_loss
from keras_lpd.version import __version__ as __version__

if _keras.config.backend() == "tensorflow":
    from keras_lpd.distiller import LPDistiller as LPDistiller
    from keras_lpd.teacher_cache import TeacherCache as TeacherCache
else:

    def __getattr__(name: str) -> type:
        if name in ("LPDistiller", "TeacherCache"):
            raise ImportError(
                f"{name} needs Keras on TensorFlow; here it runs on "
                f"{_keras.config.backend()!r}. Set the environment variable "
                "KERAS_BACKEND=tensorflow before importing keras, or use the "
                "losses in `keras.distillation.Distiller`, on any backend."
            )
        raise AttributeError(f"module 'keras_lpd' has no attribute {name!r}")
