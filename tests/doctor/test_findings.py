"""What this machine is said to have, it has; what it lacks comes with what to do about it."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from omnichat.doctor import findings
from omnichat.doctor.findings import Finding, machine, packages, programs, shared_memory, versions


def by_name(found: Iterable[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in found}


def test_packages_that_are_absent_or_too_old_are_told_apart_from_those_that_fit() -> None:
    """An old version fails hours later, in a message about something else."""
    there, faults = versions(["torch>=2", "torch>=1,<2", "no-such-package>=1", "lightning>=2.5.5,!=2.6.2"])
    assert there[0] == f"torch {torch.__version__}"
    assert there[1].startswith("lightning ")
    assert faults == [f"torch {torch.__version__}, needed is <2,>=1", "no no-such-package"]


def test_a_lack_of_an_extra_is_no_fault_and_says_how_it_is_mended() -> None:
    """Who trains on a CPU needs no DeepSpeed; who lacks torch needs to know."""
    extras = {"one": ["torch"], "two": ["omnichat[one]", "no-such-package"], "dev": ["no-such-package"]}
    project = {"dependencies": ["torch", "no-such-core>=3"], "optional-dependencies": extras}
    first, core, *others = packages(project)
    assert first.found == f"torch {torch.__version__}"
    assert (core.state, core.found, core.remedy) == ("missing", "no no-such-core", findings.INSTALL.format(""))
    assert [(one.name, one.state) for one in others] == [("one", "ok"), ("two", "absent")]
    assert others[1].found == f"torch {torch.__version__}, no no-such-package"
    assert others[1].remedy == "pip install -c constraints.txt -e '.[two]'"


def test_the_packages_here_are_those_of_the_project() -> None:
    """The tests run where everything is that the package needs, so nothing may be called missing."""
    found = by_name(packages())
    assert {one.state for one in found.values()} <= {"ok", "absent"}
    assert "torch " in found["omnichat"].found
    assert {"deepspeed", "qlora", "wandb", "tts"} <= set(found)


def test_little_shared_memory_is_told_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's 64 MiB kills data workers with a bus error that names nothing."""
    monkeypatch.setattr(findings, "SHARED_MEMORY", tmp_path)
    assert shared_memory().state == "ok" or "free" in shared_memory().found
    monkeypatch.setattr(findings, "ENOUGH_SHARED", 2**80)
    assert shared_memory().state == "doubtful"
    assert "--shm-size" in shared_memory().remedy
    monkeypatch.setattr(findings, "SHARED_MEMORY", tmp_path / "none")
    assert (shared_memory().state, shared_memory(needed=True).state) == ("absent", "missing")


def test_a_low_limit_of_open_files_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor between two processes is an open file; beyond the limit a run ends in its first minutes."""
    monkeypatch.setattr(findings.resource, "getrlimit", lambda _: (256, 256))
    assert by_name(machine())["open files"] == Finding(
        "machine", "open files", "doubtful", "256 at once", "ulimit -n 65536, or data.num_workers=0"
    )
    monkeypatch.setattr(findings.resource, "getrlimit", lambda _: (findings.resource.RLIM_INFINITY,) * 2)
    assert by_name(machine())["open files"].found == "no limit"


def test_a_key_is_told_of_and_never_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is made to be pasted into a question on the net."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert by_name(programs())["W&B"].state == "absent"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password canary-key-1234\n")
    found = by_name(programs())
    assert found["W&B"] == Finding("programs", "W&B", "ok", "there is a key")
    assert "canary" not in str(found)


def test_programs_are_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called there must be found as the engines find it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert by_name(programs())["flite"].state == "absent"
    (tmp_path / "flite").write_text("#!/bin/sh\n")
    (tmp_path / "flite").chmod(0o755)
    assert by_name(programs())["flite"] == Finding("programs", "flite", "ok", str(tmp_path / "flite"))
