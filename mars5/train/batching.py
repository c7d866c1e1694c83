"""What the AR and the NAR training share in drawing examples: speakers, pairs, length buckets."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor

from mars5.tokenizers import TextTokenizer
from mars5.train.tokens import Example

REFERENCE_FRAMES = 110
POOL = 16  # batches sorted by length together

Row = TypeVar("Row")


class Corpus:
    """Examples, grouped by speaker; every draw comes from the caller's `random.Random`."""

    def __init__(self, examples: list[Example], text: TextTokenizer) -> None:
        self.examples = examples
        self.text = text
        self._mates: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            self._mates[example.speaker].append(example)

    def draw(self, rng: random.Random, pair_share: float) -> list[Example]:
        """One utterance, or with probability `pair_share` two of one speaker."""
        example = rng.choice(self.examples)
        if rng.random() < pair_share:
            return [self.mate(example, rng), example]
        return [example]

    def mate(self, example: Example, rng: random.Random) -> Example:
        """An utterance of the same speaker."""
        return rng.choice(self._mates[example.speaker])

    def reference(self, parts: list[Example], rng: random.Random) -> Tensor:
        """(R, Q) codes of the speaker; in half of the pairs the first part, as in a deep clone."""
        if len(parts) > 1 and rng.random() < 0.5:
            return parts[0].codes.long()
        codes = self.mate(parts[-1], rng).codes.long()
        start = rng.randrange(max(len(codes) - REFERENCE_FRAMES, 0) + 1)
        return codes[start : start + REFERENCE_FRAMES]

    def framed(self, parts: list[Example]) -> list[int]:
        """Ids of the joined texts between the two frame tokens."""
        words = " ".join(example.text for example in parts)
        return [self.text.start_id, *self.text.encode(words), self.text.end_id]


def length_batches(
    draw: Callable[[], Row], length: Callable[[Row], int], tokens: int, rng: random.Random
) -> Iterator[list[Row]]:
    """Endless batches of rows of similar length, at most `tokens` positions with padding."""
    while True:
        rows = sorted((draw() for _ in range(POOL * max(tokens // 128, 1))), key=length)
        batches: list[list[Row]] = [[]]
        for row in rows:
            if batches[-1] and (len(batches[-1]) + 1) * length(row) > tokens:
                batches.append([])
            batches[-1].append(row)
        rng.shuffle(batches)
        yield from batches
