"""The Neighborhoods dashboard and the Projector, as a browser shows them.

What is to be seen is computed here, of features and predictions taken from the models
after each epoch.
"""

import json
import re

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_lpd import LPDistiller
from keras_lpd.callbacks import EmbeddingProjector
from tests.tensorboard.browser import (
    CHROMIUM,
    DRIVER,
    chromium,
    errors_in_console,
    ui,
    wait,
    wait_for,
    webdriver,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"
    ),
]

COUNT, K, TEACHER_WIDTH = 300, 5, 24
SHEET = 18 * 8  # pixels: of images of 8 x 8, 18 in a row
HOSTILE = '<img src=x onerror="window.hacked = true">'
NAMES = ["zero", "one", "two", HOSTILE, "four", "five", "six", "seven", "eight", "nine"]
AT_FIRST = {"sort": "worst", "class-filter": "all", "outcome-filter": "all"}
Keys = webdriver.Keys

PROJECTORS_OWN = re.compile("projector_binary.js .*'projectionCanBeRendered'")
"""What TensorBoard's Projector says if another run is chosen while it still draws."""


# What is to be seen


class Model:
    """What a model makes of the samples at one moment."""

    def __init__(self, model, x):
        layer = model.get_layer("features")
        graph = keras.Model(model.inputs[0], [layer.output, model.outputs[0]])
        found = map(np.asarray, graph(x, training=False))
        features, outputs = (array.astype("f8") for array in found)
        distances = np.linalg.norm(features[:, None] - features, axis=-1)
        np.fill_diagonal(distances, np.inf)
        self.width = features.shape[1]
        self.predicted = outputs.argmax(axis=1)
        self.neighbors = np.argsort(distances, axis=1, kind="stable")[:, :K]
        self.distances = np.sort(distances, axis=1)[:, : K + 1]
        # Where no two are so equally far that rounding may exchange them.
        self.clear = (np.diff(self.distances) > 1e-4 * self.distances[:, 1:]).all(
            axis=1
        )


class Training(keras.callbacks.Callback):
    """A training that TensorBoard shows, and what it has to show."""

    def __init__(self, name, x, teacher):
        super().__init__()
        self.name, self.x = f"{name}/student", x
        self.teacher = Model(teacher, x)
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(Model(self.model.student, self.x))

    def clear(self, epoch):
        return self.teacher.clear & self.epochs[epoch].clear

    def shared(self, epoch, sample):
        return set(self.teacher.neighbors[sample]) & set(
            self.epochs[epoch].neighbors[sample]
        )

    def ranked(self, epoch, among, best_first=False):
        """The samples by their overlap, equal ones by their index."""
        sign = -1 if best_first else 1
        return sorted(among, key=lambda i: (sign * len(self.shared(epoch, i)), i))


@pytest.fixture(scope="module")
def digits():
    """Images and labels of the first digits of scikit-learn's."""
    found = load_digits()
    return found.images[:COUNT, ..., None].astype("float32") / 16, found.target[:COUNT]


def network(name, shape, *widths):
    layers = [keras.layers.Dense(width, activation="relu") for width in widths[:-1]]
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            *layers,
            keras.layers.Dense(widths[-1], name="features"),
            keras.layers.Dense(10, name="logits"),
        ],
        name=name,
    )


def fit(model, x, y, epochs, callbacks=()):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks))


@pytest.fixture(scope="module")
def trainings(digits, tmp_path_factory):
    """Two trainings on images, one on vectors without labels: (logs, trainings)."""
    keras.utils.set_random_seed(0)
    logs = tmp_path_factory.mktemp("logs")
    images, y = digits
    vectors = images.reshape(COUNT, 64)
    teachers = {}
    for x in (images, vectors):
        teachers[x.ndim] = network("teacher", x.shape[1:], 64, TEACHER_WIDTH)
        fit(teachers[x.ndim], x, y, epochs=4)

    def train(name, x, width, epochs, dataset, **kwargs):
        teacher, student = teachers[x.ndim], network("student", x.shape[1:], 8, width)
        training = Training(name, x, teacher)
        look = EmbeddingProjector(logs / name, dataset, every=1, k=K, **kwargs)
        fit(LPDistiller(teacher, student), x, y, epochs, [look, training])
        assert training.clear(-1).mean() > 0.9
        return training

    return logs, {
        "first": train("first", images, 6, 4, digits, class_names=NAMES),
        "second": train("a <b> &", images, 3, 3, digits, class_names=NAMES),
        "bare": train("bare", vectors, 4, 1, vectors),
    }


