"""Score a trained run on DailyTalk's test set: `python eval/run_dailytalk.py run=runs/NAME [key=value ...]`."""

import sys

from omnichat.evaluation.command import main

STORE = "corpora/dailytalk/test"
USAGE = f"""Let a trained run answer the last turn of DailyTalk's test dialogues, score the replies, write the report.

  python eval/run_dailytalk.py run=FOLDER [key=value ...]

Example:

  python eval/run_dailytalk.py run=runs/dailytalk

Reads {STORE} unless store=PATH names another (README, "Data"). Gold history, greedy: the paper's protocol. A run of
another recipe can be scored too; DailyTalk then joins the sets in its run folder."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE, STORE))
