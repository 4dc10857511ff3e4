"""How near a reply's words are to the reference's: BLEU-4, ROUGE-L, METEOR, BERTScore.

Each through its standard library, offline. What needs data that is not there (METEOR: WordNet; BERTScore: a model) is
`Missing` with the reason. All values are in 0..1.
"""

import io
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nltk
import numpy as np
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from nltk.translate.meteor_score import single_meteor_score
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from omnichat.metrics.statistic import Missing, Statistic, mean

LEXICOGRAPHER_FILES = 45  # of WordNet 3.0, lexnames(5WN)
# Whose full stop ends no sentence. nltk's own list is a download (punkt_tab).
ABBREVIATIONS = frozenset("dr mr mrs ms prof rev st jr sr vs etc e.g i.e a.m p.m".split())


def bleu(references: Sequence[str], replies: Sequence[str], tokenize: str = "13a") -> Statistic:
    """BLEU-4 of the corpus by sacrebleu, a reference per reply.

    Args:
        references: the right words.
        replies: the words to be scored.
        tokenize: sacrebleu's tokeniser; `zh` for Chinese.
    """
    # The counts per sentence; effective_order changes the sentences' own scores only, which are not used.
    by_sentence = BLEU(tokenize=tokenize, effective_order=True)
    scored = [by_sentence.sentence_score(reply, [ref]) for reply, ref in zip(replies, references, strict=True)]
    rows = [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scored]
    whole = BLEU(tokenize=tokenize)
    whole.corpus_score(list(replies), [list(references)])  # completes the signature

    def combine(sums: NDArray[np.float64]) -> float:
        numbers = [int(number) for number in sums]
        score = BLEU.compute_bleu(numbers[:4], numbers[4:8], numbers[8], numbers[9], whole.smooth_method)
        return float(score.score / 100)

    statistics = np.array(rows, dtype=np.float64).reshape(-1, 10)
    return Statistic(statistics, combine, f"BLEU|{whole.get_signature()}", np.ones(len(rows), dtype=np.bool_))


def sentence_bleu(reference: str, reply: str) -> float:
    """BLEU of one reply by sacrebleu, of as long n-grams as it has, up to 4: to look at, not to be averaged."""
    return float(BLEU(effective_order=True).sentence_score(reply, [reference]).score) / 100


def rouge_l(references: Sequence[str], replies: Sequence[str]) -> Statistic:
    """Mean F of the longest common subsequence by rouge-score, without stemming.

    `evaluate` calls it so, but its default aggregator prints the median of a random bootstrap in place of the mean.
    """
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    values = [scorer.score(ref, reply)["rougeL"].fmeasure for ref, reply in zip(references, replies, strict=True)]
    return mean(values, f"rougeL.fmeasure|stem:no|average:mean|rouge-score:{version('rouge-score')}")


def meteor(references: Sequence[str], replies: Sequence[str], wordnet: Path | None = None) -> Statistic | Missing:
    """Mean METEOR by nltk (alpha 0.9, beta 3, gamma 0.5, Porter stems, WordNet synonyms), as `evaluate` calls it.

    Args:
        references: the right words.
        replies: the words to be scored.
        wordnet: folder of WordNet's `index.*`, `data.*` and `*.exc`; None for nltk's own data folders.
    """
    reader = load_wordnet(wordnet)
    if isinstance(reader, Missing):
        return reader
    values = [
        single_meteor_score(_words(ref), _words(reply), wordnet=reader)
        for ref, reply in zip(references, replies, strict=True)
    ]
    settings = f"alpha:0.9|beta:3|gamma:0.5|stem:porter|tok:punkt({len(ABBREVIATIONS)})+nltk-treebank|average:mean"
    return mean(values, f"METEOR|{settings}|wordnet:{reader.get_version()}|nltk:{version('nltk')}")


