"""The benchmarks run; what they find is not judged here."""

import subprocess
import sys

import pytest

from data_prep.synthesis.benchmarks.figure import Figure


def test_a_quick_run_tells_every_figure() -> None:
    """A benchmark that crashes is found when its figure is needed."""
    command = [sys.executable, "-m", "data_prep.synthesis.benchmarks", "--quick"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "mixing: " in told
    assert "x real time (target 100" in told
    assert "loudness: " in told
    assert "speaking: " in told


@pytest.mark.parametrize(("value", "missed"), [(99.0, True), (100.0, False)])
def test_a_target_is_judged(value: float, missed: bool) -> None:
    """A figure below its target must show and fail."""
    figure = Figure("mixing", value, "x real time", "", 100.0)
    assert figure.missed is missed
    assert ("missed" in str(figure)) is missed
