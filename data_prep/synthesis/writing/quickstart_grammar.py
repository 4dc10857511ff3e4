"""What is said: neutral words about a place, and a reply that depends on how they were spoken and what else sounded.

The current turn is a template with a content word; the reply's opening and style depend on the user's emotion alone,
its middle repeats the content word, its end names the sound. So text alone knows the content word and nothing else.
A small vocabulary, for a tiny LLM.
"""

import numpy as np

from omnichat.dialogue import EMOTIONS, Style

CONTENT_WORDS = (
    "airport", "bakery", "beach", "bridge", "castle", "factory", "forest", "garden", "harbor", "hospital", "hotel",
    "island", "kitchen", "library", "market", "mountain", "museum", "office", "river", "school", "stadium", "station",
    "theater", "village",
)  # fmt: skip
TEMPLATES = (
    "we are going to the {}.",
    "i came back from the {}.",
    "they are still at the {}.",
    "my brother called from the {}.",
    "there is someone at the {}.",
    "she asked me about the {}.",
    "we will meet at the {}.",
    "he is walking to the {}.",
    "my sister works at the {}.",
    "i left my bag at the {}.",
    "they moved next to the {}.",
    "the bus stops near the {}.",
)
OPENINGS = (
    ("hello, can you hear me?", "yes, i can hear you well."),
    ("good morning.", "good morning. how can i help you?"),
    ("it is me again.", "welcome back."),
    ("do you have a minute?", "of course. please go on."),
)
FOLLOW_UPS = (
    ("i want to tell you something.", "i am listening."),
    ("are you still there?", "yes, i am here."),
    ("there is some news.", "please tell me."),
    ("can we talk for a moment?", "sure. what is it about?"),
)
# The user's emotion -> the reply's (emotion, speed, pitch) and words. Angry is answered calmly, so neutral is the
# reply to two of the seven and the other five emotions to one each: a constant guess has a weighted F1 of 0.13.
REPLIES: dict[str, tuple[str, str, str, str]] = {
    "neutral": ("neutral", "normal", "normal", "all right. tell me more about the {}."),
    "happy": ("happy", "fast", "high", "wonderful! enjoy your time at the {}."),
    "angry": ("neutral", "slow", "low", "please stay calm. we can fix it at the {}."),
    "sad": ("sad", "slow", "low", "i am so sorry. think of better days at the {}."),
    "surprised": ("surprised", "fast", "high", "really? nobody expected the {}."),
    "fearful": ("fearful", "fast", "normal", "oh no! be careful near the {}."),
    "disgusted": ("disgusted", "slow", "normal", "how nasty. keep away from the {}."),
}
SOUND_SENTENCE = "i hear the {}."
HELD_OUT = 4  # one combination of template and content word in so many is held out for the tests
NEUTRAL = ("neutral", "normal", "normal")


def reply(emotion: str, content: str, sound: str, gender: str) -> tuple[Style, str]:
    """Style and words of the answer to `content` said in `emotion` while `sound` ("" for none) was heard.

    Raises:
        KeyError: an emotion outside `omnichat.dialogue.EMOTIONS`.
    """
    *style, words = REPLIES[emotion]
    text = words.format(content)
    return Style(gender, *style), f"{text} {SOUND_SENTENCE.format(sound)}" if sound else text


def stage_directions(text: str, emotion: str, sound: str = "") -> str:
    """The user's words with what is otherwise only heard: `[rain] (angry) we are going to the market.`"""
    heard = f"({emotion}) {text}"
    return f"[{sound}] {heard}" if sound else heard


def combinations(seed: int) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """(training, held out) pairs of template and content word.

    A shuffled Latin pattern: every content word and every template is in both, `1 / HELD_OUT` of the pairs held out.
    """
    rng = np.random.default_rng([seed, 1])
    templates, words = rng.permutation(len(TEMPLATES)), rng.permutation(len(CONTENT_WORDS))
    train: list[tuple[int, str]] = []
    held_out: list[tuple[int, str]] = []
    # Diagonal by diagonal: a prefix of either list holds every content word equally often, up to one.
    for shift in range(len(TEMPLATES)):
        for row, word in enumerate(words):
            column = (row + shift) % len(TEMPLATES)
            pair = (int(templates[column]), CONTENT_WORDS[word])
            (held_out if shift % HELD_OUT == 0 else train).append(pair)
    return train, held_out


assert set(REPLIES) == set(EMOTIONS)
