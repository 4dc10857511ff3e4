"""The check by hand: a page of dialogues with players and buttons; what is decided is saved as a file."""

from html import escape
from pathlib import Path

from data_prep.synthesis.pipeline import Pipeline
from data_prep.synthesis.players import dialogue, embedded, linked
from omnichat.evaluation.page import page

SCRIPT = Path(__file__).with_name("pilot.js")
BUTTONS = """<div class="verdict">
<button data-verdict="accepted">accept</button>
<button data-verdict="refused" data-part="words">refuse: words</button>
<button data-verdict="refused" data-part="speech">refuse: speech</button>
<button data-verdict="refused" data-part="sound">refuse: sound</button>
<input placeholder="note" aria-label="note"></div>"""
BUTTON_STYLE = """<style>
.verdict { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 12px; }
.verdict button, .bar button { font: inherit; padding: 4px 12px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--panel); color: var(--ink); cursor: pointer; }
.verdict button.chosen { background: var(--accent); color: var(--page); }
.verdict input { flex: 1; font: inherit; padding: 4px 8px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--page); color: var(--ink); }
.bar { position: sticky; top: 0; z-index: 1; display: flex; gap: 16px; align-items: center; padding: 10px 0;
  background: var(--page); }
</style>"""


def write_pilot(pipeline: Pipeline, dialogues: int, embed: bool = False) -> int:
    """Write the page with up to so many dialogues; how many there are.

    Args:
        pipeline: walked as far as is needed.
        dialogues: at most.
        embed: the page holds the audio; else it reads it from `blobs/` beside it.
    """
    folder = pipeline.folder
    source = embedded(folder.blobs, 2**30) if embed else linked(folder.blobs.name)
    shown: list[str] = []
    for mixed in pipeline.mixed():
        if len(shown) == dialogues:
            break
        shown.append(dialogue(mixed, source, BUTTONS))
    name = pipeline.config.name
    bar = '<div class="bar"><button id="save">save decisions</button><span id="count"></span></div>'
    body = [
        BUTTON_STYLE,
        f"<h1>Pilot: {escape(name)}</h1>",
        '<p class="lead">Listen, decide, save the file, then run <code>retry RUN --decisions FILE</code>: what was '
        "refused is made again with another seed, and the report shows the share that was accepted.</p>",
        bar,
        *shown,
        f'<script data-run="{escape(name)}">\n{SCRIPT.read_text(encoding="utf-8")}</script>',
    ]
    folder.pilot.write_text(page(f"Pilot: {name}", body), encoding="utf-8")
    return len(shown)
