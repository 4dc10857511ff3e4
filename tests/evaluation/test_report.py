"""The report: one valid page, nothing loaded from elsewhere, players that play, statements that must not be missing."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from omnichat.config import RunConfig, load_config
from omnichat.dialogue import AudioRef, DataError, Turn
from omnichat.evaluation import samples
from omnichat.evaluation.paper import paper_table
from omnichat.evaluation.replies import Answer, write_answers
from omnichat.evaluation.report import write_report
from omnichat.evaluation.samples import choose
from omnichat.evaluation.score import score_run
from omnichat.run_folder import GENERATION, REPLIES, SCORES, read_metrics
from tests.evaluation.conftest import write_run

VOID = {"meta", "link", "br"}
RESOURCES = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing, or something else"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text of the page."""
        return " ".join(" ".join(self.texts).split())

    def values(self, tag: str, name: str) -> list[str]:
        """Values of an attribute of all such tags."""
        return [value for found, attribute, value in self.attributes if (found, attribute) == (tag, name)]


@pytest.fixture
def scored(run_dir: Path, config: RunConfig) -> Path:
    """The run folder after stage 2."""
    score_run(run_dir, config)
    return run_dir


def read(path: Path) -> Page:
    """A report, parsed."""
    return Page(path.read_text(encoding="utf-8"))


def test_page_is_whole_and_loads_nothing(scored: Path, config: RunConfig) -> None:
    """It must open on a machine without a network, from a mail or an archive, years later."""
    path = write_report(scored, config)
    page = read(path)
    for tag, name, value in page.attributes:
        if name in RESOURCES:
            assert value.startswith("data:"), f"<{tag} {name}> loads {value[:60]}"
        assert "://" not in value, f"<{tag} {name}> names an address"
    assert "url(" not in path.read_text()
    assert "@import" not in path.read_text()
    assert not page.values("script", "src")
    assert path.stat().st_size < 5_000_000


def test_page_has_all_its_parts(scored: Path, config: RunConfig) -> None:
    """A part whose data were there must not be lost."""
    text = read(write_report(scored, config, title="A title")).text
    for expected in (
        "A title",
        "These weights are tiny",
        "Scores",
        "Loss per target token",
        "By scenario",
        "Which emotion is answered for which",
        "6 dialogues",
        "Where this departs from the paper",
        "trainer.max_steps: 400, the paper's: 30000",
        "percentile bootstrap, 50 resamples",
        "rougeL.fmeasure",
        "METEOR not computed: ",
        "trained: mixformer 9 k frozen: llm 800 k",
    ):
        assert expected in text


def test_players_hold_the_audio(scored: Path, config: RunConfig) -> None:
    """Two heard turns in each of six dialogues, decodable, at 16 kHz and of the right length."""
    sources = read(write_report(scored, config)).values("audio", "src")
    assert len(sources) == 12
    prefix = "data:audio/flac;base64,"
    for source in sources:
        assert source.startswith(prefix)
        samples_, rate = soundfile.read(io.BytesIO(base64.b64decode(source.removeprefix(prefix))))
        assert rate == 16_000
        assert len(samples_) == 8_000
        assert abs(samples_).max() == pytest.approx(0.3, abs=0.01)


def test_audio_that_is_gone_is_said(scored: Path, config: RunConfig, answers: list[Answer]) -> None:
    """A corpus may be deleted; the report is still written, and says what is missing."""
    gone = Turn("user", "hello", audio=AudioRef("/nowhere/gone.wav", 8000))
    write_answers(scored / REPLIES, [replace(answer, history=(gone,)) for answer in answers])
    page = read(write_report(scored, config))
    assert not page.values("audio", "src")
    assert "no audio: /nowhere/gone.wav" in page.text


