"""Losses: one file each, a pure function and a thin class around it."""

from keras_lpd.losses.cross_entropy import CrossEntropy as CrossEntropy
from keras_lpd.losses.feature_loss import FeatureLoss as FeatureLoss
from keras_lpd.losses.locality import LocalityPreserving as LocalityPreserving
from keras_lpd.losses.locality import (
    locality_preserving_loss as locality_preserving_loss,
)
