"""A headless Chromium for the tests of pages; they skip where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A page that is drawn is looked at only where there is something that draws: whoever skips it is told what is needed.
NO_PLAYWRIGHT = f"needs playwright (pip install -e '.[browser]') and a browser ({', '.join(BROWSERS)}) in the PATH"
NO_BROWSER = f"needs a browser in the PATH: {', '.join(BROWSERS)} (on Debian: apt-get install chromium)"


@contextmanager
def chromium(*more: str) -> Iterator[Any]:
    """Chromium without a window; `more` are options of its command line.

    While it is open, this thread's event loop is its own: no command can be run.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason=NO_PLAYWRIGHT)
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(NO_BROWSER)
    options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", *more]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=options)
        yield started
        started.close()
