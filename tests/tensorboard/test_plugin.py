"""The Python half of the Neighborhoods dashboard, asked over HTTP."""

import json
import pathlib
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

import keras_lpd.tensorboard
from keras_lpd.tensorboard import summaries

STEPS = 25  # more than the ten of which TensorBoard keeps all
HOSTILE = '<img src=x onerror="alert(1)">'
PNG = b"\x89PNG\r\n\x1a\n and so on"


def neighbors(step):
    return np.arange(12, dtype="int32").reshape(4, 3) + step


def write_run(folder, steps, factor=1.0):
    writer = tf.summary.create_file_writer(str(folder))
    for step in steps:
        tensors = {
            "student/neighbors": neighbors(step),
            "overlap": np.linspace(0, 1, 4, dtype="float32"),
            "mean_overlap": np.float32(factor * step),
            "absent": None,
        }
        if step == steps[0]:
            tensors |= {"samples": json.dumps({"names": [HOSTILE]}), "thumbnails": PNG}
        summaries.write(writer, step, tensors)
    writer.close()


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    write_run(logs / "here" / "student", range(STEPS))
    write_run(logs / "größe = 3 & more", [0, 7])
    with tf.summary.create_file_writer(str(logs / "other")).as_default():
        tf.summary.scalar("loss", 1.0, 0)
    (logs / "secret.txt").write_text("nobody is to read this")
    return logs


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("true", id="rust"),
        pytest.param("false", id="python", marks=pytest.mark.slow),
    ],
)
def server(request, logs, tensorboard):
    """Both of the programs with which TensorBoard reads event files."""
    with tensorboard(logs, "--load_fast", request.param, "--reload_interval", "1") as s:
        yield s


def test_tensorboard_finds_the_dashboard_by_itself(server):
    found = server.json("data/plugins_listing")["neighborhoods"]
    assert found["enabled"] and found["tab_name"] == "Neighborhoods"
    assert found["loading_mechanism"]["module_path"].endswith("/index.js")


def test_runs_and_their_tensors(server):
    status, _, content = server.dashboard("runs")
    assert status == 200
    runs = json.loads(content)
    assert runs.keys() == {"here/student", "größe = 3 & more"}
    assert runs["here/student"] == {
        "samples": [0],
        "thumbnails": [0],
        "student/neighbors": list(range(STEPS)),
        "overlap": list(range(STEPS)),
        "mean_overlap": list(range(STEPS)),
    }
    assert runs["größe = 3 & more"]["overlap"] == [0, 7]


@pytest.mark.parametrize("step", [0, 13, STEPS - 1])
def test_a_tensor(server, step):
    status, kind, content = server.dashboard(
        "tensor", run="here/student", tag="student/neighbors", step=step
    )
    assert (status, kind) == (200, "application/octet-stream")
    np.testing.assert_array_equal(
        np.frombuffer(content, "<i4").reshape(4, 3), neighbors(step)
    )
    _, _, content = server.dashboard(
        "tensor", run="here/student", tag="overlap", step=step
    )
    np.testing.assert_allclose(np.frombuffer(content, "<f4"), np.linspace(0, 1, 4))


def test_text_and_pictures(server):
    asked = {"run": "größe = 3 & more", "step": 0}
    status, kind, content = server.dashboard("tensor", tag="samples", **asked)
    assert (status, kind) == (200, "application/json")
    assert json.loads(content) == {"names": [HOSTILE]}
    status, kind, content = server.dashboard("tensor", tag="thumbnails", **asked)
    assert (status, kind, content) == (200, "image/png", PNG)


def test_curves(server):
    _, _, content = server.dashboard("curves")
    curves = json.loads(content)
    assert curves["here/student"] == [[step, step] for step in range(STEPS)]
    assert curves["größe = 3 & more"] == [[0, 0.0], [7, 7.0]]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"run": "here/student", "tag": "overlap"},
        {"run": "here/student", "tag": "overlap", "step": STEPS},
        {"run": "here/student", "tag": "overlap", "step": "-1"},
        {"run": "here/student", "tag": "overlap", "step": "1e0"},
        {"run": "here/student", "tag": "overlap@1", "step": "1"},
        {"run": "here/student", "tag": "loss", "step": "0"},
        {"run": "here", "tag": "overlap", "step": "0"},
        {"run": "other", "tag": "loss", "step": "0"},
        {"run": "../logs/here/student", "tag": "overlap", "step": "0"},
        {"run": "here/student", "tag": "../../secret.txt", "step": "0"},
        {"run": HOSTILE, "tag": HOSTILE, "step": HOSTILE},
    ],
)
def test_what_does_not_exist_is_not_found(server, query):
    status, kind, content = server.dashboard("tensor", **query)
    assert status == 404 and kind == "text/plain"
    assert b"There is no" in content


PAGE = pathlib.Path(keras_lpd.tensorboard.__file__).parent / "page"


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda file: file.name)
def test_the_files_of_the_page(server, file):
    kinds = {".js": "text/javascript", ".css": "text/css"}
    status, kind, content = server.dashboard(file.name)
    assert (status, kind) == (200, kinds[file.suffix])
    assert content == file.read_bytes()


@pytest.mark.parametrize(
    "path",
    ["secret.txt", "../plugin.py", "%2e%2e/plugin.py", "page/index.js", "plugin.py"],
)
def test_no_other_file_is_served(server, path):
    status, _, content = server.dashboard(path)
    assert status == 404
    assert b"nobody" not in content and b"import" not in content


@pytest.mark.slow
def test_a_log_folder_that_was_moved(logs, tmp_path, tensorboard):
    shutil.copytree(logs / "here", tmp_path / "else" / "where")
    with tensorboard(tmp_path / "else", "--load_fast", "false") as server:
        for _ in range(100):
            runs = json.loads(server.dashboard("runs")[2])
            if runs:
                break
        assert runs.keys() == {"where/student"}


@pytest.mark.slow
def test_epochs_that_come_while_tensorboard_runs(tmp_path, tensorboard):
    write_run(tmp_path / "student", [0])
    with tensorboard(tmp_path, "--reload_interval", "1") as server:
        assert json.loads(server.dashboard("runs")[2])["student"]["overlap"] == [0]
        write_run(tmp_path / "student", [3])
        for _ in range(100):
            steps = json.loads(server.dashboard("runs")[2])["student"]["overlap"]
            if steps != [0]:
                break
            time.sleep(0.2)
        assert steps == [0, 3]


@pytest.mark.slow
def test_what_is_written_again_counts(tmp_path, tensorboard):
    write_run(tmp_path / "student", [0, 1])
    write_run(tmp_path / "student", [0, 1], factor=3.0)
    with tensorboard(tmp_path) as server:
        curves = json.loads(server.dashboard("curves")[2])
        assert curves == {"student": [[0, 0.0], [1, 3.0]]}


@pytest.mark.slow
def test_no_data_no_dashboard(tmp_path, tensorboard):
    with tensorboard(tmp_path) as server:
        assert json.loads(server.dashboard("runs")[2]) == {}
        assert json.loads(server.dashboard("curves")[2]) == {}
        assert not server.json("data/plugins_listing")["neighborhoods"]["enabled"]