@pytest.fixture(scope="module")
def server(trainings, tensorboard):
    logs, expected = trainings
    epochs = {one.name: len(one.epochs) for one in expected.values()}
    with tensorboard(logs) as server:

        def has_all(server):
            runs = json.loads(server.dashboard("runs")[2])
            return epochs == {run: len(tags["overlap"]) for run, tags in runs.items()}

        wait(server, has_all)
        yield server


@pytest.fixture(scope="module")
def any_browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(any_browser):
    """The browser, in which a test must cause no errors."""
    any_browser.switch_to.default_content()
    yield any_browser
    errors = errors_in_console(any_browser)
    assert [error for error in errors if not PROJECTORS_OWN.search(error)] == []


# What is seen


READ_ROW = """
const [side] = arguments;
const cells = document.querySelectorAll(`[data-testid="${side}-row"] > [data-sample]`);
return [...cells].map((cell) => ({
  sample: Number(cell.dataset.sample),
  shared: cell.dataset.shared,
  label: cell.querySelector(".neighbor-label").textContent,
  distance: cell.querySelector(".distance").textContent,
  told: cell.getAttribute("aria-label"),
}));
"""

READ_PIXELS = """
return [...document.querySelectorAll(arguments[0])].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, 8, 8);
  return [...data].filter((_, i) => i % 4 === 0);
});
"""

READ_LIST = """
const list = document.querySelector("[data-testid=list]");
const rows = () => [...list.querySelectorAll("[data-sample]")].map(
  (row) => [Number(row.ariaPosInSet), Number(row.dataset.sample)],
);
"""

READ_WHOLE_LIST = (
    READ_LIST
    + """
const [count, done] = arguments;
const found = new Map();
let frames = 0;
const read = () => {
  rows().forEach(([position, sample]) => found.set(position, sample));
  frames += 1;
  if (found.size === count || frames > 600) {
    list.scrollTop = 0;
    done([...found]);
    return;
  }
  const isAtEnd = list.scrollTop + list.clientHeight > list.scrollHeight - 1;
  list.scrollTop = isAtEnd ? 0 : list.scrollTop + list.clientHeight / 2;
  requestAnimationFrame(read);
};
read();
"""
)

READ_FACTS = """
const names = document.querySelectorAll("[data-testid=chosen] dt");
return Object.fromEntries(
  [...names].map((dt) => [dt.textContent, dt.nextElementSibling.textContent]),
);
"""


class Page:
    """The dashboard, in TensorBoard's frame."""

    def __init__(self, browser, server):
        self.browser = browser
        self.url = f"{server.url}/#neighborhoods"

    def open(self):
        self.browser.get("about:blank")
        self.browser.get(self.url)
        self.enter()
        self.settle()

    def enter(self):
        """Goes into the frame, where all else happens."""
        self.browser.switch_to.default_content()
        frame = wait(
            self.browser,
            lambda browser: browser.find_elements(
                "css selector", 'iframe[src*="name=neighborhoods"]'
            ),
        )[0]
        self.browser.switch_to.frame(frame)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def at(self, name):
        """The part of the page that has a name for tests."""
        return self.browser.find_element("css selector", f'[data-testid="{name}"]')

    def settle(self):
        wait(
            self.browser,
            lambda browser: browser.execute_script(
                """
                const chosen = document.querySelector("[data-testid=chosen]");
                const busy = document.querySelector("main")?.ariaBusy;
                return busy === "false" && chosen?.dataset.sample !== undefined;
                """
            ),
        )
        assert not self.at("message").is_displayed(), self.at("message").text

    def show(self, training, epoch=-1):
        """Shows an epoch of a run, without filters, as they are at first."""
        self.choose("run", training.name)
        self.slide(Keys.HOME, *[Keys.ARROW_RIGHT] * (epoch % len(training.epochs)))
        for name, value in AT_FIRST.items():
            if self.at(name).is_enabled():
                self.choose(name, value)

    def choose(self, name, value):
        """Chooses what a menu offers."""
        ui.Select(self.at(name)).select_by_value(str(value))
        self.settle()

    def options(self, name):
        return [option.text for option in ui.Select(self.at(name)).options]

    def slide(self, *keys):
        self.at("epoch").send_keys(*keys)
        self.settle()

    def press(self, *keys):
        """Keys go to whatever has the focus."""
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def click(self, sample):
        """Chooses a sample of the list that is in sight."""
        self.browser.find_element(
            "css selector", f'[data-testid=list] [data-sample="{sample}"]'
        ).click()
        assert self.chosen == sample

    @property
    def chosen(self):
        return int(self.at("chosen").get_attribute("data-sample"))

    @property
    def epoch(self):
        return self.at("epoch-label").text

    @property
    def in_sight(self):
        """The first samples of the list."""
        return [sample for _, sample in sorted(self.run(READ_LIST + "return rows()"))]

    def listed(self):
        """All samples of the list, from its first to its last row."""
        count = int(self.at("count").text.split()[0])
        found = dict(self.browser.execute_async_script(READ_WHOLE_LIST, count))
        assert sorted(found) == list(range(1, count + 1))
        return [found[position] for position in sorted(found)]


