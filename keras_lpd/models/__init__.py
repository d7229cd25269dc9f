"""Networks to try distillation on."""

from keras_lpd.models.cnn import cnn_student as cnn_student
from keras_lpd.models.cnn import cnn_teacher as cnn_teacher
from keras_lpd.models.fitnets import fitnet as fitnet
from keras_lpd.models.fitnets import fitnet_teacher as fitnet_teacher
from keras_lpd.models.fitnets import mnist_student as mnist_student
from keras_lpd.models.fitnets import mnist_teacher as mnist_teacher
from keras_lpd.models.maxout import Maxout as Maxout
from keras_lpd.models.resnet import resnet as resnet
