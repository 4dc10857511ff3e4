"""What the Makefile and `.ci/run` call exists."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TOOLS = {"pip", "pytest", "ruff", "mypy", "venv"}


@pytest.mark.parametrize("script", sorted(set(re.findall(r"\$\(PY\) ([\w./]+\.py)", MAKEFILE))))
def test_script_exists(script: str) -> None:
    """`make quickstart` chains scripts by name only."""
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"\$\(PY\) -m ([\w.]+)", MAKEFILE)) - TOOLS))
def test_module_exists(module: str) -> None:
    """The same for modules."""
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_every_target_is_listed_and_phony() -> None:
    """`make help` is the list of what there is; a file named `test` must not switch a target off."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make ([a-z-]+)", listed, re.MULTILINE)) == targets
    assert set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split()) == targets


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    """pip's own message for it names every package but Python."""
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.10"\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path}/venv"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert f"make: {old} is Python 3.8.10; 3.11 or newer is needed" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_runs_lint_and_tests() -> None:
    """What is not run there is not kept."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make lint", "make test"} <= set(script.read_text(encoding="utf-8").splitlines())
