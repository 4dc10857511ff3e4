"""The page and its JSON: what is missing decides the exit code, for a person and for a script."""

import json
import re
from pathlib import Path

import pytest

from omnichat.doctor.__main__ import main


def test_the_page_names_what_the_recipe_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that ends in success over a missing file is worse than none."""
    arguments = ["recipe=quickstart", f"data.synthetic={tmp_path}/none", f"data.val.val={tmp_path}"]
    assert main(arguments) == 1
    page = capsys.readouterr().out
    assert "\nthis run: recipe=quickstart data.synthetic=" in page
    assert re.search(rf"\n  MISSING  data\.synthetic +no (file|folder) {tmp_path}/none; ", page)
    assert page.endswith("1 needed, and missing\n")
    (tmp_path / "none").mkdir()
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("nothing that is needed is missing\n")


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that starts jobs asks before it queues them."""
    arguments = ["--json", "recipe=quickstart", f"data.synthetic={tmp_path}/none", f"data.val.val={tmp_path}"]
    assert main(arguments) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] is False
    assert [one["name"] for one in found["findings"] if one["state"] == "missing"] == ["data.synthetic"]
    assert {one["area"] for one in found["findings"]} == {"machine", "packages", "computing", "programs", "this run"}


def test_without_a_recipe_nothing_but_the_package_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing to run on a new machine, before there is any data."""
    assert main([]) == 0
    assert "this run" not in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["recipe=nope", "data.alhpa=1", "--jsno"])
def test_a_wrong_word_is_wrong_usage(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Taken for a missing thing, a typing error would be looked for on the machine."""
    assert main([argument]) == 2
    assert capsys.readouterr().err.startswith("doctor: 1 fault in the config:")
