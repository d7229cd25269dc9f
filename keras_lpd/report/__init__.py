"""Tables: what methods cost, and teacher, student and methods side by side."""

from keras_lpd.report.comparing import compare as compare
from keras_lpd.report.comparison import Comparison as Comparison
from keras_lpd.report.costs import METHODS as METHODS
from keras_lpd.report.costs import Complexity as Complexity
from keras_lpd.report.costs import ComplexityRow as ComplexityRow
from keras_lpd.report.costs import complexity as complexity
from keras_lpd.report.counting import multiplications as multiplications
from keras_lpd.report.rows import ModelRow as ModelRow
from keras_lpd.report.table import Table as Table
from keras_lpd.report.table import markdown as markdown
