"""What is measured of a set of replies: each metric by its key in `scores.json`, and the baseline that stands by it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from omnichat.dialogue import STYLE_FIELDS, Style
from omnichat.evaluation.judging import gpt_eval
from omnichat.evaluation.replies import Answer
from omnichat.evaluation.turns import Turns
from omnichat.metrics.counterfactual import Counterfactual, counterfactual
from omnichat.metrics.diversity import distinct, length_ratio
from omnichat.metrics.emotion import emotion_f1, majority, style_accuracies
from omnichat.metrics.naming import chance, false_alarms, naming_accuracy
from omnichat.metrics.statistic import Missing, Statistic, Whole, mean
from omnichat.metrics.text import bertscore, bleu, meteor, rouge_l

Metric = Statistic | Whole | Missing

GROUP = "group"  # the scene's key that dialogues share which have the same words and differ in what is heard
SCRIPT = "script"  # the scene's key that dialogues of one script share; stands in for `group` where there is none

# What each metric is called in tables, in their order; and the baseline that stands beside it.
TITLES = {
    "emotion_f1_weighted": "emotion, weighted F1",
    "emotion_f1_macro": "emotion, macro F1",
    "style_accuracy": "style, all fields right",
    **{f"style_accuracy_{name}": f"style: {name}" for name in STYLE_FIELDS},
    "counterfactual_groups": "counterfactual, whole groups",
    "counterfactual_branches": "counterfactual, branches",
    "sound_accuracy": "right sound named",
    "sound_false_alarm": "sound named where none is",
    "content_word_accuracy": "content word named",
    "exact_reply": "reply exact, style and words",
    "bleu": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "bertscore": "BERTScore",
    "gpt_eval": "judge, 1 to 5",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "length_ratio": "length, by the references'",
}
RATINGS = ("gpt_eval",)  # on a scale of their own; all else is a share, shown times 100
FORM = {"unparsable_share": "style unreadable", "guided_share": "style kept in form"}  # of all replies of a set
BASELINES = {
    "emotion_f1_weighted": "majority_emotion_f1_weighted",
    "emotion_f1_macro": "majority_emotion_f1_macro",
    **{f"style_accuracy_{name}": f"majority_style_accuracy_{name}" for name in STYLE_FIELDS},
    "counterfactual_groups": "deaf_counterfactual_groups",
    "counterfactual_branches": "deaf_counterfactual_branches",
    "sound_accuracy": "chance_sound_accuracy",
    "content_word_accuracy": "chance_content_word_accuracy",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """Data on this machine that some metrics need; None where it is not there."""

    wordnet: Path | None = None
    bertscore: Path | None = None
    bertscore_layers: int | None = None
    judged: Path | None = None  # a run folder with a judge's verdicts


NOTHING = Resources()


def measure(answers: Sequence[Answer], resources: Resources = NOTHING, turns: Turns = "last") -> dict[str, Metric]:
    """Every metric that the replies' references and scenes allow, by its key in `scores.json`.

    Args:
        answers: the replies.
        resources: data that some metrics need.
        turns: which turns the replies are to; with the model's own history it may differ within a counterfactual group.
    """
    wanted, written = [a.reference.text for a in answers], [a.reply.text for a in answers]
    gold = [known_style(answer.reference.style) for answer in answers]
    emotions, answered = [style.emotion for style in gold], [emotion_of(answer) for answer in answers]
    found: dict[str, Metric] = {}
    if any(emotions):
        found["emotion_f1_weighted"] = emotion_f1(emotions, answered, "weighted")
        found["emotion_f1_macro"] = emotion_f1(emotions, answered, "macro")
    accuracies = style_accuracies(gold, [answer.reply.style for answer in answers])
    if "all" in accuracies:
        found["style_accuracy"] = accuracies.pop("all")
    found |= {f"style_accuracy_{name}": accuracy for name, accuracy in accuracies.items()}
    if (siblings := _counterfactual(answers, turns)) is not None:
        found |= {"counterfactual_groups": siblings.groups, "counterfactual_branches": siblings.branches}
    if any(sounds := [answer.scene.get("sound") for answer in answers]):
        found["sound_accuracy"] = naming_accuracy(written, [sound or "" for sound in sounds], wanted)
        if "" in sounds:
            found["sound_false_alarm"] = false_alarms(written, sounds)
    if any(words := [answer.scene.get("content", "") for answer in answers]):
        found["content_word_accuracy"] = naming_accuracy(written, words, wanted)
    found["exact_reply"] = mean([float(_exact(answer)) for answer in answers], "exact|known style and words|omnichat:1")
    found["bleu"] = bleu(wanted, written)
    found["rouge_l"] = rouge_l(wanted, written)
    found["meteor"] = meteor(wanted, written, resources.wordnet)
    found["bertscore"] = bertscore(wanted, written, resources.bertscore, resources.bertscore_layers)
    judged = gpt_eval(resources.judged, answers) if resources.judged is not None else None
    found |= {} if judged is None else {"gpt_eval": judged}
    found |= {"distinct_1": distinct(written, 1), "distinct_2": distinct(written, 2)}
    found["length_ratio"] = length_ratio(wanted, written)
    return found


def baselines(answers: Sequence[Answer], turns: Turns = "last") -> dict[str, float]:
    """What a constant guess (the most frequent class of this very set) or guessing among the names would get.

    For the counterfactual score: what a model that ignores the sound can get at most.
    """
    gold = [known_style(answer.reference.style) for answer in answers]
    emotions = [style.emotion for style in gold]
    found = {}
    if any(emotions):
        constant = [majority(emotions)] * len(emotions)
        found["majority_emotion_f1_weighted"] = emotion_f1(emotions, constant, "weighted").value
        found["majority_emotion_f1_macro"] = emotion_f1(emotions, constant, "macro").value
    for name in STYLE_FIELDS:
        if known := [value for style in gold if (value := getattr(style, name)) is not None]:
            found[f"majority_style_accuracy_{name}"] = known.count(majority(known)) / len(known)
    if (siblings := _counterfactual(answers, turns)) is not None:
        found |= {"deaf_counterfactual_groups": 0.0, "deaf_counterfactual_branches": siblings.deaf_branches}
    for key, scene_key in (("sound", "sound"), ("content_word", "content")):
        if any(names := [answer.scene.get(scene_key, "") for answer in answers]):
            found[f"chance_{key}_accuracy"] = chance(names)
    return found


def units(answers: Sequence[Answer]) -> list[str]:
    """What is drawn as a whole where replies are drawn: dialogues of one script are not independent."""
    return [answer.scene.get(SCRIPT) or answer.scene.get(GROUP) or answer.id for answer in answers]


def _counterfactual(answers: Sequence[Answer], turns: Turns) -> Counterfactual | None:
    """Groups by `scene["group"]`, or `scene["script"]`, in which nothing that can be read differs up to the reply.

    The words are compared too because a script may be a longer dialogue, cut up into several; and with the words what
    the assistant said and how, because where that differs a model needs no ears to tell the branches apart. What the
    model said itself is not compared: it differs only if the model heard something.
    """
    groups = []
    for answer in answers:
        key = answer.scene.get(GROUP) or answer.scene.get(SCRIPT)
        # A user turn without a transcript may have any words.
        known = all(turn.text.strip() for turn in answer.history if turn.role == "user")
        groups.append((key, _read(answer, turns)) if key and known else None)
    references = [(known_style(answer.reference.style).emotion, answer.reference.text) for answer in answers]
    return counterfactual(groups, references, [(emotion_of(answer), answer.reply.text) for answer in answers])


def _read(answer: Answer, turns: Turns) -> tuple[tuple[str, Style | None], ...]:
    """What can be read of a reply's history that the model did not say itself."""
    roles = ["", *(turn.role for turn in answer.history)]
    own = [turns == "own_history" and pair == ("user", "assistant") for pair in pairwise(roles)]
    return tuple(
        (turn.text.strip(), turn.style if turn.role == "assistant" else None)
        for turn, said in zip(answer.history, own, strict=True)
        if not said
    )


def emotion_of(answer: Answer) -> str | None:
    """The emotion of a reply, None where its style could not be read."""
    return answer.reply.style.emotion if answer.reply.style is not None else None


def _exact(answer: Answer) -> bool:
    style, wanted = answer.reply.style, known_style(answer.reference.style).known()
    return answer.reply.text == answer.reference.text and style is not None and wanted.items() <= style.known().items()


def known_style(style: Style | None) -> Style:
    """The style of a reference, which always has one, if only an unknown one."""
    assert style is not None, "read_answers gives every reference a style"
    return style


def shown(key: str, value: float) -> str:
    """A value as tables have it: a share times 100, a rating as it is."""
    return f"{value:.2f}" if key in RATINGS else f"{100 * value:.1f}"
