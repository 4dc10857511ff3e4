"""What the stages hand to each other: frozen pydantic models, and the table of reasons for which a thing is refused.

The order of life: a `Brief` (what to write about) becomes a `Script` (words and styles; branches share their history
and the words of the current turn), each branch of it a `Plan` (a dialogue with voices), each spoken turn of that an
`Utterance`, which becomes `Speech` (a clean recording); a plan with its speech becomes a `Mixed` dialogue.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from omnichat.dialogue import Style

Speaker = Literal["user", "assistant"]
Subset = Literal["emotion", "audio", "music"]
Placement = Literal["none", "before", "under"]

# code: (stage, meaning). Every rejection and every retry bears one of these.
REASONS: dict[str, tuple[str, str]] = {
    "llm_http": ("scripts", "the language model's server answered with an error"),
    "llm_timeout": ("scripts", "the language model's server did not answer in time"),
    "llm_length": ("scripts", "the answer was cut off at its longest"),
    "llm_json": ("scripts", "the answer is not JSON"),
    "llm_schema": ("scripts", "the answer is JSON of another shape"),
    "llm_refusal": ("scripts", "the language model declined"),
    "turns_count": ("scripts", "another number of turns than asked for"),
    "speaker_order": ("scripts", "the speakers do not alternate as asked"),
    "gender_drift": ("scripts", "a speaker changes gender"),
    "style_out_of_set": ("scripts", "a style value that is not in the vocabulary"),
    "branch_text_differs": ("scripts", "the current turn's words are not the same in all branches"),
    "branches_alike": ("scripts", "two branches have the same style or the same reply"),
    "not_one_sentence": ("scripts", "a turn is not one sentence"),
    "language": ("scripts", "a turn is not in the language asked for"),
    "stage_directions": ("scripts", "a turn holds notes that would be read aloud"),
    "repeated_turn": ("scripts", "a turn repeats an earlier one"),
    "sound_ignored": ("scripts", "no reply has to do with the sound"),
    "judge": ("scripts", "the judge's score is below the threshold"),
    "unsafe": ("scripts", "the words are not fit to be spoken"),
    "duplicate": ("deduplicate", "an earlier script says nearly the same"),
    "tts_http": ("speak", "the speech server answered with an error"),
    "tts_timeout": ("speak", "the speech server did not answer in time"),
    "tts_empty": ("speak", "no audio came back"),
    "tts_format": ("speak", "what came back is not audio of the expected form"),
    "tts_silent": ("speak", "the recording is silent"),
    "tts_clipped": ("speak", "the recording is clipped"),
    "tts_engine": ("speak", "the embedded engine died or refused"),
    "dur_ratio": ("speak", "far too short or too long for its words"),
    "wer": ("speak", "other words were recognised"),
    "speaker": ("speak", "the voice is not the speaker's"),
    "emotion": ("speak", "another emotion was recognised"),
    "asr_http": ("speak", "the recognition server answered with an error or not in time"),
    "attempts_exhausted": ("speak", "refused as often as is allowed"),
    "turn_missing": ("mix", "a turn of the dialogue could not be spoken"),
    "clip_missing": ("mix", "there is no clip for the sound"),
    "clip_silent": ("mix", "the clip is silent"),
    "clip_short": ("mix", "the clip is too short"),
    "clip_voice": ("mix", "a human voice is heard in the clip"),
    "caption_missing": ("mix", "the clip has no caption"),
    "mix_loudness": ("mix", "the loudness cannot be measured or reached"),
    "mix_peak": ("mix", "the peak limit cannot be kept"),
    "disk_full": ("any", "the disk is full"),
    "backend": ("any", "what the stage works with refuses altogether; this stops the run and rejects nothing"),
    "internal": ("any", "a fault of the program; the message holds its last line"),
}


class Contract(BaseModel):
    """A value that is checked when it is made, never changed, and written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sound(Contract):
    """What is to be heard beside the voices.

    Attributes:
        kind: "audio" for events, "music".
        caption: what the writer is told: a caption of AudioCaps' kind, or MusicCaps' aspect list.
        clip: id of the clip in the clip catalogue; an empty one is chosen by the caption.
    """

    kind: Literal["audio", "music"]
    caption: str
    clip: str = ""


