"""What a trained run is measured against: `python eval/baseline.py KIND store=PATH out=FOLDER [key=value ...]`."""

import sys

from omnichat.evaluation.baselines.command import main

USAGE = """Answer held-out dialogues with a baseline: its replies are scored and compared as a run's are.

  python eval/baseline.py KIND store=PATH[,PATH] out=FOLDER [key=value ...]

  majority      one reply to all: the most frequent style and words
  asr_llm       Whisper writes the user's turns down, a language model answers the words
  qwen2_audio   Qwen2-Audio as it is published, told what to do

Example:

  python eval/baseline.py majority store=corpora/dailytalk/test names=dailytalk out=runs/majority
  python eval/baseline.py asr_llm asr=checkpoints/whisper-large-v3 llm=checkpoints/Llama-3.1-8B-Instruct \\
      store=corpora/dailytalk/test names=dailytalk out=runs/asr_llm
  python eval/baseline.py qwen2_audio model=checkpoints/Qwen2-Audio-7B-Instruct \\
      store=corpora/dailytalk/test names=dailytalk out=runs/qwen2_audio
  python eval/run_store.py run=runs/qwen2_audio
  python eval/compare.py runs/dailytalk runs/qwen2_audio

Greedy decoding; styles are read from replies as those of a run are, and what cannot be read counts as wrong. A language
model that reads the true transcripts is a run: python train.py recipe=NAME data.input=text."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], USAGE))
