"""A test that is skipped for want of something says how to get it."""

import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.browser import BROWSERS, chromium

ROOT = Path(__file__).parents[2]


def test_what_the_pages_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skipped in CI, the tests of the pages are run by hand or never; who wants to must not have to search."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(needed.startswith("playwright") for needed in extras["browser"])
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(pytest.skip.Exception, match=r"pip install -e '\.\[browser\]'.*chromium"), chromium():
        pass
    monkeypatch.setitem(sys.modules, "playwright.sync_api", sys)  # stands for it: it is not reached
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match=f"{BROWSERS[0]}.*apt-get install chromium"), chromium():
        pass
