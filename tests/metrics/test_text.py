"""Text metrics against the libraries they come from, and what happens where their data is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from omnichat.metrics.statistic import Missing, Statistic, resample
from omnichat.metrics.text import bertscore, bleu, load_wordnet, meteor, rouge_l, sentence_bleu

# Made by make_reference.py with the standard libraries alone, through `evaluate` where its modules work offline.
REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
WORDNET = Path("/usr/share/wordnet")


def pairs() -> tuple[list[str], list[str]]:
    """References and replies, equal and empty ones among them."""
    return [pair["reference"] for pair in REFERENCE["pairs"]], [pair["reply"] for pair in REFERENCE["pairs"]]


def needs_wordnet() -> None:
    """Skip without the real WordNet."""
    if not (WORDNET / "data.noun").is_file():
        pytest.skip(f"no WordNet in {WORDNET} (Debian: wordnet-base)")


def test_values_made_by_the_libraries() -> None:
    """280 pairs: each ROUGE-L, its mean, and the corpus BLEU, to the last digit; a release may not change them."""
    references, replies = pairs()
    assert len(references) >= 200
    rouge = rouge_l(references, replies)
    assert rouge.value == pytest.approx(REFERENCE["rouge_l"], abs=1e-12)
    assert rouge.rows[:, 0] == pytest.approx([pair["rouge_l"] for pair in REFERENCE["pairs"]], abs=1e-12)
    assert bleu(references, replies).value == pytest.approx(REFERENCE["bleu"], abs=1e-12)


def test_meteor_values_made_by_nltk() -> None:
    """280 pairs whose sentences the reference knew: ours has to find them by itself."""
    needs_wordnet()
    metric = meteor(*pairs(), WORDNET)
    assert isinstance(metric, Statistic)
    assert metric.rows[:, 0] == pytest.approx([pair["meteor"] for pair in REFERENCE["pairs"]], abs=1e-12)
    assert f"wordnet:{REFERENCE['made_with']['wordnet']}" in metric.signature


def test_bleu_equals_sacrebleu() -> None:
    """Ours adds up counts by sentence, for the bootstrap; the corpus score must stay sacrebleu's."""
    references, replies = pairs()
    metric = bleu(references, replies)
    theirs = BLEU()
    assert metric.value == pytest.approx(theirs.corpus_score(replies, [references]).score / 100, abs=1e-12)
    assert metric.signature == f"BLEU|{theirs.get_signature()}"


def test_the_bleu_of_a_sentence_by_hand() -> None:
    """Where a reply is shorter than four words, its own n-grams count: else each would score 0."""
    assert sentence_bleu("so sorry", "so sorry") == pytest.approx(1)
    # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples; no four words in a row: smoothed to half of one.
    assert sentence_bleu("i am so sorry", "i am so glad") == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    assert sentence_bleu("so sorry", "") == 0


def test_bleu_of_a_resample_equals_sacrebleu_on_its_replies() -> None:
    """The interval's values are BLEU scores too."""
    references, replies = pairs()
    metric = bleu(references, replies)
    for drawn in resample([str(n) for n in range(len(replies))], 5, 0).astype(int):
        again = [number for number, times in enumerate(drawn) for _ in range(times)]
        theirs = BLEU().corpus_score([replies[n] for n in again], [[references[n] for n in again]]).score / 100
        assert metric.combine(drawn @ metric.rows) == pytest.approx(theirs, abs=1e-12)


def test_rouge_equals_rouge_score() -> None:
    """Mean of the F values, without stemming."""
    references, replies = pairs()
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    theirs = [scorer.score(ref, reply)["rougeL"].fmeasure for ref, reply in zip(references, replies, strict=True)]
    assert rouge_l(references, replies).value == pytest.approx(sum(theirs) / len(theirs), abs=1e-12)


def test_rouge_by_hand() -> None:
    """Common subsequence `the cat sat` of 3 in 4 and 3 words: F = 6/7."""
    assert rouge_l(["the cat sat down"], ["the cat sat"]).value == pytest.approx(6 / 7)


def write_wordnet(folder: Path) -> Path:
    """A WordNet of one adjective synset (sick, ill) in Princeton's format, without `lexnames`, as Debian ships it."""
    folder.mkdir(parents=True)
    opening = "  1 WordNet 3.0 Copyright 2006 by Princeton University.  \n"
    line = f"{len(opening):08d} 00 a 02 sick 0 ill 0 000 | not well\n"
    index = "".join(f"{word} a 1 0 1 0 {len(opening):08d}\n" for word in ("ill", "sick"))
    for part in ("noun", "verb", "adj", "adv"):
        (folder / f"data.{part}").write_text(opening + (line if part == "adj" else ""))
        (folder / f"index.{part}").write_text(opening + (index if part == "adj" else ""))
        (folder / f"{part}.exc").write_text("")
    return folder


