"""Chromium without a window, driven by Selenium."""

import contextlib
import shutil
import tempfile

import pytest

_WITHOUT = "needs Selenium, `pip install selenium`"
webdriver = pytest.importorskip("selenium.webdriver", reason=_WITHOUT)
ui = pytest.importorskip("selenium.webdriver.support.ui", reason=_WITHOUT)
exceptions = pytest.importorskip("selenium.common.exceptions", reason=_WITHOUT)

PATIENCE = 120
"""How many seconds anything may take, on the slowest machine."""

_SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _first_of(*programs):
    return next(filter(None, map(shutil.which, programs)), None)


CHROMIUM = _first_of("chromium", "chromium-browser", "google-chrome")
DRIVER = _first_of("chromedriver")


@contextlib.contextmanager
def chromium(width=1400, height=900):
    """Starts the browser with a new profile, and ends it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for switch in [*_SWITCHES, f"--user-data-dir={profile}"]:
            options.add_argument(switch)
        service = webdriver.ChromeService(DRIVER)
        browser = webdriver.Chrome(options=options, service=service)
        try:
            browser.set_window_size(width, height)
            browser.set_page_load_timeout(PATIENCE)
            browser.set_script_timeout(PATIENCE)
            yield browser
        finally:
            browser.quit()


def wait(subject, condition):
    """What the condition gives of the subject, as soon as that is true."""
    return ui.WebDriverWait(subject, PATIENCE, 0.1).until(
        condition, f"Not within {PATIENCE} seconds."
    )


def wait_for(expected, read):
    """Reads until it is what is expected."""
    found = None

    def is_there(_):
        nonlocal found
        found = read()
        return found == expected

    with contextlib.suppress(exceptions.TimeoutException):
        wait(None, is_there)
    assert found == expected


def errors_in_console(browser):
    """What the console has told of errors since it was last asked."""
    entries = browser.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
