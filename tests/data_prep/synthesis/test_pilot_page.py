"""The pilot's page in a real browser: it is heard, clicked through and saved, and the run obeys what was saved."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.synthesis.__main__ import main
from data_prep.synthesis.contracts import Mixed
from data_prep.synthesis.folder import RunFolder
from data_prep.synthesis.session import session
from tests.browser import chromium

pytest.importorskip("espeakng_loader", reason="the embedded engine is not installed: pip install -e '.[tts]'")
pytest.importorskip("playwright.sync_api", reason="playwright (extra `browser`) is not installed")


def dialogues(run: Path) -> dict[str, Mixed]:
    """All that are mixed, by id."""
    with session(RunFolder(run)) as pipeline:
        return {mixed.plan.id: mixed for mixed in pipeline.mixed()}


def judge(page: Any, run: Path, before: dict[str, Mixed]) -> tuple[list[str], Path]:
    """Listen to the page, click four verdicts and save them: the dialogues shown, and the saved file."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((run / "pilot.html").as_uri())
    shown = page.eval_on_selector_all(".dialogue", "all => all.map(one => one.dataset.id)")
    assert shown == list(before)[:5]
    page.evaluate("document.querySelectorAll('audio').forEach(audio => { audio.preload = 'auto'; audio.load(); })")
    page.wait_for_function("[...document.querySelectorAll('audio')].every(one => one.readyState >= 1 || one.error)")
    seconds = page.eval_on_selector_all(
        "audio", "all => all.map(audio => audio.error ? audio.error.message : audio.duration)"
    )
    pieces = [piece for name in shown for piece in before[name].pieces if piece is not None]
    assert seconds == pytest.approx([piece.num_samples / 16000 for piece in pieces], abs=0.01)
    page.evaluate("document.querySelector('audio').play()")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.05")

    def click(number: int, label: str) -> None:
        page.locator(f'[data-id="{shown[number]}"]').get_by_role("button", name=label, exact=True).click()

    click(0, "refuse: words")
    click(0, "accept")  # second thoughts
    click(1, "refuse: speech")
    page.locator(f'[data-id="{shown[1]}"] input').fill('dull, "flat" & <slow>')
    click(2, "refuse: sound")
    click(3, "refuse: words")
    assert page.locator("#count").inner_text() == "4 of 5 decided, 1 accepted"
    page.reload()
    assert page.locator("#count").inner_text() == "4 of 5 decided, 1 accepted"
    assert page.locator("button.chosen").all_inner_texts() == [
        "accept",
        "refuse: speech",
        "refuse: sound",
        "refuse: words",
    ]
    with page.expect_download() as download:
        page.click("#save")
    file = run.parent / download.value.suggested_filename
    download.value.save_as(file)
    assert complaints == []
    return shown, file


@pytest.mark.parametrize("embed", [False, True])
def test_what_is_clicked_is_what_the_run_obeys(embed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A click that is lost on the way to `retry` would leave refused dialogues in the corpus."""
    run = tmp_path / "a run"  # a space in a path is common, and a page that links to files must bear it
    settings = ["recipe=sharechat_audio_mini", "scripts=2", "splits={train: 1}", "writing.history_turns=[4]"]
    settings.append("execution.executor=inline")
    assert main(["pilot", str(run), *settings, "--dialogues", "5", *(["--embed"] if embed else [])]) == 0
    before = dialogues(run)
    with chromium() as browser:
        shown, file = judge(browser.new_page(), run, before)
    saved = json.loads(file.read_text())["decisions"]
    assert saved[shown[1]] == {"verdict": "refused", "part": "speech", "note": 'dull, "flat" & <slow>'}

    assert main(["retry", str(run), "--decisions", str(file)]) == 0
    assert "4 decisions, 3 dialogues are made again" in capsys.readouterr().out
    after = dialogues(run)
    assert list(after) == list(before)
    script = before[shown[3]].plan.brief.number
    rewritten = {name for name, one in before.items() if one.plan.brief.number == script}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {shown[1], shown[2]} | rewritten
    assert after[shown[2]].plan == before[shown[2]].plan
    assert main(["report", str(run)]) == 0
    report = (run / "report.md").read_text()
    assert "| accepted | 1 | 1 (25.0 %) |" in report
    for part in ("words", "speech", "sound"):
        assert f"| refused: {part} | 1 | 1 (25.0 %) |" in report
    capsys.readouterr()
