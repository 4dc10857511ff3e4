"""What a step took, by the clock or by a GPU's own time."""

import time

import pytest
import torch

from omnichat.training import step_sums
from omnichat.training.step_sums import StepSums


def test_seconds_are_those_of_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a save or a validation that counted would make one step in a thousand look slow, and its data late."""
    now = [0.0]
    monkeypatch.setattr(step_sums, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)

    def after(seconds: float) -> None:
        now[0] += seconds

    sums = StepSums()
    after(1)
    with sums.left_out():
        after(100)
    after(1000)  # validation
    sums.begin()
    with sums.left_out():
        after(100)
    after(2)
    sums.got()
    after(3)
    sums.ask()  # for the second micro-batch
    after(4)
    sums.got()
    following = sums.followed()
    assert (sums.seconds, sums.waited, sums.saving) == (9, 6, 200)
    after(4)
    following.followed()
    assert (following.seconds, following.waited, following.saving) == (4, 0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tells_its_own_time() -> None:
    """Fails when the host, which is ahead, takes a step for as short as handing it over, or waits for its end."""
    torch.cuda.init()
    StepSums().followed()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    sums = StepSums()
    torch.cuda._sleep(10**9)  # cycles: about half a second
    following = sums.followed()
    handed_over = time.perf_counter() - begun
    with following.left_out():
        torch.cuda._sleep(10**9)
    last = following.followed()
    assert sums.seconds > 10 * handed_over
    assert following.saving == pytest.approx(sums.seconds, rel=0.2)
    assert following.seconds < sums.seconds / 2
    assert last.saves == []