def bertscore(
    references: Sequence[str], replies: Sequence[str], model: Path | None = None, layers: int | None = None
) -> Statistic | Missing:
    """Mean BERTScore F by bert-score with a local model, not rescaled, without idf.

    Args:
        references: the right words.
        replies: the words to be scored.
        model: folder of a Hugging Face encoder (the usual one: roberta-large).
        layers: which layer's output is compared; None for bert-score's choice for a model of the folder's name.
    """
    if model is None:
        return Missing("no local model; name the folder of one (roberta-large is usual) with bertscore=FOLDER")
    if not (model / "config.json").is_file():
        return Missing(f"{model} holds no config.json; name the folder of a Hugging Face encoder with bertscore=FOLDER")
    try:
        from bert_score import BERTScorer
        from bert_score.utils import model2layers
    except ImportError:
        return Missing("the package bert-score is not installed; pip install 'omnichat[eval]'")
    layers = model2layers.get(model.name) if layers is None else layers
    if layers is None:
        return Missing(f"bert-score knows no layer for {model.name!r}; name one with bertscore_layers=NUMBER")
    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)  # the pooler it does not use
    scorer = BERTScorer(model_type=str(model), num_layers=layers, idf=False)
    # A tokenizer without a limit of its own gives one that overflows (bert-score 0.3.13).
    tokenizer: Any = scorer._tokenizer
    tokenizer.model_max_length = min(tokenizer.model_max_length, 512)
    # An empty text scores 0, as bert-score has it; its call for one is gone from transformers 5.
    spoken = [row for row, pair in enumerate(zip(replies, references, strict=True)) if all(map(str.strip, pair))]
    values = [0.0] * len(replies)
    if spoken:
        scores = scorer.score([replies[row] for row in spoken], [references[row] for row in spoken])[2].tolist()
        for row, score in zip(spoken, scores, strict=True):
            values[row] = score
    return mean(values, f"BERTScore.F|{model.name}_L{layers}|idf:no|rescaled:no|bert-score:{version('bert-score')}")


class LocalWordNet(WordNetCorpusReader):  # type: ignore[misc]
    """WordNet from any folder; nltk's own reader wants it in a data folder of nltk's, and more files than it reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if str(self.folder) not in nltk.data.path:
            nltk.data.path.append(str(self.folder))  # nltk reads nothing outside the folders listed there
        super().__init__(str(self.folder), omw_reader=object())

    def open(self, file: str) -> io.TextIOBase:
        """A file of the folder. Debian's package lacks `lexnames`, whose names METEOR does not ask for."""
        if file == "lexnames" and not (self.folder / file).is_file():
            return io.StringIO("".join(f"{number:02d} unnamed 0\n" for number in range(LEXICOGRAPHER_FILES)))
        return (self.folder / file).open(encoding="utf-8")

    def map_wn(self, version: str = "wordnet") -> None:
        """No map to other WordNets: METEOR asks for English synonyms only."""


def load_wordnet(folder: Path | None = None) -> WordNetCorpusReader | Missing:
    """WordNet from a folder, or from nltk's data folders."""
    if folder is None:
        try:
            nltk.corpus.wordnet.ensure_loaded()
        except LookupError:
            hint = "wordnet=FOLDER (Debian's package wordnet-base has one in /usr/share/wordnet)"
            return Missing(f"WordNet is not in nltk's data folders; name a folder of it with {hint}")
        return nltk.corpus.wordnet
    needed = [f"{kind}.{part}" for kind in ("index", "data") for part in ("noun", "verb", "adj", "adv")]
    if absent := [name for name in needed if not (folder / name).is_file()]:
        return Missing(f"{folder} is not a WordNet folder: it lacks {', '.join(absent)}")
    try:
        return LocalWordNet(folder)
    except (OSError, ValueError, AssertionError, IndexError, nltk.corpus.reader.wordnet.WordNetError) as error:
        return Missing(f"WordNet in {folder} cannot be read ({error!r})")


def _words(text: str) -> list[str]:
    """Words and marks. nltk's tokeniser parts a full stop from its word only at the end of what it is given."""
    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    sentences = PunktSentenceTokenizer(parameters).tokenize(text)
    return [word for sentence in sentences for word in NLTKWordTokenizer().tokenize(sentence)]