def test_audio_over_the_budget_is_left_out(scored: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page stays small; the turns that are answered keep their players, history gives way."""
    whole = read(write_report(scored, config)).values("audio", "src")
    monkeypatch.setattr(samples, "AUDIO_BYTES", 7 * len(whole[0]))
    page = read(write_report(scored, config))
    assert len(page.values("audio", "src")) == 7
    assert page.text.count("left out to keep this page small") == 5


def test_text_from_data_is_escaped(scored: Path, config: RunConfig, answers: list[Answer]) -> None:
    """A corpus or a model could otherwise put scripts into the page."""
    evil = "<script>alert(1)</script>&amp;\"'"
    scene = {**answers[0].scene, "voice": evil, "scenario": evil}
    written = [
        replace(
            answer,
            id=f"{answer.id}{evil}",
            reply=replace(answer.reply, text=evil),
            reference=replace(answer.reference, text=evil),
            history=tuple(replace(turn, text=evil) for turn in answer.history),
            raw=evil,
            scene=scene,
        )
        for answer in answers
    ]
    write_answers(scored / REPLIES, written)
    score_run(scored, config)
    path = write_report(scored, config, title=evil)
    assert "<script" not in path.read_text()
    assert evil in read(path).text


def test_partial_scores_are_marked(run_dir: Path, config: RunConfig, answers: list[Answer]) -> None:
    """Beside every number of the set, not in a footnote."""
    write_answers(run_dir / REPLIES, answers[1:])
    score_run(run_dir, config, partial=True)
    assert read(write_report(run_dir, config)).text.count("partial: 3 of 4") >= 2


def test_another_run_stands_beside(scored: Path, config: RunConfig, tmp_path: Path) -> None:
    """The text-only twin is what shows that the model hears."""
    other = tmp_path / "twin"
    other.mkdir()
    (other / SCORES).write_bytes((scored / SCORES).read_bytes())
    text = read(write_report(scored, config, beside=[other])).text
    assert "guess 33.3, twin 58.3" in text


def test_runs_of_one_name_stand_beside_each_other(scored: Path, config: RunConfig, tmp_path: Path) -> None:
    """Seeds in folders of their own often share a name; one of two columns went missing without a word."""
    beside = []
    for number, value in enumerate((0.123, 0.456)):
        folder = tmp_path / str(number) / "same"
        folder.mkdir(parents=True)
        scores = json.loads((scored / SCORES).read_text())
        scores["splits"]["scripts"]["metrics"]["bleu"]["value"] = value
        (folder / SCORES).write_text(json.dumps(scores))
        beside.append(folder)
    html = write_report(scored, config, beside=beside).read_text()
    assert "12.3" in html
    assert "45.6" in html
    assert all(str(folder) in html for folder in beside)


def test_a_run_that_hears_nothing(run_dir: Path, config: RunConfig, answers: list[Answer]) -> None:
    """input=text has no gates; nor need there be metrics of the training."""
    write_answers(run_dir / REPLIES, [replace(answer, gates={}) for answer in answers])
    (run_dir / "metrics.jsonl").unlink()
    score_run(run_dir, config)
    text = read(write_report(run_dir, config)).text
    assert "hears nothing, so there are no gates" in text
    assert "There is no metrics.jsonl" in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no_file"),
        ("{", "bad_json"),
        ("{}", "bad_json"),
        ('{"splits": 5}', "bad_json"),
        ('{"step": 1, "decoding": {}, "splits": {"scripts": {}}}', "bad_json"),
        ('{"step": 1, "decoding": {}, "splits": {"scripts": {"n": 4, "metrics": {"bleu": 0.5}}}}', "bad_json"),
    ],
)
def test_without_scores_there_is_no_report(scored: Path, config: RunConfig, content: str | None, reason: str) -> None:
    """And the error says which stage makes them."""
    (scored / SCORES).unlink()
    if content is not None:
        (scored / SCORES).write_text(content)
    with pytest.raises(DataError, match="stage=score") as error:
        write_report(scored, config)
    assert error.value.reason == reason


def test_scores_of_other_replies_are_refused(scored: Path, config: RunConfig, answers: list[Answer]) -> None:
    """Replies of a later checkpoint beside the scores of an earlier one would be a page about no model at all."""
    write_answers(scored / REPLIES, [replace(answer, model="another") for answer in answers])
    with pytest.raises(DataError, match=rf"{SCORES}: is of other replies .*run stage=score again"):
        write_report(scored, config)
    write_answers(scored / REPLIES, answers[1:])
    with pytest.raises(DataError, match="is of other replies"):
        write_report(scored, config)


def test_metrics_are_read_up_to_the_line_cut_short(run_dir: Path) -> None:
    """The curve of a killed run is the curve of its whole lines."""
    steps = read_metrics(run_dir)
    assert len(steps) == 404
    assert steps[-1]["step"] == 400


def test_chosen_dialogues_are_spread_and_not_picked_by_result(answers: list[Answer]) -> None:
    """Both sets and both scenarios among the first four; the same choice whatever the replies."""
    chosen = choose(answers, 4)
    assert {(answer.split, answer.scene["scenario"]) for answer in chosen} == {
        ("scripts", "emotion"),
        ("scripts", "audio"),
        ("voices", "emotion"),
        ("voices", "audio"),
    }
    right = [replace(answer, reply=answer.reference) for answer in answers]
    assert [answer.id for answer in choose(right, 4)] == [answer.id for answer in chosen]
    assert len(choose(answers, 10)) == 6


@pytest.mark.parametrize(
    ("overrides", "title", "row", "f1"),
    [
        (("recipe=dailytalk",), "Tables 2 and 4", "OmniChat + Real", 75.46),
        (("recipe=dailytalk", "data.alpha=0.1"), "Tables 2 and 4", "OmniChat, alpha 0.1 (Table 4)", 71.05),
        (("recipe=dailytalk", "data.alpha=1"), "Tables 2 and 4", "OmniChat, alpha 1 (Table 4)", 71.87),
        (("recipe=sharechat_audio",), "Table 3, ShareChat-Audio", "OmniChat", 51.5),
    ],
)
def test_the_paper_s_values_stand_beside_its_recipes(
    overrides: tuple[str, ...], title: str, row: str, f1: float
) -> None:
    """Of the right table and row; alpha 1 is synthetic only, which the paper's own table calls 0."""
    table = paper_table(load_config(*overrides))
    assert table is not None
    assert table.title.startswith(title)
    assert table.rows[row][-1] == f1


def test_the_paper_has_no_quickstart(config: RunConfig, scored: Path) -> None:
    """Its numbers beside a toy corpus would invite a comparison that means nothing."""
    assert paper_table(config) is None
    assert "Beside the paper" not in read(write_report(scored, config)).text


def test_paper_table_is_shown(scored: Path) -> None:
    """For a recipe of the paper."""
    text = read(write_report(scored, load_config("recipe=dailytalk"))).text
    assert re.search(r"paper: Qwen2-Audio 3\.03 12\.81 13\.89 86\.14", text)


def test_scores_by_turn_are_drawn(run_dir: Path, config: RunConfig, answers: list[Answer]) -> None:
    """A set with replies to every turn shows where a model loses the thread."""
    early = [replace(answer, history=answer.history[:1]) for answer in answers]
    write_run(run_dir, [*answers, *early], config)
    score_run(run_dir, config)
    path = write_report(run_dir, config)
    page = read(path)
    assert "by turn of the user that is answered" in page.text
    assert "emotion, weighted F1, by turn" in page.text
    assert path.read_text().count(">scripts: last ") == 2


def test_what_a_batch_changes_is_said(run_dir: Path, config: RunConfig) -> None:
    """In half precision a reply may depend on its batch; the reader of the numbers is told how often."""
    about = json.loads((run_dir / GENERATION).read_text())
    (run_dir / GENERATION).write_text(json.dumps(about | {"one_by_one": {"replies": 8, "same": 7}}))
    score_run(run_dir, config)
    assert "Of 8 replies made singly too, 7 were the same." in read(write_report(run_dir, config)).text


def test_counterfactual_scores_stand_beside_the_paper(run_dir: Path, answers: list[Answer]) -> None:
    """Columns that the paper lacks are empty in its rows, and filled in ours."""
    branches = [replace(answer, scene={"script": "s"}, reply=answer.reference) for answer in answers[1:3]]
    config = load_config("recipe=dailytalk")
    write_run(run_dir, branches, config)
    score_run(run_dir, config)
    text = read(write_report(run_dir, config)).text
    beside = text.split("Beside the paper")[1]
    assert "counterfactual, whole groups" in beside.split("this run")[0]
    assert "100.0" in beside.split("this run")[1].split("Training")[0]
