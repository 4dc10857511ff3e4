"""A run of `recipe=smoke` on broken data: a named error with file, line and turn, and how to mend it."""

import subprocess
import sys
from pathlib import Path

import pytest

from omnichat.config import ConfigError, load_config
from omnichat.dialogue import DataError
from omnichat.training.fit import fit
from tests.data.bad_input import CASES, RATE, Draft

ROOT = Path(__file__).parents[2]
RUN = (
    *("recipe=smoke", "data.made_up=null", "data.alpha=1", "trainer.validate_every=0", "trainer.generate_dialogues=0"),
    *("trainer.dialogues_per_step=3", "trainer.micro_batch=3", "trainer.max_steps=2", "trainer.warmup_steps=1"),
)
# What the scan finds before the first step.
SCANNED = [
    *("missing", "folder", "empty", "no_samples", "html", "half_a_wav", "nine_channels"),
    *("users_only", "user_last", "unknown_emotion", "unknown_speed", "cut_off", "id_twice", "up", "link_out"),
]
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run folder: its random weights are made once."""
    return tmp_path_factory.mktemp("run")


@pytest.mark.parametrize("name", SCANNED)
def test_broken_data_stops_a_run_before_its_first_step(name: str, run_dir: Path, tmp_path: Path) -> None:
    """Found in hour nine, it costs nine hours; skipped in silence, it costs the result."""
    case = BY_NAME[name]
    draft = Draft(tmp_path / "store")
    case.make(draft)
    path = draft.write()
    with pytest.raises(DataError) as caught:
        fit(load_config(*RUN, f"data.synthetic={path}"), run_dir)
    error = caught.value
    assert error.reason == case.reason
    assert error.where.startswith(f"{path}:2")
    assert case.turn is None or f"turn {case.turn}" in error.where
    assert not (run_dir / "checkpoints").exists()


@pytest.mark.parametrize("name", ["nan", "infinite", "flac_flipped", "mp3_cut"])
def test_audio_that_only_decoding_shows_to_be_broken_ends_a_run_by_name(
    name: str, run_dir: Path, tmp_path: Path
) -> None:
    """A header is all that a scan reads of audio; the step that meets such a file must not train on it."""
    case = BY_NAME[name]
    draft = Draft(tmp_path / "store")
    case.make(draft)
    path = draft.write()
    with pytest.raises(DataError) as caught:
        fit(load_config(*RUN, f"data.synthetic={path}"), run_dir)
    assert caught.value.reason == case.reason
    assert caught.value.where.startswith(f"{path}:2: dialogue 'd2': turn 2: {path.parent}/audio/")


def test_a_dialogue_over_the_context_is_named_with_the_cure(run_dir: Path, tmp_path: Path) -> None:
    """Cut in silence, it would lose its end, which is what is learnt."""
    draft = Draft(tmp_path / "store")
    draft.turns[3]["text"] = "word " * 2_000
    path = draft.write()
    with pytest.raises(
        DataError, match=r"the limit is 2048; raise max_tokens, or set overlong=.*\[too_long\]"
    ) as caught:
        fit(load_config(*RUN, f"data.synthetic={path}"), run_dir)
    assert caught.value.where.startswith(f"{path}:2")


@pytest.mark.parametrize(
    ("alpha", "lacking", "cure"),
    [
        ("0.5", "data.real", "data.alpha: 0.5 draws real dialogues; set data.real, or data.alpha=1"),
        ("0.5", "data.synthetic", "data.alpha: 0.5 draws synthetic dialogues; set data.synthetic, or data.alpha=0"),
        ("0", "data.real", "data.alpha: 0 draws real dialogues; set data.real, or data.alpha=1"),
        ("1", "data.synthetic", "data.alpha: 1 draws synthetic dialogues; set data.synthetic, or data.alpha=0"),
    ],
)
def test_a_ratio_without_its_source_is_refused(alpha: str, lacking: str, cure: str, tmp_path: Path) -> None:
    """Training on the other source alone would be another experiment under the same name."""
    path = Draft(tmp_path / "store").write()
    given = ({"data.real", "data.synthetic"} - {lacking}).pop()
    with pytest.raises(ConfigError) as caught:
        load_config(*RUN, f"data.alpha={alpha}", f"{given}={path}")
    assert caught.value.faults == [cure]


def test_the_command_line_names_all_faults_and_shows_no_traceback(tmp_path: Path) -> None:
    """What a user sees: one message, every fault in it, exit code 1."""
    draft = Draft(tmp_path / "store")
    (draft.root / "audio/1-0.wav").unlink()
    draft.turns[3]["style"] = {"emotion": "hapy"}
    draft.lines[2]["turns"] = draft.lines[2]["turns"][:1]  # type: ignore[index,call-overload]
    path = draft.write()
    run = (f"data.synthetic={path}", f"hydra.run.dir={tmp_path}/run")
    command = [sys.executable, str(ROOT / "train.py"), *RUN, *run]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=250)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip().startswith((str(path), "train.py"))]
    assert lines[0].startswith("train.py: 3 faults in the data")
    expected = [
        (f"{path}:1: dialogue 'd1': turn 0: ", "[no_file]"),
        (f"{path}:2: dialogue 'd2': turn 3: ", "did you mean 'happy'"),
        (f"{path}:3: dialogue 'd3': ", "[no_assistant_turn]"),
    ]
    for line, (place, says) in zip(lines[1:], expected, strict=True):
        assert line.startswith(place)
        assert says in line


def test_a_sound_store_trains(run_dir: Path, tmp_path: Path) -> None:
    """The tests above must fail for what is broken, not for how they are set up."""
    draft = Draft(tmp_path / "store")
    draft.audio["num_samples"] = RATE - 3
    assert fit(load_config(*RUN, f"data.synthetic={draft.write()}"), run_dir) == 0
