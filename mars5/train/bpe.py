"""Training byte-pair merges with counts that are kept up to date, not counted again."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mars5.errors import TokenizerError
from mars5.tokenizers import (
    END_OF_SPEECH,
    END_OF_TEXT,
    MAX_MERGES,
    MAX_TOKEN_LENGTH,
    PADDING,
    SPLIT,
    START_OF_TEXT,
    SpeechTokenizer,
    TextTokenizer,
    check_codes,
    check_text,
)

_GAP = -1  # stands where no token is; no merge contains it

_Ids = npt.NDArray[np.int64]


def train_text(texts: Iterable[str], n_merges: int) -> TextTokenizer:
    """Learn `n_merges` merges from texts; equal counts go to the pair with the smaller ids.

    Raises:
        TextError: a text is not a string, or it holds lone surrogates.
        TokenizerError: `n_merges` is out of range or more than the texts yield.
    """
    words: Counter[str] = Counter()
    for text in texts:
        check_text(text)
        words.update(SPLIT.findall(text))
    chunks = [list(word.encode()) for word in words]
    merges = _learn(chunks, list(words.values()), TextTokenizer.base, n_merges)
    first = TextTokenizer.base + n_merges
    names = (START_OF_TEXT, END_OF_TEXT, PADDING)
    return TextTokenizer(merges, {name: first + k for k, name in enumerate(names)})


def train_speech(sequences: Iterable[Iterable[int]], n_merges: int) -> SpeechTokenizer:
    """Learn `n_merges` merges from the L0 codes (0..1023) of utterances.

    Raises:
        TokenizerError: a code is out of range; `n_merges` is, or is more than the codes yield.
    """
    chunks = [check_codes(codes) for codes in sequences]
    merges = _learn(chunks, [1] * len(chunks), SpeechTokenizer.base, n_merges)
    return SpeechTokenizer(merges, {END_OF_SPEECH: SpeechTokenizer.base + n_merges})


class _PairCounts:
    """Weighted counts of adjacent pairs; the most frequent pair can be taken out."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []  # (-count, key), outdated entries included

    def add(self, keys: _Ids, amounts: _Ids) -> None:
        unique, place = np.unique(keys, return_inverse=True)
        totals = np.zeros(len(unique), np.int64)
        np.add.at(totals, place, amounts)
        for key, amount in zip(unique.tolist(), totals.tolist(), strict=True):
            if amount:
                count = self._counts.get(key, 0) + amount
                self._counts[key] = count
                heapq.heappush(self._heap, (-count, key))

    def take(self) -> tuple[int, int] | None:
        while self._heap:
            negative, key = heapq.heappop(self._heap)
            if negative < 0 and self._counts[key] == -negative:
                return key >> 32, key & 0xFFFFFFFF
        return None


def _learn(
    chunks: list[list[int]], weights: list[int], base: int, n_merges: int
) -> list[tuple[int, int]]:
    """The most frequent pair becomes the next id, `n_merges` times; counts are kept up to date."""
    if not isinstance(n_merges, int) or not 0 <= n_merges <= MAX_MERGES:
        raise TokenizerError(
            f"n_merges must be a whole number from 0 to {MAX_MERGES}, got {n_merges!r}"
        )
    tokens, weight = _lay_out(chunks, weights)
    counts = _PairCounts()
    counts.add(*_pairs(tokens, weight, np.arange(len(tokens) - 1)))
    length = [1] * base
    merges: list[tuple[int, int]] = []
    while len(merges) < n_merges:
        pair = counts.take()
        if pair is None:
            raise TokenizerError(
                f"the corpus yields only {len(merges)} merges, but n_merges is {n_merges}: "
                "ask for fewer or give more data"
            )
        left, right = pair
        if length[left] + length[right] > MAX_TOKEN_LENGTH:
            continue  # a file with this merge would be refused
        at = _occurrences(tokens, left, right)
        gone = _pairs(tokens, weight, np.unique(np.concatenate([at - 1, at, at + 1])))
        tokens[at] = len(length)
        keep = np.ones(len(tokens), bool)
        keep[at + 1] = False
        tokens, weight = tokens[keep], weight[keep]
        at = at - np.arange(len(at))
        come = _pairs(tokens, weight, np.unique(np.concatenate([at - 1, at])))
        counts.add(np.concatenate([gone[0], come[0]]), np.concatenate([-gone[1], come[1]]))
        length.append(length[left] + length[right])
        merges.append(pair)
    return merges


def _lay_out(chunks: list[list[int]], weights: list[int]) -> tuple[_Ids, _Ids]:
    """All chunks in one row with a gap before, between and after them; the weight of each entry."""
    sizes = np.array([len(chunk) + 1 for chunk in chunks], np.int64)
    row = [_GAP]
    for chunk in chunks:
        row += chunk
        row.append(_GAP)
    weight = np.concatenate([[0], np.repeat(np.array(weights, np.int64), sizes)])
    return np.array(row, np.int64), weight


def _pairs(tokens: _Ids, weight: _Ids, at: _Ids) -> tuple[_Ids, _Ids]:
    """Key and weight of the pairs that begin at these positions, gaps left out."""
    left, right = tokens[at], tokens[at + 1]
    real = (left != _GAP) & (right != _GAP)
    return left[real] << 32 | right[real], weight[at][real]


def _occurrences(tokens: _Ids, left: int, right: int) -> _Ids:
    """Positions of a pair, left to right, that do not overlap (in a run such as aaa)."""
    found = np.flatnonzero(tokens == left)
    found = found[tokens[found + 1] == right]  # the row ends in a gap
    rank = np.arange(len(found))
    new_run = np.diff(found, prepend=-2) > 1
    run_start = np.maximum.accumulate(np.where(new_run, rank, 0))
    kept: _Ids = found[(rank - run_start) % 2 == 0]
    return kept
