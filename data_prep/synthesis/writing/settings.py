"""What is to be written, and by whom: the section `writing:` of a recipe."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from data_prep.synthesis.contracts import Contract, Subset
from omnichat.dialogue import EMOTIONS

Recipe = Literal[
    "sharechat_emotion",
    "sharechat_audio",
    "sharechat_music",
    "deepdialogue",
    "interact",
    "quickstart",
    "dailytalk_respoken",
]

SUBSETS: dict[str, Subset] = {
    "sharechat_emotion": "emotion",
    "sharechat_audio": "audio",
    "sharechat_music": "music",
}

MAX_TEMPLATE_TURNS = 20  # an opening, an introduction and eight details, each an exchange


class WritingSettings(Contract):
    """How scripts come about.

    Attributes:
        recipe: the kind of script. The three ShareChatX subsets: a history, a current turn in three styles, three
            replies (OmniChat, section 3 and App. D). `deepdialogue`: two models turn by turn along a graph of
            emotions. `interact`: two tracks with interruptions and backchannels. `quickstart`: its
            grammar. `dailytalk_respoken`: the dialogues of DailyTalk.
        writer: `template`, a grammar that needs no model; `llm`, any OpenAI-compatible server (section `chat:`).
        topics: a file of topics instead of the shipped one: YAML like `data/topics.yaml`, or text, one topic a line.
        captions: a CSV of sounds instead of the synthesised ones: AudioCaps' columns for `sharechat_audio`,
            MusicCaps' for `sharechat_music`.
        history_turns: before the current turn; one of them is drawn for each script. The paper: 4, 6 or 8.
        styles: of the current turn: `balanced` prescribes them, each emotion, speed and pitch equally often in each
            split; `free` lets the language model choose, as in the paper.
        sentences: in a turn, at most. The paper's prompt says one; half of its published turns have two or three,
            and so have three in four of DeepDialogue's.
        max_words: in a turn, at most; ours.
        max_attempts: of a script, each with another seed.
        models: the two models that speak with each other in `deepdialogue`; empty: `chat.model` with itself.
        judge_threshold: of the judge's score in 0..1, below which a dialogue of `deepdialogue` is refused; None: no
            judge is asked. The templates have none.
        overlap_share: of the exchanges of `interact` that hold an interruption or a backchannel.
        corpus: folder of DailyTalk's lists or release, for `dailytalk_respoken`.
        also_as: emotions in which the last user turn is spoken too, in `dailytalk_respoken`, each a dialogue whose
            reply has the same words and an emotion that answers it: for the counterfactual score, not for training.
        roles: who is the assistant of `dailytalk_respoken`; see `omnichat.data.corpora.reading`.
    """

    recipe: Recipe = "sharechat_emotion"
    writer: Literal["template", "llm"] = "template"
    topics: Path | None = None
    captions: Path | None = None
    history_turns: tuple[int, ...] = Field(default=(4, 6, 8), min_length=1)
    styles: Literal["balanced", "free"] = "balanced"
    sentences: int = Field(default=1, ge=1)
    max_words: int = Field(default=40, ge=3)
    max_attempts: int = Field(default=10, ge=1)
    models: tuple[str, ...] = Field(default=(), max_length=2)
    judge_threshold: float | None = Field(default=0.6, ge=0, le=1)
    overlap_share: float = Field(default=0.5, ge=0, le=1)
    corpus: Path | None = None
    also_as: tuple[Literal["neutral", "happy", "angry", "sad", "surprised", "fearful", "disgusted"], ...] = ()
    roles: Literal["last_speaker", "second_speaker"] = "last_speaker"

    @model_validator(mode="after")
    def _fits(self) -> "WritingSettings":
        if any(count < 0 for count in self.history_turns):
            raise ValueError("history_turns: a number of turns is 0 or more")
        if self.recipe != "deepdialogue" and any(count % 2 for count in self.history_turns):
            raise ValueError("history_turns: even numbers, as the user begins and speaks the current turn; try 4, 6, 8")
        if self.writer == "template" and max(self.history_turns) > MAX_TEMPLATE_TURNS:
            raise ValueError(f"history_turns: the templates have words for {MAX_TEMPLATE_TURNS} at most; try 4, 6, 8")
        if self.recipe == "deepdialogue" and self.writer == "template" and self.topics is not None:
            raise ValueError("topics: the templates know the shipped domains only; leave it out, or set writer=llm")
        if self.captions is not None and self.recipe not in ("sharechat_audio", "sharechat_music"):
            raise ValueError("captions: only sharechat_audio and sharechat_music have sounds; leave it out")
        if self.writer == "llm" and self.recipe == "quickstart":
            raise ValueError("writer: the quickstart's words come from its grammar; set writer=template")
        if self.recipe == "quickstart" and not (set(self.history_turns) <= {2, 4} and self.sentences >= 3):
            raise ValueError(
                "its grammar has histories of 2 or 4 turns and up to 3 sentences; set history_turns=[2,4] sentences=3"
            )
        if self.styles == "free" and self.writer == "template":
            raise ValueError("styles: the template writer does not choose; set styles=balanced, or writer=llm")
        return self

    @property
    def branches(self) -> int:
        """Ways in which the current turn is said, each a dialogue."""
        if self.recipe == "quickstart":
            return len(EMOTIONS)
        if self.recipe == "dailytalk_respoken":
            return 1 + len(set(self.also_as))
        return 3 if self.recipe in SUBSETS else 1
