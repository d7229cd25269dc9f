"""Data to try things on: scikit-learn's digits, and image sets through tfds."""

from keras_lpd.datasets.arrays import Arrays as Arrays
from keras_lpd.datasets.arrays import held_out as held_out
from keras_lpd.datasets.arrays import load_arrays as load_arrays
from keras_lpd.datasets.arrays import resized as resized
from keras_lpd.datasets.augmenting import augmentation as augmentation
from keras_lpd.datasets.mixing import mix_unlabelled as mix_unlabelled
from keras_lpd.datasets.pipelines import Pipelines as Pipelines
from keras_lpd.datasets.pipelines import load as load
from keras_lpd.datasets.tfds import IMAGE_SETS as IMAGE_SETS
from keras_lpd.datasets.tfds import restore_gzip_header as restore_gzip_header
