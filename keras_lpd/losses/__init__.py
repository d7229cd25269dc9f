"""Losses: one file each, a pure function and a thin class around it."""

from keras_lpd.losses.attention import AttentionTransfer as AttentionTransfer
from keras_lpd.losses.attention import (
    attention_transfer_loss as attention_transfer_loss,
)
from keras_lpd.losses.correlation import CorrelationCongruence as CorrelationCongruence
from keras_lpd.losses.correlation import (
    correlation_congruence_loss as correlation_congruence_loss,
)
from keras_lpd.losses.cross_entropy import CrossEntropy as CrossEntropy
from keras_lpd.losses.feature_loss import FeatureLoss as FeatureLoss
from keras_lpd.losses.hint import Hint as Hint
from keras_lpd.losses.hint import hint_loss as hint_loss
from keras_lpd.losses.locality import LocalityPreserving as LocalityPreserving
from keras_lpd.losses.locality import (
    locality_preserving_loss as locality_preserving_loss,
)
from keras_lpd.losses.neighbor_probability import (
    NeighborProbability as NeighborProbability,
)
from keras_lpd.losses.neighbor_probability import (
    neighbor_probability_loss as neighbor_probability_loss,
)
from keras_lpd.losses.probability import ProbabilisticTransfer as ProbabilisticTransfer
from keras_lpd.losses.probability import (
    probabilistic_transfer_loss as probabilistic_transfer_loss,
)
from keras_lpd.losses.relational import RelationalKnowledge as RelationalKnowledge
from keras_lpd.losses.relational import relational_angle_loss as relational_angle_loss
from keras_lpd.losses.relational import (
    relational_distance_loss as relational_distance_loss,
)
from keras_lpd.losses.similarity import SimilarityPreserving as SimilarityPreserving
from keras_lpd.losses.similarity import (
    similarity_preserving_loss as similarity_preserving_loss,
)