@pytest.fixture
def page(browser, server):
    """The page, opened only once: each test says what it shows at first."""
    page = Page(browser, server)
    if browser.current_url.split("&")[0] == page.url:
        page.enter()
    else:
        page.open()
    return page


def assert_rounded(shown, value):
    """Three digits at least, and as near as these allow."""
    digits = shown.replace(".", "").lstrip("0")
    decimals = len(shown.partition(".")[2])
    assert len(digits) >= 3 or decimals >= 3, shown
    assert abs(float(shown) - value) <= 0.501 * 10.0**-decimals + 1e-5 * value


def assert_shows(page, training, epoch, sample, digits=(None, None)):
    """The chosen sample and both rows are as NumPy has them."""
    images, labels = digits
    student = training.epochs[epoch]
    shared = training.shared(epoch, sample)
    assert page.chosen == sample
    assert page.epoch == f"epoch {epoch % len(training.epochs) + 1}"
    assert f"{len(shared)} of {K}" in page.at("chosen").text
    for role, model in (("teacher", training.teacher), ("student", student)):
        row = page.run(READ_ROW, role)
        near = model.neighbors[sample].tolist()
        assert [cell["sample"] for cell in row] == near
        assert [cell["shared"] for cell in row] == [
            "true" if i in shared else "false" for i in near
        ]
        for cell, distance in zip(row, model.distances[sample]):
            assert_rounded(cell["distance"], distance)
            assert f"sample {cell['sample']}" in cell["told"]
            assert f"distance {cell['distance']}" in cell["told"]
            other = f"{role} only" if cell["shared"] == "false" else "in both"
            assert cell["told"].endswith(other)
        expected = ["" if labels is None else NAMES[labels[i]] for i in near]
        assert [cell["label"] for cell in row] == expected
        if images is not None:
            drawn = page.run(READ_PIXELS, f"[data-testid={role}-row] canvas")
            for pixels, i in zip(drawn, near, strict=True):
                np.testing.assert_allclose(pixels, 255 * images[i].ravel(), atol=1)

    facts = page.run(READ_FACTS)
    assert facts["Label"] == ("no label" if labels is None else NAMES[labels[sample]])
    for title, model in (("Teacher", training.teacher), ("Student", student)):
        predicted = model.predicted[sample]
        if labels is None:
            assert facts[title] == str(predicted)
        else:
            right = predicted == labels[sample]
            assert facts[title].startswith(NAMES[predicted])
            assert facts[title].endswith("right" if right else "wrong")
    if images is not None:
        (pixels,) = page.run(READ_PIXELS, "[data-testid=chosen] canvas")
        np.testing.assert_allclose(pixels, 255 * images[sample].ravel(), atol=1)


# The chosen sample and its neighbours


def test_at_first_the_worst_kept_sample_of_the_last_epoch(page, trainings):
    _, runs = trainings
    page.open()
    names = sorted(training.name for training in runs.values())
    assert page.options("run") == names
    assert page.at("run").get_attribute("value") == names[0] == runs["second"].name
    assert page.epoch == "epoch 3"
    for name, value in AT_FIRST.items():
        assert page.at(name).get_attribute("value") == value
    assert page.chosen == page.in_sight[0]
    order = runs["second"].ranked(-1, np.flatnonzero(runs["second"].clear(-1)))
    assert next(i for i in page.in_sight if i in order) == order[0]


