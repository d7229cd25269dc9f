"""`keras-lpd` itself: its commands, its exit codes and how it tells of errors."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from keras_lpd.cli import cache, compare, demo, distill, export
from keras_lpd.version import __version__

_COMMANDS = (distill, compare, cache, export, demo)
_LONGEST = 1000  # TensorFlow's errors can go on for pages.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code.

    0 is success, 1 an error (told in one line; `--debug` shows where it came
    from), 2 a wrong argument, 130 an interruption from the keyboard.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print(f"keras-lpd: interrupted; {options.kept(options)}", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        else:
            print(f"keras-lpd: error: {_in_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-lpd",
        description="Small Keras students from large teachers.",
        epilog="`keras-lpd COMMAND --help` tells more. Try `keras-lpd demo` first.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) > _LONGEST:
        return f"{text[:_LONGEST]} ... (`--debug` shows all of it)"
    return text
