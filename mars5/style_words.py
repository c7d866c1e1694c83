"""How alike two descriptions of a delivery are: TF-IDF with a short list of synonyms, offline."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# Each line is one notion; its words count half as themselves, half as the notion.
NOTIONS = tuple(
    frozenset(line.split())
    for line in (
        "warm kind friendly caring tender affectionate welcoming loving",
        "calm reassuring relaxed peaceful serene quiet composed comforting patient",
        "soft gentle soothing whispering whisper hushed mild",
        "slow unhurried leisurely lingering",
        "fast quick rapid brisk hurried hasty hurry rushed speedy swift",
        "urgent impatient pressing alarmed panicked anxious nervous",
        "happy cheerful joyful glad bright smiling merry jolly upbeat positive",
        "excited enthusiastic energetic energy lively animated thrilled eager passionate dynamic",
        "sad sorrowful unhappy melancholic melancholy mournful subdued gloomy depressed",
        "serious formal measured stern authority authoritative official grave businesslike",
        "solemn dramatic epic ceremonial majestic",
        "low deep dark bass",
        "flat monotone monotonous robot robotic bored boring dull expressionless emotionless",
        "tired sleepy weary exhausted drowsy bedtime lullaby",
        "young childlike child childish kid small little",
        "playful teasing funny cute mischievous silly",
        "announcer news newsreader anchor reporter broadcast radio presenter",
        "confident professional assured clear competent",
        "neutral plain even normal ordinary natural standard",
        "storyteller story tale narrator narration audiobook",
    )
)
_IGNORED = (
    "a an and are as at be but by for from how i in is it its like me my of on or our please quite "
    "rather read say so sound sounding speak speaking somewhat style than that the then this to "
    "tone too very voice voiced way with you your"
)
IGNORED = frozenset(_IGNORED.split())
NEGATIONS = frozenset({"not", "no", "never", "without", "less"})


@dataclass(frozen=True)
class Likeness:
    """How alike, from 0 to 1, and the words of the question that made it so."""

    score: float
    words: tuple[str, ...]


def words_of(text: str) -> list[tuple[str, int]]:
    """Words that say something, in lower case without "-ly"; -1 instead of 1 if negated."""
    found, sign = [], 1
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        if word in NEGATIONS:
            sign = -1
        elif word not in IGNORED:
            found.append((_stem(word), sign))
            sign = 1
    return found


def _stem(word: str) -> str:
    return word[:-2] if word.endswith("ly") and len(word) > 4 else word


def compare(question: str, captions: Sequence[str]) -> list[Likeness]:
    """The likeness of the question with each caption.

    Every word is a feature, and so is every notion that it belongs to. A feature weighs the more,
    the fewer captions have it: log((1 + n) / (1 + captions with it)) + 1. The score is the cosine
    of the weighted counts; words that no caption knows make the question longer, so it sinks.
    """
    counts = [_features(words_of(caption)) for caption in captions]
    asked = words_of(question)
    rarity = _Rarity(counts)
    wanted = rarity.weigh(_features(asked))
    return [_likeness(asked, wanted, rarity.weigh(count)) for count in counts]


class _Rarity:
    """Weights of features by how many captions have them."""

    def __init__(self, counts: Sequence[Counter[str]]) -> None:
        self.n = len(counts)
        self.having = Counter(feature for count in counts for feature in count)

    def weigh(self, count: Counter[str]) -> dict[str, float]:
        """The weighted counts, brought to length 1 (or none at all)."""
        weighted = {
            feature: times * (math.log((1 + self.n) / (1 + self.having[feature])) + 1)
            for feature, times in count.items()
        }
        length = math.sqrt(sum(value * value for value in weighted.values()))
        return {feature: value / length for feature, value in weighted.items() if length}


def _features(words: Sequence[tuple[str, int]]) -> Counter[str]:
    count: Counter[str] = Counter()
    for word, sign in words:
        for feature in (word, *_notions(word)):
            count[feature] += sign
    return count


def _notions(word: str) -> list[str]:
    """Names of the notions of a word; the hash mark keeps them apart from words."""
    return [f"#{number}" for number, notion in enumerate(NOTIONS) if word in notion]


def _likeness(
    asked: Sequence[tuple[str, int]], wanted: dict[str, float], has: dict[str, float]
) -> Likeness:
    score = sum(value * has.get(feature, 0.0) for feature, value in wanted.items())
    words = [
        word
        for word, sign in asked
        if sign > 0 and any(has.get(feature, 0.0) > 0 for feature in (word, *_notions(word)))
    ]
    return Likeness(max(score, 0.0), tuple(dict.fromkeys(words)))
