"""The figures that a report shows."""

from collections import Counter

import pytest

from data_prep.synthesis.contracts import REASONS
from data_prep.synthesis.decisions import Decision, Decisions
from data_prep.synthesis.figures import Figures, listed
from data_prep.synthesis.report import attempt_rows, decision_rows, markdown, reason_rows, stage_rows


def speak() -> Figures:
    return Figures(
        stage="speak",
        counts={"pending": 1, "leased": 0, "done": 7, "rejected": 2},
        reasons=Counter(wer=2),
        refusals=Counter(wer=22, tts_http=3),
        attempts=Counter({1: 6, 4: 1, 10: 2}),
        costs={"calls": 30.0, "tokens_in": 0, "tokens_out": 0, "audio_seconds": 0},
        seconds=7200.0,
    )


def test_yield_counts_finished_items_only() -> None:
    """What waits is neither made nor refused; counted in, the yield of a running stage would look bad."""
    assert stage_rows([speak()]) == [["speak", "10", "7", "2", "1", "77.8 %", "30", "30", "2.000"]]
    assert attempt_rows([speak()]) == [["speak", "1: 6, 4: 1, 10: 2"]]
    empty = Figures("mix", {"pending": 5, "leased": 0, "done": 0, "rejected": 0}, costs={"calls": 0.0})
    assert stage_rows([empty])[0][5] == ""


def test_reasons_of_attempts_that_were_mended_show_too() -> None:
    """A server that fails every third call rejects nothing, and costs a third."""
    rows = reason_rows([speak()])
    assert rows == [["wer", REASONS["wer"][1], "2", "22"], ["tts_http", REASONS["tts_http"][1], "0", "3"]]
    assert listed(speak().refusals) == "wer 22, tts_http 3"


@pytest.mark.parametrize(("accepted", "interval"), [(50, "93 to 100 %"), (40, "67 to 89 %"), (0, None)])
def test_a_share_accepted_by_ear_has_its_interval(accepted: int, interval: str | None) -> None:
    """50 of 50 accepted does not mean that nothing is wrong: Wilson's interval begins at 93 %."""
    verdicts = {str(n): Decision(verdict="accepted" if n < accepted else "refused") for n in range(50)}
    rows = {row[0]: row for row in decision_rows(Decisions(verdicts=verdicts))}
    assert (rows["accepted"][3] if "accepted" in rows else None) == interval


def test_markdown_cells_do_not_break_the_table() -> None:
    """A bar in a message would begin a cell."""
    assert markdown(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"