def test_neighbours_of_samples_chosen_in_the_list(page, trainings, digits):
    training = trainings[1]["first"]
    page.show(training)
    for sort in ("worst", "index", "best"):
        page.choose("sort", sort)
        clear = [i for i in page.in_sight[:10] if training.clear(-1)[i]]
        for sample in (clear[0], clear[-1]):
            page.click(sample)
            assert_shows(page, training, -1, sample, digits)


def test_neighbours_of_samples_chosen_by_filters(page, trainings, digits):
    _, labels = digits
    training = trainings[1]["first"]
    page.show(training, 0)
    for digit in (0, 7):
        page.choose("class-filter", digit)
        sample = next(i for i in page.in_sight if training.clear(0)[i])
        page.click(sample)
        assert labels[sample] == digit
        assert_shows(page, training, 0, sample, digits)


def test_the_epochs(page, trainings, digits):
    training = trainings[1]["first"]
    page.show(training)
    always = np.all([training.clear(epoch) for epoch in range(4)], axis=0)
    sample = next(i for i in page.in_sight if always[i])
    page.click(sample)

    slider = page.at("epoch")
    moves = [
        (Keys.ARROW_RIGHT, 3),  # beyond the last
        (Keys.ARROW_LEFT, 2),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),  # before the first
        (Keys.ARROW_RIGHT, 1),
        (Keys.END, 3),
    ]
    for key, epoch in moves:
        page.slide(key)
        assert slider.get_attribute("value") == str(epoch)
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch + 1} of 4"
        assert_shows(page, training, epoch, sample, digits)
    rows = [tuple(one.neighbors[sample]) for one in training.epochs]
    assert len(set(rows)) > 1


def test_the_runs(page, trainings, digits):
    first, second = trainings[1]["first"], trainings[1]["second"]
    page.show(first, 1)
    page.choose("sort", "index")
    both = [(first, 1), (second, 1), (second, 2)]
    always = np.all([training.clear(epoch) for training, epoch in both], axis=0)
    sample = next(i for i in page.in_sight if always[i])
    page.click(sample)
    assert_shows(page, first, 1, sample, digits)
    page.choose("run", second.name)  # which has this epoch as well
    assert_shows(page, second, 1, sample, digits)
    page.choose("run", first.name)
    page.slide(Keys.END)
    page.choose("run", second.name)  # which has no fourth epoch
    assert_shows(page, second, 2, sample, digits)


# The list


@pytest.mark.parametrize("epoch", [0, 3])
def test_sorting(page, trainings, epoch):
    training = trainings[1]["first"]
    page.show(training, epoch)
    clear = training.clear(epoch)
    for sort, expected in (
        ("worst", training.ranked(epoch, range(COUNT))),
        ("best", training.ranked(epoch, range(COUNT), best_first=True)),
        ("index", list(range(COUNT))),
    ):
        page.choose("sort", sort)
        found = page.listed()
        assert sorted(found) == list(range(COUNT))
        assert [i for i in found if clear[i]] == [i for i in expected if clear[i]]


def test_filters(page, trainings, digits):
    _, labels = digits
    training = trainings[1]["first"]
    right = training.teacher.predicted == labels
    assert not right.all()
    page.show(training)
    page.choose("sort", "index")

    def assert_listed(expected):
        samples = np.flatnonzero(expected).tolist()
        assert page.at("count").text == f"{len(samples)} of {COUNT} samples"
        assert page.listed() == samples

    for key, epoch in ((Keys.HOME, 0), (Keys.END, 3)):
        page.slide(key)
        learned = training.epochs[epoch].predicted == labels
        assert_listed(labels >= 0)
        page.choose("outcome-filter", "student-wrong-teacher-right")
        assert_listed(right & ~learned)
        assert (right & ~learned).any()
        page.choose("class-filter", 8)
        assert_listed(right & ~learned & (labels == 8))
        page.choose("outcome-filter", "student-wrong")
        assert_listed(~learned & (labels == 8))
        page.choose("outcome-filter", "all")
        assert_listed(labels == 8)
        page.choose("class-filter", "all")
        page.choose("outcome-filter", "student-right")
        assert_listed(learned)
        page.choose("outcome-filter", "teacher-wrong")
        assert_listed(~right)
        page.choose("outcome-filter", "all")


