"""What every tracked file keeps to."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
PACKAGES = ("omnichat", "data_prep", "eval", "benchmarks", "train.py")
# Written in two parts, so that this file does not hold what it looks for.
PRIVATE = [
    *(f"/{folder}/" for folder in ("work", "root", "home/" + "user")),
    "/tmp" + "/bash_jobs",
    "py" + "pi.org",
    "python" + "hosted.org",
    "download.py" + "torch.org",
    "mirrors." + "aliyun",
]


def tracked() -> list[Path]:
    """Files that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_modules_read_in_one_sitting() -> None:
    """A module that grew past 400 lines wants to be two."""
    sources = [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES]
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: text` of every line of a tracked text file in which the pattern is found."""
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # audio, weights
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(lines, 1)
            if pattern.search(line)
        ]
    return found


def test_no_paths_of_one_machine_and_no_package_hosts() -> None:
    """They would be wrong on every other machine."""
    assert not lines_with(re.compile("|".join(rf"(?<![\w.]){re.escape(text)}" for text in PRIVATE)))


def test_no_marks_of_a_merge() -> None:
    """A conflict that was committed as it stood says everything twice."""
    assert not lines_with(re.compile(r"^(<{7}|>{7}) "))


def test_no_large_files() -> None:
    """Weights and corpora are made or fetched; the tiny weights that are shipped stay below 6 MB in all."""
    large = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked() if path.stat().st_size > 5_000_000}
    shipped = sum(path.stat().st_size for path in tracked() if path.is_relative_to(ROOT / "checkpoints"))
    assert not large
    assert shipped <= 6_000_000


def test_every_test_says_which_failure_it_prevents() -> None:
    """A test without a reason is deleted by the first who finds it red."""
    silent = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not silent
