"""Score a run that tells interaction events apart: `python eval/run_events.py run=runs/interact_events`."""

import sys

from omnichat.evaluation.events_command import main

USAGE = """Let a run of task=events classify the moments of two-track dialogues: F1 of each event, beside a guess.

  python eval/run_events.py run=FOLDER [key=value ...]

Example:

  python eval/run_events.py run=runs/interact_events
  python eval/run_events.py run=runs/interact_events store=corpora/interactspeech/test

Writes events.jsonl (each moment: when, what it is, what was found) and event_scores.json into the run folder."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
