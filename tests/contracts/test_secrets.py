"""Every program masks what it prints: a key must not be in a log because somebody forgot one command."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOCOLS = {"espeak_worker.py"}  # whose output another program of ours reads, and nobody else
PROGRAMS = sorted(
    path
    for folder in ("omnichat", "data_prep", "eval")
    for path in (ROOT / folder).rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    and path.name not in PROTOCOLS
    and path.parent.name != "benchmarks"
)


def masks(path: Path, seen: frozenset[Path] = frozenset()) -> bool:
    """Whether the module calls `mask_output`, itself or in a module of the house whose `main` or `guarded` it calls."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if "mask_output" in called:
        return True
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for name in node.names:
            used = name.name if name.name in ("main", "guarded") else f"{name.name}.main"
            module = node.module if used == name.name else f"{node.module}.{name.name}"
            other = ROOT / f"{module.replace('.', '/')}.py"
            if used in called and other.is_file() and other not in seen and masks(other, seen | {path}):
                return True
    return False


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_program_masks_its_output(path: Path) -> None:
    """What it quotes of a path, an address or an answer may hold a secret of the environment."""
    assert masks(path)


def test_train_masks_its_output() -> None:
    """The same for the first of them."""
    assert masks(ROOT / "train.py")
