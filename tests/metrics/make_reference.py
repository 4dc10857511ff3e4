"""Makes `reference.json`: sentence pairs and what the standard libraries make of them, without any code of ours.

  python tests/metrics/make_reference.py EVALUATE_CHECKOUT WORDNET_FOLDER

EVALUATE_CHECKOUT: a clone of huggingface/evaluate; its metric modules are loaded from there, without a network.
WORDNET_FOLDER: nltk data with `corpora/wordnet`: `index.*` with `index.sense`, `data.*`, `*.exc`, `lexnames` of 3.0.
"""

import json
import random
import sys
from importlib.metadata import version
from pathlib import Path

SENTENCES = [
    ["all right.", "tell me more about the market."],
    ["wonderful!", "enjoy your time at the beach."],
    ["I'm so sorry to hear that, think of better days."],
    ["Really?", "Nobody expected the letter, did they?"],
    ["oh no!", "be careful near the river, it is deep."],
    ["You've passed the exam with 97.5 %, congratulations!"],
    ["How nasty.", "Keep away from the old factory."],
    ["please stay calm, we can fix it at the office."],
    ["Dr. Lee will see you at ten o'clock."],
    ["They say that the old bridge will be closed until the spring."],
    ["yes."],
    ["It's raining cats and dogs (again), so take an umbrella."],
    ["My physician believes the illness is cured.", "What a relief!"],
    ["She bought a big automobile for the journey."],
]
SYNONYMS = {"automobile": "car", "physician": "doctor", "big": "large", "journey": "trip", "sorry": "regretful"}
COUNT = 280


def pairs() -> list[tuple[list[str], list[str]]]:
    """References and replies as sentences: words dropped, doubled, swapped for synonyms or taken from elsewhere.

    A sentence's last word stays, so that the replies' sentences are known without a sentence splitter.
    """
    draw = random.Random(0)
    found = []
    for number in range(COUNT):
        reference = SENTENCES[number % len(SENTENCES)]
        reply = [sentence.split() for sentence in reference]
        for _ in range(number // len(SENTENCES) % 10):
            words = draw.choice(reply)
            if len(words) > 1:
                place = draw.randrange(len(words) - 1)
                other = draw.choice(SENTENCES)[0].split()[0].strip(".!?")
                choices = [[], [words[place]] * 2, [other], [SYNONYMS.get(words[place], words[place])]]
                words[place : place + 1] = draw.choice(choices)
        found.append((reference, [" ".join(words) for words in reply]))
    found[5] = (found[5][0], [])
    return found


def main(checkout: Path, wordnet: Path) -> None:
    """Write the file beside this one."""
    import evaluate
    import nltk
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import single_meteor_score

    nltk.data.path.insert(0, str(wordnet))
    made = pairs()
    references = [" ".join(reference) for reference, _ in made]
    replies = [" ".join(reply) for _, reply in made]
    modules = checkout / "metrics"
    rouge = evaluate.load(str(modules / "rouge"))
    bleu = evaluate.load(str(modules / "sacrebleu"))
    tokenize = NLTKWordTokenizer().tokenize  # what nltk's word_tokenize applies to each sentence

    def words(sentences: list[str]) -> list[str]:
        return [word for sentence in sentences for word in tokenize(sentence)]

    # Without its aggregator, which gives the median of a bootstrap and so another number every time.
    rouge_l = rouge.compute(predictions=replies, references=references, use_aggregator=False)["rougeL"]
    record = {
        "made_with": {name: version(name) for name in ("evaluate", "sacrebleu", "rouge-score", "nltk")}
        | {"wordnet": nltk.corpus.wordnet.get_version()},
        "bleu": bleu.compute(predictions=replies, references=[[one] for one in references])["score"] / 100,
        "rouge_l": sum(rouge_l) / len(rouge_l),
        "pairs": [
            {
                "reference": reference,
                "reply": reply,
                "rouge_l": value,
                "meteor": single_meteor_score(words(wanted), words(said)),
            }
            for reference, reply, value, (wanted, said) in zip(references, replies, rouge_l, made, strict=True)
        ],
    }
    path = Path(__file__).with_name("reference.json")
    path.write_text(json.dumps(record, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(made)} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
