"""Score a trained run on a subset of ShareChatX: `python eval/run_sharechatx.py subset=NAME run=FOLDER`."""

import sys

from omnichat.evaluation.command import main

SUBSETS = ("emotion", "audio", "music")
USAGE = """Let a trained run answer the test dialogues of a ShareChatX subset, score the replies, write the report.

  python eval/run_sharechatx.py subset=emotion|audio|music run=FOLDER [key=value ...]

Example:

  python eval/run_sharechatx.py subset=emotion run=runs/sharechat_emotion

Reads corpora/sharechat_SUBSET/test unless store=PATH names another (README, "Data"). Gold history, last turn, greedy:
the paper's protocol. Sets of other subsets that are in the run folder stay."""

if __name__ == "__main__":
    chosen = [argument.removeprefix("subset=") for argument in sys.argv[1:] if argument.startswith("subset=")]
    rest = [argument for argument in sys.argv[1:] if not argument.startswith("subset=")]
    if chosen and chosen[-1] in SUBSETS:
        sys.exit(main(rest, USAGE, f"corpora/sharechat_{chosen[-1]}/test"))
    if {"-h", "--help", "help"} & set(rest):
        sys.exit(main(rest, USAGE))
    print(f"run_sharechatx.py: subset: one of {', '.join(SUBSETS)}, as in subset=emotion", file=sys.stderr)
    sys.exit(2)
