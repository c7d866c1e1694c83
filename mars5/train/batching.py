"""What the AR and the NAR training share in drawing examples: speakers, pairs, length buckets."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol, TypeAlias, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mars5.tokenizers import TextTokenizer
from mars5.train.tokens import Example

REFERENCE_FRAMES = 110
ROOM_SHARE = 0.5
POOL = 16  # batches sorted by length together


Shares: TypeAlias = dict[str, float]

Row = TypeVar("Row")
Item = TypeVar("Item", covariant=True)


class Stream(Protocol[Item]):
    """Endless batches, drawn from a random state of its own."""

    rng: random.Random

    def __iter__(self) -> Iterator[Item]: ...


class _Loaded(IterableDataset[Item]):
    """A stream as the loader's processes read it, each with another seed."""

    def __init__(self, stream: Stream[Item]) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        if worker is not None:
            self.stream.rng = random.Random(worker.seed)
        return iter(self.stream)


def prefetched(stream: Stream[Item], loaders: int) -> Iterator[Item]:
    """The stream's batches, prepared by so many processes ahead of their use; 0 for none."""
    return iter(DataLoader(_Loaded(stream), batch_size=None, num_workers=loaders))


def draw_cast(casts: Iterable[str], shares: Shares, rng: random.Random) -> str:
    """One of the casts at hand, by their shares."""
    names = sorted(casts)
    return rng.choices(names, [shares[name] for name in names])[0]


class Corpus:
    """Examples by cast and speaker; every draw comes from the caller's `random.Random`.

    Args:
        shares: how often each cast is heard, whatever its size.
    """

    def __init__(
        self, casts: dict[str, list[Example]], text: TextTokenizer, shares: Shares
    ) -> None:
        self.casts = casts
        self.text = text
        self.shares = shares
        self._mates: dict[str, list[Example]] = defaultdict(list)
        for examples in casts.values():
            for example in examples:
                self._mates[example.speaker].append(example)

    def draw(self, rng: random.Random, pair_share: float) -> list[Example]:
        """One utterance, or with probability `pair_share` two of one speaker."""
        example = rng.choice(self.casts[draw_cast(self.casts, self.shares, rng)])
        if rng.random() < pair_share:
            return [self.mate(example, rng), example]
        return [example]

    def mate(self, example: Example, rng: random.Random) -> Example:
        """An utterance of the same speaker."""
        return rng.choice(self._mates[example.speaker])

    @staticmethod
    def recorded(example: Example, rng: random.Random) -> Example:
        """An utterance as a user may have it: often in some room."""
        return replace(example, codes=example.roomy) if rng.random() < ROOM_SHARE else example

    def reference(self, parts: list[Example], rng: random.Random) -> Tensor:
        """(R, Q) codes of the speaker; in half of the pairs the first part, as in a deep clone."""
        if len(parts) > 1 and rng.random() < 0.5:
            return parts[0].codes.long()
        codes = self.recorded(self.mate(parts[-1], rng), rng).codes.long()
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
