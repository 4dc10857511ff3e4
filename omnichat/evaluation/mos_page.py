"""A page for listeners: dialogues to be heard and replies to be rated from 1 to 5, blind. One file, no server.

The order is shuffled, and nothing in the page says which system a reply is from: that is in the key file, which the
listeners do not get. Ratings are saved by the browser as a JSON file.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from omnichat.audio import audio_ref
from omnichat.dialogue import STYLE_FIELDS, DataError, Reply, Style
from omnichat.evaluation.mos_command import REFERENCE
from omnichat.evaluation.page import page
from omnichat.evaluation.replies import Answer, replace_file
from omnichat.evaluation.samples import encoded
from omnichat.file_hashes import file_sha256

PAGE, KEY = "mos.html", "mos_key.json"
SCRIPT = Path(__file__).with_name("mos.js")
SPEECH = ("wav", "flac")
SCALE = {5: "fits perfectly", 4: "fits well", 3: "fits in part", 2: "hardly fits", 1: "does not fit at all"}


@dataclass(frozen=True, slots=True)
class Item:
    """A reply to be rated; `token` is all that the listener's page and ratings say of it."""

    token: str
    system: str
    answer: Answer
    reply: Reply
    speech: Path | None


def choose_items(
    systems: Mapping[str, Sequence[Answer]],
    samples: int,
    seed: int,
    speech: Mapping[str, Path],
    reference: bool = False,
) -> list[Item]:
    """The same dialogues for every system, drawn and shuffled by the seed.

    Args:
        systems: each system's replies by its name.
        samples: dialogues; each is rated once for every system.
        seed: of the draw and of the order.
        speech: a folder for each system that has its replies spoken: `<id>.wav` or `.flac`, or
            `<id>-<turn>` where several turns of a dialogue are answered; for all of them.
        reference: whether the corpus's own replies are rated too.

    Raises:
        DataError: `mismatched_ids` where fewer than `samples` dialogues are answered by all; `mismatched_references`
            where they are not the same dialogues; `no_file` for speech.
    """
    common = sorted(set.intersection(*({(a.split, *a.key) for a in answers} for answers in systems.values())))
    if len(common) < samples:
        message = (
            f"{len(common)} dialogues are answered by all of {', '.join(systems)}; samples={samples} asks for more"
        )
        sets = "; ".join(f"{name}: {', '.join(sorted({a.split for a in found}))}" for name, found in systems.items())
        raise DataError("mismatched_ids", f"{message}; answer the same sets with all, under the same names ({sets})")
    generator = np.random.default_rng(seed)
    drawn = [common[place] for place in sorted(generator.permutation(len(common))[:samples].tolist())]
    items = []
    turns = Counter(key[:2] for key in common)
    answered = {name: {(answer.split, *answer.key): answer for answer in found} for name, found in systems.items()}
    for key in drawn:
        if len({(_words(answered[name][key]), answered[name][key].reference) for name in systems}) > 1:
            message = f"the dialogue {key[1]!r} of set {key[0]!r} is not the same in {', '.join(systems)}"
            raise DataError("mismatched_references", f"{message}; answer one store with all")
    for system in [*systems, REFERENCE] if reference else systems:
        for key in drawn:
            answer = answered[next(iter(systems)) if system == REFERENCE else system][key]
            recording = answer.id if turns[key[:2]] == 1 else f"{answer.id}-{key[2]}"
            spoken = _speech(speech[system], recording) if system in speech else None
            reply = answer.reference if system == REFERENCE else answer.reply
            items.append(Item(_token(seed, system, key), system, answer, reply, spoken))
    return [items[place] for place in generator.permutation(len(items)).tolist()]


def write_page(items: Sequence[Item], folder: Path, seed: int) -> tuple[Path, Path]:
    """Write the listeners' page and the key into a folder; returns both paths.

    Raises:
        DataError: audio that cannot be read; `other_page` where the folder has the key of another one.
    """
    paths = folder / PAGE, folder / KEY
    identity = hashlib.sha256("".join(sorted(map(_rated, items))).encode()).hexdigest()[:12]
    if paths[1].exists() and _page_of(paths[1]) != identity:
        message = "is the key of another page, whose ratings cannot be scored without it; name another out="
        raise DataError("other_page", message, str(paths[1]))
    folder.mkdir(parents=True, exist_ok=True)
    body = [
        "<h1>How well does the reply fit?</h1>",
        '<p class="lead">Listen to the whole dialogue, then rate the last reply: does it answer what was said, and how '
        "it was said, and what else was heard? Is its style right? Headphones help. Your ratings stay in this browser "
        "until you save them as a file, which you send back.</p>",
        '<p><label>Your name or number <input id="rater" autocomplete="off"></label></p>',
        *(_item(item, number, len(items)) for number, item in enumerate(items, 1)),
        '<p><button id="save" type="button">Save ratings</button> <span id="left" class="note"></span></p>',
        f'<script data-page="{identity}">\n{SCRIPT.read_text(encoding="utf-8")}</script>',
    ]
    content = {
        "page": identity,
        "seed": seed,
        "items": {
            item.token: {
                "system": item.system,
                "split": item.answer.split,
                "id": item.answer.id,
                "turn": len(item.answer.history),
            }
            for item in items
        },
    }
    replace_file(paths[0], page("Rate the replies", body).encode())
    replace_file(paths[1], (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return paths


def _rated(item: Item) -> str:
    """All that a rating of the item is about: replies that were made again are other replies."""
    spoken = "" if item.speech is None else file_sha256(item.speech)
    return json.dumps([item.token, item.reply.text, _style(item.reply.style), spoken])


def _page_of(key: Path) -> str | None:
    try:
        return str(json.loads(key.read_text(encoding="utf-8"))["page"])
    except (ValueError, TypeError, KeyError):
        return None


def _words(answer: Answer) -> tuple[str, ...]:
    return tuple(turn.text for turn in answer.history)


def _item(item: Item, number: int, total: int) -> str:
    turns = []
    for turn in item.answer.history:
        player = "" if turn.audio is None else _player(encoded(turn.audio))
        turns.append(f'<div class="turn {turn.role}">{player}<span class="said">{escape(turn.text)}</span></div>')
    spoken = "" if item.speech is None else _player(encoded(audio_ref(item.speech)))
    choices = "".join(
        f'<label><input type="radio" name="{item.token}" value="{value}"> {value} {text}</label> '
        for value, text in SCALE.items()
    )
    return (
        f'<div class="panel dialogue item" data-item="{item.token}"><header><h3>{number} of {total}</h3></header>'
        f'{"".join(turns)}<div class="answers"><div><div class="label">reply to be rated</div>'
        f"{_style(item.reply.style)}"
        f"<div>{spoken}{escape(item.reply.text)}</div></div></div><p>{choices}</p></div>"
    )


def _player(source: str) -> str:
    return f'<audio controls preload="metadata" src="{source}"></audio>'


def _style(style: Style | None) -> str:
    values = [value for name in STYLE_FIELDS if (value := getattr(style, name, None))]
    return "".join(f'<span class="chip">{escape(value)}</span>' for value in values)


def _speech(folder: Path, identity: str) -> Path:
    for kind in SPEECH:
        path = folder / f"{identity}.{kind}"
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    message = f"has no {identity}.wav or .flac; speak every reply, or rate text alone without speech="
    raise DataError("no_file", message, str(folder))


def _token(seed: int, system: str, key: tuple[str, str, int]) -> str:
    return hashlib.sha256(json.dumps([seed, system, *key]).encode()).hexdigest()[:12]
