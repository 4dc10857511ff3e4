"""What README.md, and docs/ of training, tell people to type exists."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from omnichat.config import checked, known_keys
from omnichat.recipes import config_groups, read_overrides, with_own_keys

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = "\n".join(
    re.findall(r"```(?:bash|sh|console)\n(.*?)```", README, re.DOTALL) + re.findall(r"`([^`\n]+)`", README)
)


def found(pattern: str) -> list[str]:
    """Distinct matches in the README's commands."""
    return sorted(set(re.findall(pattern, CODE)))


def test_readme_shows_the_two_first_commands() -> None:
    """A newcomer looks for them there."""
    assert {"quickstart", "test"} <= set(found(r"\bmake ([a-z][a-z-]*)"))


@pytest.mark.parametrize("target", found(r"\bmake ([a-z][a-z-]*)"))
def test_make_target_exists(target: str) -> None:
    """A target that was renamed would leave the README behind."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("script", found(r"\bpython (?!-)([\w./]+\.py)"))
def test_script_exists(script: str) -> None:
    """The same for scripts."""
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("module", found(r"\bpython -m ([\w.]+)"))
def test_module_exists(module: str) -> None:
    """The same for modules."""
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("option", found(r"\b(recipe|model|data|trainer|logger|evaluation)=(\w+)"), ids="=".join)
def test_option_exists(option: tuple[str, str]) -> None:
    """The same for recipes and groups; NAME stands for any of them."""
    group, name = option
    assert name == "NAME" or name in config_groups()[group]


@pytest.mark.parametrize("key", found(r"\b((?:model|data|trainer|logger|evaluation)\.[a-z_.0-9]+)="))
def test_key_exists(key: str) -> None:
    """The same for keys."""
    assert key in known_keys() or key.startswith(("data.val.", "data.test.", "data.sources."))


def commands_of_train(path: Path) -> list[list[str]]:
    """What stands after `train.py` in the commands of a document; not what is no command as it stands."""
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.partition("train.py ")[2], comments=True) for line in lines if "train.py " in line]
    return [one for one in words if "recipe=NAME" not in one and "--help" not in one and "data.alhpa=0.3" not in one]


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_commands_of_train_are_no_faults(path: Path) -> None:
    """Two nodes of eight GPUs were shown with a micro-batch that does not divide their step."""
    for words in commands_of_train(path):
        alternatives, faults = read_overrides(with_own_keys(word for word in words if not word.startswith("preflight")))
        assert faults + checked([values[0] for values in alternatives])[1] == [], words


@pytest.mark.parametrize("path", re.findall(r"\]\((?!https?:|#)([^)]+)\)", README))
def test_link_leads_somewhere(path: str) -> None:
    """A link to a file of the repository that is not there."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_imports_exist(block: str) -> None:
    """The public names that the README shows are there."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
