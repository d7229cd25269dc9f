"""Installs keras-lpd. The heavier dependencies are extras; see the README."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'"(.+)"', (HERE / "keras_lpd" / "version.py").read_text(encoding="utf-8")
)[1]

EXTRAS = {
    # tensorflow-datasets 4.9 uses importlib_resources without asking for it.
    "data": [
        "tensorflow-datasets>=4.9.7",
        "importlib_resources>=6.0",
    ],
    "compress": [
        "tensorflow-model-optimization>=0.8.0",
        "tf-keras>=2.18",
        "ai-edge-litert>=1.2",
    ],
    "tensorboard": ["tensorboard>=2.18", "Pillow>=10.0"],
    "notebooks": ["jupytext>=1.16", "nbclient>=0.10", "ipykernel>=6.29"],
}
EXTRAS["examples"] = [
    *EXTRAS["data"],
    "matplotlib>=3.8",
    "rich>=13.0",
]
EXTRAS["docs"] = ["mkdocs>=1.6", "mkdocstrings[python]>=1.0"]
EXTRAS["all"] = sorted({one for extra in EXTRAS.values() for one in extra})
EXTRAS["dev"] = [
    *EXTRAS["examples"],
    "jax>=0.4.35",
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    *EXTRAS["compress"],
    *EXTRAS["tensorboard"],
    *EXTRAS["notebooks"],
    *EXTRAS["docs"],
    "build>=1.2",
    "selenium>=4.15",
    "ruff>=0.9",
    "mypy>=1.11",
]

setup(
    name="keras-lpd",
    version=VERSION,
    description="Small Keras students that keep the neighbourhoods of large teachers",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    url="https://github.com/keras-lpd/keras-lpd",
    license="Apache-2.0",
    packages=find_packages(include=["keras_lpd", "keras_lpd.*"]),
    py_modules=["keras_lpd_command"],
    package_data={"keras_lpd": ["py.typed", "tensorboard/page/*"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.12",
        "numpy>=1.26",
        "filelock>=3.12",
        "h5py>=3.11",
        "scikit-learn>=1.3",
    ],
    entry_points={
        "console_scripts": ["keras-lpd = keras_lpd_command:main"],
        "tensorboard_plugins": [
            "neighborhoods = keras_lpd.tensorboard.plugin:NeighborhoodsPlugin"
        ],
    },
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