def test_filters_follow_the_epoch(page, trainings, digits):
    _, labels = digits
    training = trainings[1]["first"]
    page.show(training)
    page.choose("outcome-filter", "student-wrong")
    page.choose("sort", "index")
    wrong = [
        np.flatnonzero(one.predicted != labels).tolist() for one in training.epochs
    ]
    assert wrong[0] != wrong[3]
    assert page.listed() == wrong[3]
    page.slide(Keys.HOME)
    assert page.listed() == wrong[0]


# Names, keys, looks


def test_names_are_text(page, trainings):
    training = trainings[1]["second"]
    page.show(training)
    assert training.name in page.options("run")
    assert page.options("class-filter") == ["all classes", *NAMES]
    page.choose("class-filter", NAMES.index(HOSTILE))
    page.click(page.in_sight[0])
    assert HOSTILE in page.at("chosen").text
    assert HOSTILE in page.at("list").text
    page.choose("class-filter", "all")
    for part in ("[aria-label=Maps]", "[aria-live]"):
        shown = page.browser.find_element("css selector", part)
        assert HOSTILE in shown.get_attribute("textContent")
    for markup in ("img, b", 'img[src="x"]'):  # in the frame, around it
        assert page.run("return window.hacked") is None
        assert not page.browser.find_elements("css selector", markup)
        page.browser.switch_to.default_content()


def test_keys_alone(page, trainings, digits):
    training = trainings[1]["first"]
    page.show(training)
    page.run("document.activeElement.blur()")
    focused = "return document.activeElement.closest('[data-testid]')?.dataset.testid"

    def tab_to(name):
        for _ in range(30):
            page.press(Keys.TAB)
            if page.run(focused) == name:
                return
        pytest.fail(f"The Tab key does not lead to {name!r}.")

    tab_to("list")
    order = page.listed()
    for key, position in (
        (Keys.HOME, 0),
        (Keys.ARROW_DOWN, 1),
        (Keys.ARROW_DOWN, 2),
        (Keys.ARROW_UP, 1),
        (Keys.END, COUNT - 1),
        (Keys.ARROW_DOWN, COUNT - 1),
        (Keys.ARROW_UP, COUNT - 2),
    ):
        page.press(key)
        assert page.chosen == order[position]
        active = page.at("list").get_attribute("aria-activedescendant")
        row = page.browser.find_element("id", active)
        assert row.get_attribute("data-sample") == str(order[position])
        assert row.get_attribute("aria-selected") == "true"
    page.press(Keys.HOME)
    for sample in order[1:5]:
        page.press(Keys.ARROW_DOWN)
        if training.clear(-1)[sample]:
            assert_shows(page, training, -1, sample, digits)

    tab_to("teacher-row")
    for keys, role, rank in (
        ([Keys.ARROW_RIGHT, Keys.ARROW_RIGHT], "teacher", 2),
        ([Keys.ARROW_DOWN], "student", 2),
        ([Keys.END], "student", K - 1),
    ):
        page.press(*keys)
        meant = page.run(READ_ROW, role)[rank]["sample"]
        page.press(Keys.ENTER)
        assert page.chosen == meant
        told = page.run("return document.querySelector('[aria-live]').textContent")
        assert told.startswith(f"Sample {meant}, ")
        if training.clear(-1)[meant]:
            assert_shows(page, training, -1, meant, digits)
        assert page.run(focused) == f"{role}-row"


def brightness(color):
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


def test_the_theme_is_tensorboards(page):
    sample = page.chosen

    def choose_theme(name):
        page.browser.switch_to.default_content()
        css = "app-header-dark-mode-toggle button"
        wait(page.browser, lambda b: b.find_elements("css selector", css))[0].click()
        item = f"//*[@role='menuitem'][normalize-space()='{name}']"
        wait(page.browser, lambda b: b.find_elements("xpath", item))[0].click()
        page.enter()

    def looks():
        script = """
        const { color, backgroundColor } = getComputedStyle(document.body);
        return [color, backgroundColor];
        """
        return [brightness(color) for color in page.run(script)]

    def is_dark(_):
        ink, paper = looks()
        return ink > 200 and paper < 60

    def is_light(_):
        ink, paper = looks()
        return ink < 60 and paper > 200

    try:
        for theme, condition in (("Light", is_light), ("Dark", is_dark)):
            choose_theme(theme)
            wait(page.browser, condition)
            assert page.chosen == sample
    finally:
        choose_theme("Light")
        wait(page.browser, is_light)


# Less data


