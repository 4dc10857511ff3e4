"""The dependency rule: a module imports only from the layers below its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "omnichat"
LAYERS = [  # lowest first; parts on one line do not import each other
    {
        "background",
        "dialogue",
        "file_hashes",
        "free_keys",
        "recipes",
        "run_folder",
        "schema",
        "secrets",
        "weight_files",
    },
    {"audio", "archive", "chat_format", "config"},
    {"prompt", "metrics", "requirements"},
    {"batch"},
    {"data", "models"},
    {"build", "checkpoint"},
    {"exported"},
    {"training", "chat"},
    {"evaluation", "doctor"},
    {"model_card"},
    {"export"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Programs on top of the package. `make` chains them; they do not import each other.
PROGRAMS = {"train", "eval", "data_prep", "benchmarks"}
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(
    path for name in PROGRAMS for path in [ROOT / f"{name}.py", *(ROOT / name).rglob("*.py")] if path.is_file()
)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; `from a import b` gives `a.b`."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it out from the package's root"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_parts(path: Path) -> set[str]:
    """First names below `omnichat` that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("omnichat.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    """An import upwards or sideways would make cycles, and pull torch into what must stay light."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":  # the public face may name any part, lazily
        return
    for part in imported_parts(path) - {own}:
        assert part in RANK, f"omnichat.{part} has no layer"
        assert RANK[part] < RANK[own], f"omnichat.{own} must not import omnichat.{part}"
    programs = {name.split(".")[0] for name in imports(path)} & PROGRAMS
    assert not programs, f"the package must not import {programs}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_programs_do_not_import_each_other(path: Path) -> None:
    """What two programs share belongs into the package."""
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert not ({name.split(".")[0] for name in imports(path)} & PROGRAMS) - {own}


def test_every_part_has_a_layer() -> None:
    """A part outside the list would escape the rule."""
    parts = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }
    assert parts - {"__init__"} == set(RANK)
