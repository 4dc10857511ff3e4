"""`python train.py --help` and that of the chat, and mistakes, answer without loading what is heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from omnichat.recipes import register_recipes

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "transformers", "peft", "numpy", "soundfile", "scipy")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python train.py ARGUMENTS`; every import is listed on stderr."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def heavy_imports(stderr: str) -> list[str]:
    """Names of heavy packages in the list of imports."""
    imported = {line.rpartition("|")[2].strip() for line in stderr.splitlines() if line.startswith("import time:")}
    return sorted(imported & set(HEAVY))


def test_help_lists_every_recipe_without_heavy_imports() -> None:
    """With torch behind it, --help would take ten seconds instead of one."""
    result = run("--help")
    assert result.returncode == 0
    for name, title in register_recipes().items():
        assert name in result.stdout
        assert title in result.stdout
    assert heavy_imports(result.stderr) == []


@pytest.mark.parametrize("argument", ["data.alhpa=0.3", "recipe=nope", "trainer.max_steps=many"])
def test_mistakes_answer_without_heavy_imports(argument: str) -> None:
    """Nobody should wait for torch to be told of a typing error."""
    result = run(argument)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert heavy_imports(result.stderr) == []


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("chekpoint=7", 2)])
def test_chat_tells_how_it_is_called_without_heavy_imports(argument: str, code: int) -> None:
    """It took as long to be told how to begin as to begin."""
    command = [sys.executable, "-X", "importtime", "-m", "omnichat.chat", argument]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert result.returncode == code
    assert "example:" in result.stdout
    assert heavy_imports(result.stderr) == []


def test_omnichat_itself_is_light() -> None:
    """`import omnichat` is what every tool does first."""
    command = [sys.executable, "-X", "importtime", "-c", "import omnichat, omnichat.dialogue, omnichat.config"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert heavy_imports(result.stderr) == []
