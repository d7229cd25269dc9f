"""Tables: what methods cost, and teacher, student and methods side by side."""

from keras_lpd.report.compare import Comparison as Comparison
from keras_lpd.report.compare import ModelRow as ModelRow
from keras_lpd.report.compare import compare as compare
from keras_lpd.report.complexity import METHODS as METHODS
from keras_lpd.report.complexity import Complexity as Complexity
from keras_lpd.report.complexity import ComplexityRow as ComplexityRow
from keras_lpd.report.complexity import complexity as complexity
from keras_lpd.report.complexity import multiplications as multiplications
from keras_lpd.report.table import Table as Table
from keras_lpd.report.table import markdown as markdown
