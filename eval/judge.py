"""Have a language model rate a run's replies: `python eval/judge.py RUN model=NAME [key=value ...]`."""

import sys

from omnichat.evaluation.judge_command import main

USAGE = """GPT-eval: a language model behind an OpenAI-compatible endpoint rates each reply from 1 to 5.

  python eval/judge.py RUN model=NAME [key=value ...]

Example:

  python eval/judge.py runs/quickstart model=gpt-4o-2024-08-06 estimate=true price=2.5,10
  python eval/judge.py runs/quickstart model=my-judge url=http://localhost:8000/v1 repeats=2
  python eval/judge.py runs/quickstart model=gpt-4o-2024-08-06 protocol=voxdialogue

What is rated follows each dialogue's scenario: docs/evaluation.md. Verdicts are kept in judgements.jsonl: what is
judged already is not asked again, and scoring needs no network. A reply without a verdict makes the command fail; there
is no mean over the rest."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
