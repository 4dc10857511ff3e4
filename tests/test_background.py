"""Work in the background hands over what it finds, and holds nothing up."""

import subprocess
import sys

import pytest

from omnichat.background import in_background


def test_results_and_errors_are_handed_over() -> None:
    """An error that stays in its thread would leave whoever waits waiting for ever."""
    assert in_background(lambda: 3).result(60) == 3
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 / 0).result(60)


def test_the_end_of_the_program_waits_for_nothing() -> None:
    """Ctrl-C must not have to wait for minutes of attempts that nobody wants any more."""
    program = "import time; from omnichat.background import in_background; in_background(lambda: time.sleep(600))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