def test_meteor_with_a_local_wordnet_by_hand(tmp_path: Path) -> None:
    """`the ill dog` for `the sick dog`: three matches in one chunk, so 1 - 0.5 x (1/3)^3; without synonyms two.

    (nltk looks synonyms up by stem, so a pair such as happy and glad would not be found: happi has none.)
    """
    metric = meteor(["the sick dog"], ["the ill dog"], write_wordnet(tmp_path / "wordnet"))
    assert isinstance(metric, Statistic)
    assert metric.value == pytest.approx(1 - 0.5 / 27)
    assert "wordnet:3.0" in metric.signature


def test_meteor_parts_full_stops_inside_a_reply(tmp_path: Path) -> None:
    """`calm.` before another sentence is the word `calm`; nltk's tokeniser alone parts only the last full stop."""
    wordnet = write_wordnet(tmp_path / "wordnet")
    metric = meteor(["stay calm. all is well."], ["stay calm"], wordnet)
    assert isinstance(metric, Statistic)
    theirs = single_meteor_score(
        ["stay", "calm", ".", "all", "is", "well", "."], ["stay", "calm"], wordnet=load_wordnet(wordnet)
    )
    assert metric.value == pytest.approx(theirs)


def test_meteor_with_the_whole_wordnet() -> None:
    """The value of nltk's own documentation; needs synonyms that only the real WordNet has."""
    needs_wordnet()
    reply = "It is a guide to action which ensures that the military always obeys the commands of the party"
    reference = "It is a guide to action that ensures that the military will forever heed Party commands"
    metric = meteor([reference], [reply], WORDNET)
    assert isinstance(metric, Statistic)
    assert metric.value == pytest.approx(0.6944, abs=5e-5)


def test_meteor_without_wordnet_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR without synonyms is another number under the same name."""
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    found = meteor(["a"], ["a"])
    assert isinstance(found, Missing)
    assert "wordnet=FOLDER" in found.reason


@pytest.mark.parametrize("broken", ["absent", "empty", "damaged"])
def test_a_folder_that_is_no_wordnet_is_missing(tmp_path: Path, broken: str) -> None:
    """Said with the folder, not with a traceback."""
    folder = tmp_path / "wordnet"
    if broken != "absent":
        write_wordnet(folder)
        for path in folder.glob("index.*" if broken == "damaged" else "*"):
            path.write_text("sick a one\n") if broken == "damaged" else path.unlink()
    found = meteor(["a"], ["a"], folder)
    assert isinstance(found, Missing)
    assert str(folder) in found.reason


def test_bertscore_without_a_model_is_missing(tmp_path: Path) -> None:
    """No model, no number."""
    found = bertscore(["a"], ["a"])
    assert isinstance(found, Missing)
    assert "bertscore=FOLDER" in found.reason
    assert isinstance(bertscore(["a"], ["a"], tmp_path), Missing)


def test_bertscore_with_a_local_model(tmp_path: Path) -> None:
    """A tiny random encoder from a folder, without a network: equal sentences score 1, others less."""
    pytest.importorskip("bert_score", reason="bert-score (extra `eval`) is not installed")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"stay calm all is well . rain".split()]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    # A finite length: bert-score itself cannot do without (OverflowError), ours can.
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"), model_max_length=64).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
    assert isinstance(bertscore(["stay calm"], ["stay calm"], tmp_path), Missing)  # which layer?
    metric = bertscore(["stay calm .", "all is well ."], ["stay calm .", "rain"], tmp_path, layers=2)
    assert isinstance(metric, Statistic)
    assert metric.rows[0, 0] == pytest.approx(1, abs=1e-4)
    assert metric.rows[1, 0] < 0.999
    assert "_L2" in metric.signature
    from bert_score import score

    references, replies = pairs()
    ours = bertscore(references, replies, tmp_path, layers=2)
    assert isinstance(ours, Statistic)
    assert ours.rows[5, 0] == 0  # nothing said; bert-score fails on it under transformers 5
    del references[5], replies[5]
    theirs = score(replies, references, model_type=str(tmp_path), num_layers=2, nthreads=1)[2].tolist()
    assert np.delete(ours.rows[:, 0], 5) == pytest.approx(theirs, abs=1e-6)
