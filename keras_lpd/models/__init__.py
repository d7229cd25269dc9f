"""Networks to try distillation on."""

from keras_lpd.models.cnn import cnn_student as cnn_student
from keras_lpd.models.cnn import cnn_teacher as cnn_teacher
