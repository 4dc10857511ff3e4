"""Broken and odd lines and audio files, made on the fly: what each does to a sound store, and what must be said of it.

A store has three dialogues on three lines; a case changes line 2 or what it points to. One second of noise at 16 kHz
is what user turns hear.
"""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 16_000
Record = dict[str, Any]


def speech(seed: int = 0, samples: int = RATE) -> NDArray[np.float64]:
    """Noise below 3 kHz within +-0.5, on the grid of 16 bits: every rate from 8 kHz holds it."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    spectrum[int(len(spectrum) * 3 / 8) :] = 0
    wave = np.fft.irfft(spectrum, samples)
    return np.round(0.5 * wave / np.abs(wave).max() * 32_768) / 32_768


def sound_record(number: int) -> Record:
    """Two rounds, the user's turns (0 and 2) heard."""
    turns: list[Record] = []
    for place in (0, 1):
        audio = {"path": f"audio/{number}-{place}.wav", "num_samples": RATE}
        turns.append({"role": "user", "text": "I am home.", "style": {"emotion": "sad"}, "audio": audio})
        turns.append({"role": "assistant", "text": "Tell me.", "style": {"gender": "male", "emotion": "neutral"}})
    return {"id": f"d{number}", "source": "tests", "scene": {"scenario": "x"}, "turns": turns}


@lru_cache
def _wav(seed: int) -> bytes:
    encoded = io.BytesIO()
    soundfile.write(encoded, speech(seed), RATE, format="WAV", subtype="PCM_16")
    return encoded.getvalue()


class Draft:
    """A store before it is written: its lines as records or bytes, its audio on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[Record | bytes] = [sound_record(number) for number in (1, 2, 3)]
        self.begin, self.end = b"", b"\n"
        (root / "audio").mkdir(parents=True)
        for number in (1, 2, 3):
            for place in (0, 1):
                (root / f"audio/{number}-{place}.wav").write_bytes(_wav(number))

    @property
    def record(self) -> Record:
        """Line 2."""
        assert isinstance(self.lines[1], dict)
        return self.lines[1]

    @property
    def turns(self) -> list[Record]:
        """The turns of line 2."""
        turns: list[Record] = self.record["turns"]
        return turns

    @property
    def audio(self) -> Record:
        """The audio of turn 2 of line 2."""
        audio: Record = self.turns[2]["audio"]
        return audio

    @property
    def file(self) -> Path:
        """The file of that audio."""
        return self.root / "audio/2-1.wav"

    def raw(self, content: bytes) -> None:
        """Put bytes in place of line 2."""
        self.lines[1] = content

    def text(self) -> str:
        """Line 2 as it is written."""
        return json.dumps(self.record)

    def write(self) -> Path:
        """Write the JSONL and return its path."""
        path = self.root / "train.jsonl"
        encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in self.lines]
        path.write_bytes(self.begin + b"".join(line + self.end for line in encoded))
        return path


@dataclass(frozen=True)
class Case:
    """A fault. `line` and `turn` are where it is; 2 and 2 is the audio of the second user turn."""

    name: str
    reason: str
    make: Callable[[Draft], Any]
    turn: int | None = 2
    line: int | None = 2
    says: str = ""


def cut(path: Path, keep: float) -> None:
    """Lose the end of a file, as a copy that was stopped does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def flip(path: Path, share: float) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)


def as_file(draft: Draft, name: str, **options: Any) -> Path:
    """The audio in another form, under a name that may lie about it."""
    path = draft.root / "audio" / name
    soundfile.write(path, options.pop("wave", speech(2)), options.pop("rate", RATE), **options)
    draft.audio["path"] = f"audio/{name}"
    return path


def samples(draft: Draft, wave: NDArray[Any], subtype: str = "FLOAT", rate: int = RATE) -> None:
    """Other samples in the file."""
    soundfile.write(draft.file, wave, rate, subtype=subtype)


