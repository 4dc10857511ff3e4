"""What was drawn of each source: counted as it was, over restarts too."""

from pathlib import Path

import pytest

from omnichat.data.dataset import DialogueDataset
from omnichat.data.made_up import made_up_dialogues
from omnichat.data.scan import scan
from omnichat.data.shares import Drawn, Shares, describe, sources_in, synthetic_share
from omnichat.data.store import Store
from omnichat.prompt import Prompt


def test_shares_differ_by_what_is_counted() -> None:
    """Half the dialogues may be a tenth of the audio: each share is over its own total."""
    shares = Shares({"a": 2, "b": 10}, {"a": Drawn(3, 10.0, 30), "b": Drawn(3, 90.0, 0)})
    shares.add("b", Drawn(4, 0.0, 10))
    assert shares.metrics() == {
        "data/share/dialogues/a": 0.3,
        "data/share/seconds/a": 0.1,
        "data/share/targets/a": 0.75,
        "data/passes/a": 1.5,
        "data/share/dialogues/b": 0.7,
        "data/share/seconds/b": 0.9,
        "data/share/targets/b": 0.25,
        "data/passes/b": 0.7,
    }
    assert shares.text().splitlines()[0] == (
        "a: 30.00 % of the dialogues, 10.00 % of the seconds heard, 75.00 % of the target tokens, "
        "walked through 1.5 times"
    )
    assert sources_in(shares.metrics()) == ["a", "b"]


def test_what_is_not_there_has_no_share() -> None:
    """Input as text has no seconds; 0 % of nothing would be an invention."""
    shares = Shares({"a": 4}, {"a": Drawn(2, 0.0, 5)})
    assert "data/share/seconds/a" not in shares.metrics()
    assert "seconds" not in describe("a", shares.metrics())
    assert Shares({"a": 4}).metrics() == {"data/passes/a": 0.0}
    assert Shares({"a": 0}).passes("a") == 0.0
    assert Shares({}, left_out={"too_long": 3}).metrics() == {"data/skipped/too_long": 3.0}


def test_the_synthetic_share_is_that_of_the_last_step_that_has_one() -> None:
    """Fails when a report takes the share of an earlier step, or invents one."""
    keys = [f"data/share/targets/{name}" for name in ("synthetic", "real")]
    first, last = {keys[0]: 0.5, keys[1]: 0.5}, {keys[0]: 0.2, keys[1]: 0.8}
    assert synthetic_share([first, last, {"val/loss": 1.0}], "targets") == 0.2
    assert synthetic_share([{keys[1]: 1.0}], "targets") == 0.0, "only real ones were drawn"
    assert synthetic_share([first], "seconds") is None
    assert synthetic_share([], "targets") is None


@pytest.mark.parametrize("stop", [0, 1, 47, 300])
def test_the_stream_counts_what_its_examples_hold(tmp_path: Path, prompt: Prompt, stop: int) -> None:
    """A resumed run counts on from here: every dialogue before it, by reading them all."""
    scans = {}
    for name, count in (("synthetic", 7), ("real", 5)):
        made_up_dialogues(tmp_path / name, count)
        scans[name] = scan(Store(tmp_path / name / "train.jsonl"), prompt)
    stream = DialogueDataset(scans, {"synthetic": 0.3, "real": 0.7, "absent": 0.0}, prompt)
    found = stream.shares(stop)
    assert list(found.sizes.items()) == [("synthetic", 7), ("real", 5)]
    examples = [stream[index] for index in range(stop)]
    for name, drawn in found.drawn.items() if stop else ():
        own = [example for example in examples if example.source == name]
        assert drawn.dialogues == len(own)
        assert drawn.targets == sum(example.tokens.num_targets for example in own)
        samples = sum(len(wave) for example in own for wave in example.waves)
        assert drawn.seconds == pytest.approx(samples / 16_000, rel=1e-6)
