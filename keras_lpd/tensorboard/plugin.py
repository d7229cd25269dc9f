"""The Neighborhoods dashboard: a TensorBoard plugin, its Python half.

It hands on what `summaries` wrote, as TensorBoard's data provider finds it, and the
files of the page. The names in a request are looked up among those that exist; none
of them gets near the file system.
"""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from tensorboard import context, plugin_util
from tensorboard.backend import http_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from keras_lpd.tensorboard.tags import MEAN_OVERLAP, PLUGIN, name_and_step, tag_of

_PAGE = pathlib.Path(__file__).parent / "page"
_PAGE_TYPES = {".js": "text/javascript", ".css": "text/css"}
_ALL = 1_000_000
"""More steps than a tag has: nothing is left out."""

Runs = dict[str, dict[str, list[int]]]
"""The steps of each tensor of each run."""


class NeighborhoodsPlugin(base_plugin.TBPlugin):
    """Serves the page and its data.

    Args:
        context: What TensorBoard hands to its plugins.
    """

    plugin_name = PLUGIN

    def __init__(self, context: base_plugin.TBContext):
        super().__init__(context)
        self._provider = context.data_provider

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        files = {
            f"/{file.name}": _serve_file(file)
            for file in _PAGE.iterdir()
            if file.suffix in _PAGE_TYPES
        }
        return {
            **files,
            "/runs": self._serve_runs,
            "/curves": self._serve_curves,
            "/tensor": self._serve_tensor,
        }

    def is_active(self) -> bool:
        return False  # TensorBoard sees for itself whether there are data.

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        return base_plugin.FrontendMetadata(
            es_module_path="/index.js", tab_name="Neighborhoods"
        )

    @wrappers.Request.application
    def _serve_runs(self, request: wrappers.Request) -> wrappers.Response:
        return _json(request, self._runs(request))

    @wrappers.Request.application
    def _serve_curves(self, request: wrappers.Request) -> wrappers.Response:
        runs = self._runs(request)
        curves = {}
        for run, tensors in runs.items():
            steps = tensors.get(MEAN_OVERLAP, [])
            found = self._read(request, run, [tag_of(MEAN_OVERLAP, s) for s in steps])
            curves[run] = [
                [step, float(found[tag])]
                for step in steps
                if (tag := tag_of(MEAN_OVERLAP, step)) in found
            ]
        return _json(request, curves)

    @wrappers.Request.application
    def _serve_tensor(self, request: wrappers.Request) -> wrappers.Response:
        run, name = (request.args.get(key, "") for key in ("run", "tag"))
        step = request.args.get("step", "")
        steps = self._runs(request).get(run, {}).get(name, [])
        if step not in map(str, steps):
            return _not_found(request, f"no {name!r} at step {step!r} of run {run!r}")
        tag = tag_of(name, int(step))
        tensor = self._read(request, run, [tag]).get(tag)
        if tensor is None:  # It went between the two.
            return _not_found(request, f"no {tag!r} any more in run {run!r}")
        return _tensor(request, tensor)

    def _runs(self, request: wrappers.Request) -> Runs:
        found = self._provider.list_tensors(
            _context(request), experiment_id=_experiment(request), plugin_name=PLUGIN
        )
        runs: Runs = {}
        for run, tags in found.items():
            steps = defaultdict(list)
            for tag in tags:
                if (known := name_and_step(tag)) is not None:
                    steps[known[0]].append(known[1])
            if steps:
                runs[run] = {name: sorted(steps[name]) for name in sorted(steps)}
        return runs

    def _read(
        self, request: wrappers.Request, run: str, tags: list[str]
    ) -> dict[str, np.ndarray]:
        """The tensors of some tags. What was written twice counts the last time."""
        if not tags:
            return {}
        found = self._provider.read_tensors(
            _context(request),
            experiment_id=_experiment(request),
            plugin_name=PLUGIN,
            downsample=_ALL,
            run_tag_filter=RunTagFilter(runs=[run], tags=tags),
        )
        return {tag: data[-1].numpy for tag, data in found.get(run, {}).items() if data}


def _context(request: wrappers.Request) -> context.RequestContext:
    return plugin_util.context(request.environ)


def _experiment(request: wrappers.Request) -> str:
    return plugin_util.experiment_id(request.environ)


def _serve_file(file: pathlib.Path) -> Callable[..., Any]:
    """Serves a file of the page, as it was when TensorBoard started."""
    content = file.read_bytes()

    @wrappers.Request.application
    def serve(request: wrappers.Request) -> wrappers.Response:
        return http_util.Respond(request, content, _PAGE_TYPES[file.suffix])

    return serve


def _json(request: wrappers.Request, value: Any) -> wrappers.Response:
    return http_util.Respond(request, json.dumps(value), "application/json")


def _not_found(request: wrappers.Request, what: str) -> wrappers.Response:
    return http_util.Respond(request, f"There is {what}.", "text/plain", code=404)


def _tensor(request: wrappers.Request, tensor: np.ndarray) -> wrappers.Response:
    """A tensor's bytes, or the one string that it holds."""
    if tensor.dtype.kind in "OSU":
        content = tensor.item()
        if isinstance(content, str):
            content = content.encode()
        is_png = content.startswith(b"\x89PNG")
        kind = "image/png" if is_png else "application/json"
        return http_util.Respond(request, content, kind)
    little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
    return http_util.Respond(request, little.tobytes(), "application/octet-stream")
