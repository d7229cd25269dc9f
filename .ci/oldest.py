"""Prints the lowest versions that setup.py allows, as constraints for pip."""

import pathlib
import re

setup = (pathlib.Path(__file__).parents[1] / "setup.py").read_text("utf-8")
required = re.search(r"install_requires=\[(.*?)\]", setup, re.DOTALL)[1]
for name, version in re.findall(r'"([\w-]+)>=([\d.]+)"', required):
    print(f"{name}~={version}.0")
