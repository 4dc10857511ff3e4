"""`--help` of every command, and mistakes in those of train.py and the chat, answer without loading what is heavy."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from omnichat.recipes import register_recipes

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "transformers", "peft", "numpy", "soundfile", "scipy")
SLOW = {"torch", "lightning", "transformers", "peft", "scipy", "matplotlib", "pandas", "sklearn"}  # seconds each
# Not typed by anybody: other programs start them.
NO_COMMANDS = {"omnichat/training/wandb_process.py", "data_prep/synthesis/backends/embedded/espeak_worker.py"}
PROGRAMS = [path for part in ("omnichat", "data_prep", "eval", "benchmarks") for path in (ROOT / part).rglob("*.py")]
COMMANDS = sorted(
    name
    for path in (ROOT / "train.py", *PROGRAMS)
    if (name := path.relative_to(ROOT).as_posix()) not in NO_COMMANDS
    and '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python train.py ARGUMENTS`; every import is listed on stderr."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def heavy_imports(stderr: str, heavy: Collection[str] = HEAVY) -> list[str]:
    """Names of heavy packages in the list of imports."""
    imported = {line.rpartition("|")[2].strip() for line in stderr.splitlines() if line.startswith("import time:")}
    return sorted(imported & set(heavy))


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


@pytest.mark.parametrize("path", COMMANDS)
def test_help_of_every_command_answers_without_what_is_slow(path: str) -> None:
    """It took nine seconds to be told how a run is exported."""
    module = path.removesuffix("/__main__.py").removesuffix(".py").replace("/", ".")
    how, called = ([path], path) if path.startswith(("train", "eval")) else (["-m", module], module)
    command = [sys.executable, "-X", "importtime", *how, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert result.returncode == 0
    assert called in result.stdout
    assert heavy_imports(result.stderr, SLOW) == []


def test_omnichat_itself_is_light() -> None:
    """`import omnichat` is what every tool does first."""
    command = [sys.executable, "-X", "importtime", "-c", "import omnichat, omnichat.dialogue, omnichat.config"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert heavy_imports(result.stderr) == []
