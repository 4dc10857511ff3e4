"""Compare two runs on the same dialogues: `python eval/compare.py RUN_A RUN_B [key=value ...]`."""

import sys

from omnichat.evaluation.compare_command import main

USAGE = """Compare the replies of two runs to the same dialogues: is A better than B, or is it chance?

  python eval/compare.py RUN_A RUN_B [key=value ...]

Example:

  python eval/compare.py runs/quickstart runs/quickstart_text

Needs the replies of both (eval/run_store.py), no model. Prints, for every metric, A - B with the 95 % interval of a
paired bootstrap and the p-value of a paired permutation test.
Dialogues of one script are drawn and swapped together."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