def test_without_thumbnails_and_labels(page, trainings, digits):
    bare, first = trainings[1]["bare"], trainings[1]["first"]
    page.show(first)
    page.choose("class-filter", 2)
    page.choose("outcome-filter", "student-wrong")
    page.choose("run", bare.name)
    assert page.at("count").text == f"{COUNT} of {COUNT} samples"
    for name in ("class-filter", "outcome-filter"):
        menu = page.at(name)
        assert not menu.is_enabled()
        assert menu.get_attribute("title") == "The samples have no labels."
        assert menu.get_attribute("value") == "all"
    assert not page.at("epoch").is_enabled()  # there is one only

    sample = next(i for i in page.in_sight if bare.clear(0)[i])
    page.click(sample)
    assert_shows(page, bare, 0, sample)
    for name, shown in (
        ("chosen", [sample]),
        ("teacher-row", bare.teacher.neighbors[sample]),
        ("student-row", bare.epochs[0].neighbors[sample]),
    ):
        boxes = page.at(name).find_elements("css selector", ".thumbnail")
        assert [box.text for box in boxes] == [str(i) for i in shown]
        for canvas in page.at(name).find_elements("css selector", "canvas"):
            assert not canvas.is_displayed()

    page.choose("run", first.name)
    assert page.at("class-filter").is_enabled()
    assert page.at("outcome-filter").is_enabled()
    if first.clear(0)[sample]:
        assert_shows(page, first, 0, sample, digits)


# The Projector


IN_PROJECTOR = """
const board = document.querySelector("vz-projector-dashboard")?.shadowRoot;
const projector = board?.querySelector("vz-projector");
const panel = projector?.shadowRoot.querySelector("vz-projector-data-panel");
const of = (root, css) => [...(root?.shadowRoot?.querySelectorAll(css) ?? [])];
"""

READ_PROJECTOR = (
    IN_PROJECTOR
    + """
const sheet = projector?.dataSet?.spriteAndMetadataInfo?.spriteImage;
const asked = sheet && new URL(sheet.src).searchParams;
return {
  run: of(panel, "paper-dropdown-menu")[0]?.value,
  tensor: of(panel, "paper-dropdown-menu")[1]?.value,
  size: of(projector, ".status-bar-entry").slice(0, 2).map((entry) => entry.innerText),
  columns: of(panel, "paper-dropdown-menu")
    .filter((menu) => menu.label === "Label by")
    .flatMap((menu) => [...menu.querySelectorAll("paper-item")])
    .map((item) => item.textContent.trim()),
  sheet: sheet && [asked.get("run"), asked.get("name"), sheet.naturalWidth],
};
"""
)

CHOOSE_IN_PROJECTOR = (
    IN_PROJECTOR
    + """
const nameOf = ({ textContent }) => textContent.trim().split("\\n")[0];
const named = (item) => nameOf(item) === arguments[0];
const item = of(panel, "paper-item").find(named);
item?.click();
return item !== undefined;
"""
)


@pytest.mark.parametrize(
    ("role", "tensor"),
    [("teacher", "teacher"), ("student", "epoch 001"), ("student", "epoch 004")],
)
def test_the_projector_shows_points_and_thumbnails(
    browser, server, trainings, role, tensor
):
    training = trainings[1]["first"]
    browser.get("about:blank")
    browser.get(f"{server.url}/#projector")
    for css in ('iframe[src*="name=projector"]', "iframe"):
        wait(browser, lambda b, css=css: b.find_elements("css selector", css))
        browser.switch_to.frame(browser.find_element("css selector", css))

    def read():
        return browser.execute_script(READ_PROJECTOR)

    def has_one(_):
        found = read()
        return found["tensor"] and found["size"][:1] == [f"Points: {COUNT}"]

    def choose(item):
        assert browser.execute_script(CHOOSE_IN_PROJECTOR, item), item

    run = f"first/{role}"
    wait(browser, has_one)  # It takes no other choice before.
    choose(run)
    wait(browser, lambda _: (read()["sheet"] or [None])[0] == run)
    choose(tensor)
    width = (training.teacher if role == "teacher" else training.epochs[0]).width
    told = ["sample", "label", "name", "teacher predicts", "student predicts"]
    expected = {
        "run": run,
        "tensor": tensor,
        "size": [f"Points: {COUNT}", f"Dimension: {width}"],
        "columns": [*told, "overlap"],
        "sheet": [run, tensor, SHEET],
    }
    wait_for(expected, read)
