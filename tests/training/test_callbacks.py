"""What is written of a step, and of which steps the parts."""

import json
from pathlib import Path

from omnichat.config import load_config
from omnichat.training.fit import fit

PARTS = ("loss/by_source/", "loss/by_turn/", "gate/", "grad_norm/")


def test_parts_stand_at_every_log_every_th_step_and_the_last(tmp_path: Path) -> None:
    """Parts at each step cost time that nobody sees; parts missing at the last leave the report without its end.

    What is not a part stands in every line, and the parts of a step are what they are where every step has them.
    """
    lines = {}
    for log_every in (1, 2):
        run = ("recipe=smoke", "data.made_up=4", "trainer.max_steps=5", "trainer.validate_every=0")
        fit(load_config(*run, f"trainer.log_every={log_every}"), tmp_path / str(log_every))
        text = (tmp_path / str(log_every) / "metrics.jsonl").read_text()
        lines[log_every] = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines[2]] == [1, 2, 3, 4, 5]
    for every, some in zip(lines[1], lines[2], strict=True):
        parts = {key for key in every if key.startswith(PARTS)}
        assert len({key.rpartition("/")[0] for key in parts}) >= 3
        expected = every.keys() if some["step"] in (2, 4, 5) else every.keys() - parts
        assert some.keys() == expected
        assert all(some[key] == every[key] for key in expected if not key.startswith("perf/"))
