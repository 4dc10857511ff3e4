"""Work in the background hands over what it finds, and holds nothing up."""

import subprocess
import sys

import psutil
import pytest

from omnichat.background import end_children, in_background


def test_results_and_errors_are_handed_over() -> None:
    """An error that stays in its thread would leave whoever waits waiting for ever."""
    assert in_background(lambda: 3).result(60) == 3
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 / 0).result(60)


def test_the_end_of_the_program_waits_for_nothing() -> None:
    """Ctrl-C must not have to wait for minutes of attempts that nobody wants any more."""
    program = "import time; from omnichat.background import in_background; in_background(lambda: time.sleep(600))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_children_in_other_sessions_are_ended_too() -> None:
    """W&B's own process has a session of its own: it outlived a signal to the group, and wrote its logs on."""
    child = "import time; print(1, flush=True); time.sleep(600)"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "1\n"
        (grandchild,) = psutil.Process(parent.pid).children()
        end_children(parent.pid)
        assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
        assert parent.poll() is None
    finally:
        parent.kill()
        parent.wait()
    end_children(parent.pid)  # nobody there is no fault
