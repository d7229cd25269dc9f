"""The command `keras-lpd`: a file for each of its commands, and what they share."""

from keras_lpd.cli.command import main as main
