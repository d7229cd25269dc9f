"""Callbacks for a student's training: its neighbourhoods, and backups of it."""

from keras_lpd.callbacks.chief_backup import ChiefBackup as ChiefBackup
from keras_lpd.callbacks.chief_backup import is_chief as is_chief
from keras_lpd.callbacks.neighborhoods import NeighborhoodMetrics as NeighborhoodMetrics
from keras_lpd.callbacks.projector import EmbeddingProjector as EmbeddingProjector
