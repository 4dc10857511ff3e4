"""Score a trained run on held-out dialogues: `python eval/run_store.py run=runs/NAME [key=value ...]`."""

import sys

from omnichat.evaluation.command import main

USAGE = """Let a trained run answer held-out dialogues, score the replies, write the report.

  python eval/run_store.py run=FOLDER [key=value ...]

Example:

  python eval/run_store.py run=runs/quickstart split=test_scripts,test_voices

Writes replies.jsonl, scores.json and report.html into the run folder. Replies that are there already are kept."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
