"""Have people rate replies, blind: `python eval/mos.py page RUN ...`, then `... score KEY RATINGS ...`."""

import sys

from omnichat.evaluation.mos_command import main

USAGE = """Mean opinion scores: a page on which listeners rate the replies of one or more runs, and the scores of it.

  python eval/mos.py page RUN [RUN ...] [key=value ...]
  python eval/mos.py score KEY RATINGS [RATINGS ...] [key=value ...]

Example:

  python eval/mos.py page runs/quickstart runs/quickstart_text out=mos samples=20 reference=true
  python eval/mos.py score mos/mos_key.json ratings_1.json ratings_2.json

The page is one file that opens without a server. It hides which run a reply is from; the key beside it does not, so
keep the key. Listeners send back the file that the page saves."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
