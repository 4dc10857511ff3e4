"""Does a reply depend on how the user spoke: groups of dialogues that share their words and differ in what is heard.

ShareChat-Emotion speaks every script in three styles, StyleTalk has several answers to one sentence, the quickstart
corpus speaks every script in seven emotions. A model that ignores the sound gives one reply to all of them.

A branch is right where each of its replies fits its own reference better than any sibling's: the emotion is that of its
reference, and the words are closer (chrF) to its reference than to that of every sibling with other words. Ties are
wrong. So one reply to all branches of a group is right in one of k at most: such a model gets no group of two or more
right (0), and at most 1/k of the branches.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from omnichat.metrics.statistic import Statistic, ratio

Content = tuple[str | None, str]  # emotion and words


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Shares of groups and of branches that are right, and the share of branches that a deaf model can get at most."""

    groups: Statistic
    branches: Statistic
    deaf_branches: float


def counterfactual(
    groups: Sequence[Hashable | None], references: Sequence[Content], replies: Sequence[Content]
) -> Counterfactual | None:
    """Score all groups that have at least two branches; None where there is none.

    Args:
        groups: what the dialogues of a group share; None for a dialogue that belongs to none.
        references: the emotion (None where the corpus has none) and words that are right.
        replies: those of the model; emotion None where its style could not be read, which is wrong.
    """
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(number)
    closeness = CHRF()
    closeness.sentence_score("", [""])  # it has no signature before its first use, and no reply may need it
    by_group = np.zeros((len(groups), 2))
    by_branch = np.zeros((len(groups), 2))
    sizes = []
    for numbers in members.values():
        branches = _branches([references[number] for number in numbers])
        if len(branches) < 2:
            continue
        sizes.append(len(branches))
        right = []
        for branch, own in branches.items():
            siblings = [other for other in branches if other != branch]
            fits = all(_fits(replies[numbers[place]], branch, siblings, closeness) for place in own)
            right.append(fits)
            by_branch[numbers[own[0]]] = (fits, 1)
        by_group[numbers[0]] = (all(right), 1)
    if not sizes:
        return None
    rule = f"emotion right and chrF to own reference above siblings'|ties:wrong|{closeness.get_signature()}|omnichat:1"
    return Counterfactual(
        ratio(by_group, f"groups with every branch right|{rule}"),
        ratio(by_branch, f"branches right|{rule}"),
        len(sizes) / sum(sizes),
    )


def _branches(references: Sequence[Content]) -> dict[Content, list[int]]:
    """The places of each different reference. Emotions count where every reference of the group has one."""
    felt = all(emotion is not None for emotion, _ in references)
    branches: dict[Content, list[int]] = {}
    for place, (emotion, text) in enumerate(references):
        branches.setdefault((emotion if felt else None, text.strip()), []).append(place)
    return branches


def _fits(reply: Content, own: Content, siblings: Sequence[Content], closeness: CHRF) -> bool:
    if own[0] is not None and reply[0] != own[0]:
        return False
    near = _near(reply[1], own[1], closeness)
    return all(near > _near(reply[1], text, closeness) for _, text in siblings if text != own[1])


def _near(reply: str, reference: str, closeness: CHRF) -> float:
    return float(closeness.sentence_score(reply.strip(), [reference]).score)
