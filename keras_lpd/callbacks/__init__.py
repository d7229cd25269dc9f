"""Callbacks that look at neighbourhoods while a student trains."""

from keras_lpd.callbacks.neighborhoods import NeighborhoodMetrics as NeighborhoodMetrics
from keras_lpd.callbacks.projector import EmbeddingProjector as EmbeddingProjector