class Brief(Contract):
    """What a script is written from.

    Attributes:
        recipe: name of the script recipe.
        number: of the script in its run; the split hangs on it.
        split: "train", "val", "test" or another store split; all branches of a script are in one.
        topic: what the dialogue is about.
        history_turns: turns before the current one: 4, 6 or 8 in the paper.
        sound: what will be heard, for the subsets with sounds.
        sounds: one per branch, where the branches differ in it (quickstart); a branch's plan has it as `sound`.
        start_emotion: of the first turn, where the recipe walks a transition graph.
        styles: how the current turn is to be said, one per branch; none where the writer chooses.
    """

    recipe: str
    number: int = Field(ge=0)
    split: str
    topic: str
    history_turns: int = Field(ge=0)
    sound: Sound | None = None
    sounds: tuple[Sound | None, ...] = ()
    start_emotion: str | None = None
    styles: tuple[Style, ...] = ()


class Line(Contract):
    """A turn in words.

    Attributes:
        speaker: who says it.
        text: one sentence, as it is to be spoken.
        style: how.
        kind: an interruption or backchannel overlaps the line before it (two-track dialogues only).
        gap: seconds from the end of the line before it, backchannels aside, to its start; negative: it begins so long
            before that end.
        cut: the share of the line that is spoken before it is broken off; 1 says all of it.
    """

    speaker: Speaker
    text: str
    style: Style
    kind: Literal["turn", "interruption", "backchannel"] = "turn"
    gap: float = 0.0
    cut: float = Field(default=1.0, gt=0, le=1)


class Branch(Contract):
    """One way to say the current turn, and the reply to it."""

    style: Style
    reply: Line


class Script(Contract):
    """The words of all dialogues of a brief: a shared history, one current user turn, a reply per branch."""

    brief: Brief
    history: tuple[Line, ...]
    current: str
    branches: tuple[Branch, ...] = Field(min_length=1)


class Voice(Contract):
    """A speaker of a speech backend.

    Attributes:
        name: what the backend calls it.
        gender: one of `omnichat.dialogue.GENDERS`.
    """

    name: str
    gender: str


class Plan(Contract):
    """One dialogue before it is spoken.

    Attributes:
        id: of the dialogue, unique in its run: "RECIPE-NUMBER-BRANCH".
        group: of the dialogues that share their words and differ in style.
        script, branch: where it comes from.
        lines: all turns, the reply last.
        voices: of each speaker.
        brief: of the script.
    """

    id: str
    group: str
    brief: Brief
    branch: int
    lines: tuple[Line, ...] = Field(min_length=2)
    voices: dict[Speaker, Voice]


class Utterance(Contract):
    """A turn to be spoken. Equal utterances are spoken once, whatever dialogues they stand in."""

    text: str
    style: Style
    voice: Voice


class Speech(Contract):
    """A clean recording that has passed the gates.

    Attributes:
        blob: of the FLAC file, 16 kHz mono.
        num_samples: of the recording.
        transcript: what the recogniser heard; None without one.
        words, errors: of the normalised reference, and word errors in it, for the pooled rate of a conversation.
        measures: what the gates measured, by name.
    """

    blob: str
    num_samples: int = Field(ge=1)
    transcript: str | None = None
    words: int = 0
    errors: int = 0
    measures: dict[str, float] = Field(default_factory=dict)


class Piece(Contract):
    """A turn of a mixed dialogue.

    Attributes:
        blob: of the FLAC file, 16 kHz mono; the clean one where nothing was mixed in.
        num_samples: of the file.
        gain_db: of the speech; the same for all turns of a speaker.
        sound_gain_db: of the sound, None where there is none.
        sound_offset: sample of the clip's loop that is heard first.
        peak_db: of the mixed turn, dBFS.
        start: where the turn begins in the conversation's timeline, seconds.
    """

    blob: str
    num_samples: int = Field(ge=1)
    gain_db: float = 0.0
    sound_gain_db: float | None = None
    sound_offset: int = 0
    peak_db: float = 0.0
    start: float = 0.0


class ToMix(Contract):
    """A plan and the speech of its turns, None for turns that are not spoken (assistant turns, by default)."""

    plan: Plan
    speech: tuple[Speech | None, ...]


class Mixed(Contract):
    """A finished dialogue.

    Attributes:
        plan: what was to be made.
        pieces: turns in the order of the plan, None for those without audio.
        placement: of the sound.
        clip: id of the clip that is heard.
        licence, credit: of the clip; what the dataset card must say.
    """

    plan: Plan
    pieces: tuple[Piece | None, ...]
    placement: Placement = "none"
    clip: str = ""
    licence: str = ""
    credit: str = ""