def broken_sample(draft: Draft, value: float, subtype: str = "FLOAT") -> None:
    """One sample that is no number, or beyond all of them."""
    wave = speech(2)
    wave[9_000] = value
    samples(draft, wave, subtype)


def header(draft: Draft, place: int, content: bytes) -> None:
    """Overwrite some bytes of the WAV header."""
    whole = bytearray(draft.file.read_bytes())
    whole[place : place + len(content)] = content
    draft.file.write_bytes(whole)


def renamed(draft: Draft, name: str) -> None:
    """The same audio under another name."""
    draft.file.rename(draft.root / "audio" / name)
    draft.audio["path"] = f"audio/{name}"


def linked_out(draft: Draft) -> None:
    """A link that leads out of the store."""
    outside = draft.root.parent / "outside.wav"
    soundfile.write(outside, speech(), RATE)
    draft.file.unlink()
    draft.file.symlink_to(outside)


def linked_folder(draft: Draft) -> None:
    """A folder that leads out of the store."""
    outside = draft.root.parent / "outside"
    outside.mkdir()
    soundfile.write(outside / "a.wav", speech(), RATE)
    (draft.root / "audio/more").symlink_to(outside)
    draft.audio["path"] = "audio/more/a.wav"


def mp3_cut(draft: Draft, name: str) -> None:
    """An MP3 whose header still promises all of it."""
    path = as_file(draft, name, format="MP3")
    draft.audio["num_samples"] = soundfile.info(path).frames
    cut(path, 0.4)


def audio_is(**values: Any) -> Callable[[Draft], Any]:
    """Change keys of the audio."""
    return lambda draft: draft.audio.update(values)


def turn_is(number: int, **values: Any) -> Callable[[Draft], Any]:
    """Change keys of a turn."""
    return lambda draft: draft.turns[number].update(values)


def line_is(**values: Any) -> Callable[[Draft], Any]:
    """Change keys of the dialogue."""
    return lambda draft: draft.record.update(values)


def roles(names: str) -> Callable[[Draft], Any]:
    """Give the turns these roles, u or a; text, no audio."""
    turns = [{"role": {"u": "user", "a": "assistant"}[name], "text": "words"} for name in names]
    return lambda draft: draft.record.update(turns=turns)


def style(number: int, **values: Any) -> Callable[[Draft], Any]:
    """Change a turn's style."""
    return lambda draft: draft.turns[number].update(style=values)


def content(data: bytes) -> Callable[[Draft], Any]:
    """Other bytes in the audio file."""
    return lambda draft: draft.file.write_bytes(data)


NOISE = np.random.default_rng(0).bytes(40_000)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"

