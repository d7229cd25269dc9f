"""Small files for phones: prune, cluster and quantise while distilling.

All of it needs the extra: `pip install 'keras-lpd[compress]'`.
"""

from keras_lpd.compress.clustering import cluster as cluster
from keras_lpd.compress.evaluating import evaluate_litert as evaluate_litert
from keras_lpd.compress.litert import to_litert as to_litert
from keras_lpd.compress.pruning import prune as prune
from keras_lpd.compress.quantizing import quantize_aware as quantize_aware