FILES = [  # reliability: missing, unreadable, broken headers
    Case("missing", "no_file", lambda d: d.file.unlink()),
    Case("folder", "no_file", lambda d: (d.file.unlink(), d.file.mkdir())),
    Case("fifo", "no_file", lambda d: (d.file.unlink(), os.mkfifo(d.file))),
    Case("dead_link", "no_file", lambda d: (d.file.unlink(), d.file.symlink_to("gone.wav"))),
    Case("link_in_circles", "no_file", lambda d: (d.file.unlink(), d.file.symlink_to(d.file))),
    Case("name_too_long", "no_file", audio_is(path="x" * 300)),
    Case("path_too_long", "no_file", audio_is(path="x/" * 4_000 + "a.wav")),
    Case("file_as_folder", "no_file", audio_is(path="audio/2-0.wav/a.wav")),
    Case("other_case", "no_file", audio_is(path="audio/2-1.WAV")),
    Case("empty", "unreadable", content(b"")),
    Case("html", "unreadable", content(HTML)),
    Case("json", "unreadable", content(b'{"error": "quota"}')),
    Case("random", "unreadable", content(NOISE)),
    Case("zeros", "unreadable", content(bytes(32_044))),
    Case("git_lfs_pointer", "unreadable", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9")),
    Case("header_only_riff", "unreadable", content(b"RIFF\x24\x7d\x00\x00WAVE")),
    Case("raw_pcm", "unreadable", lambda d: renamed(d, "a.raw")),
    Case("no_channels", "unreadable", lambda d: header(d, 22, b"\0\0")),
    Case("rate_0", "unreadable", lambda d: header(d, 24, bytes(4))),
    Case("rate_4e9", "unreadable", lambda d: header(d, 24, b"\xff\xff\xff\xee")),
    Case("rate_1", "unreadable", lambda d: header(d, 24, b"\x01\0\0\0")),
    Case("bad_format_chunk", "unreadable", lambda d: header(d, 20, b"\x99\x99")),
    Case("flac_cut", "unreadable", lambda d: cut(as_file(d, "a.flac"), 0.5)),
    Case("flac_flipped", "unreadable", lambda d: flip(as_file(d, "a.flac"), 0.5)),
    Case("flac_named_wav_flipped", "unreadable", lambda d: flip(as_file(d, "b.wav", format="FLAC"), 0.6)),
    Case("nine_channels", "too_many_channels", lambda d: samples(d, np.tile(speech()[:, None], 9))),
    Case("a_thousand_channels", "too_many_channels", lambda d: samples(d, np.tile(speech(0, 320)[:, None], 1_000))),
    Case("no_such_channel", "no_channel", audio_is(channel=1), says="the file has 1"),
]
LENGTHS = [
    Case("no_samples", "empty", lambda d: samples(d, np.zeros(0))),
    Case("no_samples_promised", "too_short", audio_is(num_samples=0)),
    Case("one_sample", "too_short", lambda d: (samples(d, speech()[:1]), d.audio.update(num_samples=1))),
    Case("159_samples", "too_short", audio_is(num_samples=159)),
    Case("24_ms", "too_short", audio_is(num_samples=384), says="24.0 ms"),
    Case("half_a_wav", "truncated", lambda d: cut(d.file, 0.5), says="the file holds 7989"),
    Case("half_a_wav_as_listed", "truncated", lambda d: (cut(d.file, 0.5), d.audio.update(num_samples=7_989))),
    Case("wav_header_left", "empty", lambda d: cut(d.file, 44 / 32_044)),
    Case("one_percent_lost", "truncated", lambda d: cut(d.file, 0.99)),
    Case("three_samples_lost", "truncated", lambda d: samples(d, speech()[:-3], "PCM_16")),
    Case("half_at_44k", "truncated", lambda d: (samples(d, np.zeros(44_100) + 0.1, rate=44_100), cut(d.file, 0.5))),
    Case("mp3_cut", "truncated", lambda d: mp3_cut(d, "a.mp3")),
    Case("mp3_named_wav_cut", "truncated", lambda d: mp3_cut(d, "b.wav")),
    Case("start_beyond_the_end", "truncated", audio_is(start=2 * RATE)),
    Case("stretch_over_the_end", "truncated", audio_is(start=8_000)),
    Case("a_year_promised", "truncated", audio_is(num_samples=2**31 - 1)),
]
SAMPLES = [
    Case("nan", "not_finite", lambda d: broken_sample(d, np.nan)),
    Case("infinite", "not_finite", lambda d: broken_sample(d, np.inf)),
    Case("minus_infinite", "not_finite", lambda d: broken_sample(d, -np.inf, "DOUBLE")),
    Case("all_nan", "not_finite", lambda d: samples(d, np.full(RATE, np.nan))),
    Case("beyond_float32", "not_finite", lambda d: broken_sample(d, 1e300, "DOUBLE")),
    Case("other_bytes", "other_bytes", audio_is(sha256="0" * 64), says="sha256"),
]
LINES = [
    Case("blank_object", "wrong_type", lambda d: d.raw(b"{}"), None),
    Case("cut_off", "bad_json", lambda d: d.raw(d.text()[:-20].encode()), None),
    Case("no_json", "bad_json", lambda d: d.raw(HTML), None),
    Case("single_quotes", "bad_json", lambda d: d.raw(d.text().replace('"', "'").encode()), None),
    Case("two_on_a_line", "bad_json", lambda d: d.raw(d.text().encode() * 2), None, says="Extra data"),
    Case("trailing_comma", "bad_json", lambda d: d.raw(d.text()[:-1].encode() + b",}"), None),
    Case("zeros_in_the_line", "bad_json", lambda d: d.raw(d.text().encode() + bytes(512)), None),
    Case("only_zeros", "bad_json", lambda d: d.raw(bytes(512)), None),
    Case("nul_in_a_string", "bad_json", lambda d: d.raw(d.text().replace("home", "ho\0me").encode()), None),
    Case("deep_nesting", "bad_json", lambda d: d.raw(b"[" * 100_000), None),
    Case("number_too_long", "bad_json", lambda d: d.raw(b'{"id": ' + b"9" * 5_000 + b"}"), None),
    Case("latin_1", "bad_encoding", lambda d: d.raw(d.text().replace("home", "höme").encode("latin-1")), None),
    Case("utf_16", "bad_encoding", lambda d: d.raw(b"\xff\xfe" + d.text().encode("utf-16-le")), None),
    Case("half_surrogate", "bad_encoding", lambda d: d.raw(d.text().replace("home", "\\ud83d").encode()), None),
    Case("nul_in_text", "bad_encoding", turn_is(1, text="a\0b"), 1, says="NUL"),
    Case("nul_in_id", "bad_encoding", line_is(id="a\0b"), None),
    Case("ten_megabytes", "line_too_long", turn_is(1, text="x" * 10_000_000), None, says="one dialogue a line"),
    Case("a_list", "wrong_type", lambda d: d.raw(b"[1, 2]"), None),
    Case("a_string", "wrong_type", lambda d: d.raw(b'"dialogue"'), None),
    Case("null", "wrong_type", lambda d: d.raw(b"null"), None),
    Case("no_id", "wrong_type", lambda d: d.record.pop("id"), None, says="id .string."),
    Case("id_is_a_number", "wrong_type", line_is(id=7), None),
    Case("no_turns_key", "wrong_type", lambda d: d.record.pop("turns"), None),
    Case("turns_is_an_object", "wrong_type", line_is(turns={}), None),
    Case("source_is_null", "wrong_type", line_is(source=None), None),
    Case("scene_is_a_list", "wrong_type", line_is(scene=[1]), None),
    Case("scene_of_numbers", "wrong_type", line_is(scene={"n": 1}), None),
    Case("extra_key", "unknown_key", line_is(speaker="A"), None, says="speaker"),
    Case("key_twice", "duplicate_key", lambda d: d.raw(d.text()[:-1].encode() + b', "id": "d9"}'), None, says="id t"),
    Case("id_twice", "duplicate_id", line_is(id="d1"), None, says="train.jsonl:1 too"),
]
TURNS = [
    Case("turn_is_a_string", "wrong_type", lambda d: d.turns.insert(2, "hello"), 2),  # type: ignore[arg-type]
    Case("turn_with_extra_key", "unknown_key", turn_is(3, emotion="sad"), 3),
    Case("text_is_a_number", "wrong_type", turn_is(3, text=3), 3),
    Case("text_is_null", "wrong_type", turn_is(3, text=None), 3),
    Case("meta_of_numbers", "wrong_type", turn_is(3, meta={"start": 1.5}), 3),
    Case("audio_is_a_path", "wrong_type", turn_is(2, audio="audio/2-1.wav")),
    Case("audio_is_a_list", "wrong_type", turn_is(2, audio=[])),
    Case("audio_without_path", "wrong_type", turn_is(2, audio={"num_samples": RATE})),
    Case("audio_without_length", "wrong_type", turn_is(2, audio={"path": "audio/2-1.wav"})),
    Case("audio_with_extra_key", "wrong_type", audio_is(duration=1.0)),
    Case("length_in_seconds", "wrong_type", audio_is(num_samples=1.5)),
    Case("length_is_true", "wrong_type", audio_is(num_samples=True)),
    Case("length_is_negative", "wrong_type", audio_is(num_samples=-1)),
    Case("length_is_nan", "wrong_type", audio_is(num_samples=float("nan"))),
    Case("length_beyond_all", "wrong_type", audio_is(num_samples=10**30)),
    Case("start_is_negative", "wrong_type", audio_is(start=-5)),
    Case("channel_is_a_name", "wrong_type", audio_is(channel="left")),
    Case("sha256_of_another_kind", "wrong_type", audio_is(sha256="md5")),
    Case("no_role", "unknown_role", lambda d: d.turns[1].pop("role"), 1),
    Case("role_of_another_kind", "unknown_role", turn_is(1, role="bot"), 1),
    Case("role_is_a_list", "unknown_role", turn_is(1, role=["user"]), 1),
    Case("role_in_capitals", "unknown_role", turn_is(1, role="Assistant"), 1),
    Case("no_turns", "no_turns", line_is(turns=[]), None),
    Case("users_only", "no_assistant_turn", roles("uuu"), None),
    Case("user_last", "last_turn_not_assistant", roles("uau"), None),
    Case("assistant_only", "no_user_turn", roles("aa"), None),
    Case("empty_answer", "empty_text", turn_is(3, text=""), 3),
    Case("blank_answer", "empty_text", turn_is(3, text=" \n\t\u3000"), 3),
    Case("user_without_audio_and_text", "empty_text", lambda d: (d.turns[2].pop("audio"), d.turns[2].pop("text"))),
    Case("unknown_emotion", "unknown_style", style(3, emotion="hapy"), 3, says="did you mean 'happy'"),
    Case("emotion_in_capitals", "unknown_style", style(3, emotion="Sad"), 3, says="did you mean 'sad'"),
    Case("emotion_of_another_set", "unknown_style", style(3, emotion="joy"), 3, says="neutral, happy, angry"),
    Case("empty_emotion", "unknown_style", style(3, emotion=""), 3),
    Case("emotion_is_a_number", "unknown_style", style(3, emotion=3), 3),
    Case("emotion_is_a_list", "unknown_style", style(3, emotion=["sad"]), 3),
    Case("unknown_speed", "unknown_style", style(3, speed="quick"), 3, says="slow, normal, fast"),
    Case("unknown_gender", "unknown_style", style(2, gender="f")),
    Case("unknown_style_field", "unknown_style", style(3, mood="sad"), 3),
    Case("style_is_a_string", "unknown_style", turn_is(3, style="sad"), 3),
]
PATHS = [
    Case("up", "path_outside_root", audio_is(path="../outside.wav")),
    Case("up_from_within", "path_outside_root", audio_is(path="audio/../../outside.wav")),
    Case("absolute", "path_outside_root", audio_is(path="/etc/passwd")),
    Case("the_root_itself", "path_outside_root", audio_is(path=".")),
    Case("link_out", "path_outside_root", linked_out),
    Case("linked_folder_out", "path_outside_root", linked_folder),
    Case("file_url", "path_outside_root", audio_is(path="file:///etc/passwd")),
    Case("file_url_short", "path_outside_root", audio_is(path="file:/etc/passwd")),
    Case("web_url", "path_outside_root", audio_is(path="https://example.org/a.wav")),
    Case("drive", "path_outside_root", audio_is(path="C:\\audio\\a.wav")),
    Case("drive_with_slash", "path_outside_root", audio_is(path="c:/audio/a.wav")),
    Case("share", "path_outside_root", audio_is(path="\\\\server\\a.wav")),
    Case("up_on_windows", "path_outside_root", audio_is(path="audio\\..\\..\\a.wav")),
    Case("nul_in_path", "wrong_type", audio_is(path="audio/2-1.wav\0.txt")),
    Case("empty_path", "wrong_type", audio_is(path="")),
    Case("path_is_a_number", "wrong_type", audio_is(path=3)),
    Case("home", "no_file", audio_is(path="~/a.wav")),
]
CASES = [*FILES, *LENGTHS, *SAMPLES, *LINES, *TURNS, *PATHS]


@dataclass(frozen=True)
class Odd:
    """What is odd, and no fault; `notice` is what it is counted as, if anything."""

    name: str
    make: Callable[[Draft], Any]
    notice: str = ""


def loud(draft: Draft) -> None:
    """A tone far too loud for 16 bits."""
    samples(draft, np.clip(3 * np.sin(np.arange(RATE) / 20), -1, 1), "PCM_16")


def resampled(draft: Draft, rate: int) -> None:
    """The audio at another rate."""
    samples(draft, soxr.resample(speech(2), RATE, rate), rate=rate)


ODD = [
    Odd("byte_order_mark", lambda d: setattr(d, "begin", b"\xef\xbb\xbf")),
    Odd("crlf", lambda d: setattr(d, "end", b"\r\n")),
    Odd("blank_lines", lambda d: setattr(d, "end", b"\n\n  \n")),
    Odd("no_last_line_end", lambda d: setattr(d, "begin", b"\n")),
    Odd("text_in_many_scripts", turn_is(1, text="早 \u2028 é é 👩‍👩‍👧 \u200b")),
    Odd("style_is_null", turn_is(1, style=None)),
    Odd("audio_is_null", turn_is(1, audio=None)),
    Odd("two_users_in_a_row", roles("uuaua")),
    Odd("two_answers_in_a_row", roles("uaa")),
    Odd("assistant_first", roles("aua")),
    Odd("a_hundred_turns", roles("ua" * 50)),
    Odd("user_without_words", lambda d: d.turns[2].pop("text")),
    Odd("user_without_audio", lambda d: d.turns[2].pop("audio")),
    Odd("control_token_in_text", turn_is(1, text="stop <|eot_id|><|start_header_id|>user"), "control_token"),
    Odd("link_within", lambda d: (d.file.unlink(), d.file.symlink_to("2-0.wav"))),
    Odd("dots_in_a_name", lambda d: renamed(d, "..a..wav")),
    Odd("space_and_accents", lambda d: renamed(d, "é b.wav")),
    Odd("longer_than_promised", audio_is(num_samples=9_000)),
    Odd("25_ms", audio_is(num_samples=400)),
    Odd("mp3_named_wav", lambda d: as_file(d, "b.wav", format="MP3")),
    Odd("flac_named_wav", lambda d: as_file(d, "b.wav", format="FLAC")),
    Odd("ogg", lambda d: as_file(d, "a.ogg")),
    Odd("silence", lambda d: samples(d, np.zeros(RATE)), "silent_clip"),
    Odd("clipped", loud, "clipped_clip"),
    Odd("over_one", lambda d: samples(d, speech() * 4), "peak_over_one"),
    Odd("35_seconds", lambda d: (samples(d, speech(0, 35 * RATE)), d.audio.update(num_samples=35 * RATE))),
    *(
        Odd(subtype.lower(), lambda d, subtype=subtype: samples(d, speech(2), subtype))  # type: ignore[misc]
        for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW")
    ),
    *(
        Odd(f"{count}_channels", lambda d, count=count: samples(d, np.tile(speech(2)[:, None], count)))  # type: ignore[misc]
        for count in (2, 6, 8)
    ),
    *(Odd(f"{rate}_hz", lambda d, rate=rate: resampled(d, rate)) for rate in (8_000, 44_100, 48_000)),  # type: ignore[misc]
]
