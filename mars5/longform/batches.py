"""Texts of several pieces in a batch: the pieces of all texts are rows like any others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mars5.batch import Input, speak_each
from mars5.config import InferenceConfig
from mars5.engine import Engine
from mars5.errors import Mars5Error
from mars5.letters import warn_of_letters
from mars5.longform.narration import join
from mars5.profiles import Profile
from mars5.seeds import Seeds
from mars5.speech import BatchItem, Speech
from mars5.text import Piece, prepare_limited


@dataclass
class _Text:
    """A text whose pieces are being spoken."""

    pieces: list[Piece]
    spoken: dict[int, Speech] = field(default_factory=dict)
    failed: bool = False


def speak_each_text(
    engine: Engine,
    inputs: list[Input],
    cfg: InferenceConfig | None,
    profile: Profile | None,
    batch_size: int,
    lexicon: Mapping[str, str] | None,
    normalise: bool,
) -> Iterator[BatchItem]:
    """Yield each text's speech when its last piece is ready, or the first error of its pieces.

    Args:
        profile: whose settings `cfg` are, if they are a profile's.
    """
    texts: dict[int, _Text] = {}
    rows: list[Input] = []
    places: list[tuple[int, int]] = []
    for index, given in enumerate(inputs):
        try:
            texts[index] = _Text(prepare_limited(given.text, lexicon, normalise))
        except Mars5Error as error:
            yield BatchItem(index, None, error)
            continue
        seeds = Seeds(given.seed)
        for number, piece in enumerate(texts[index].pieces):
            rows.append(replace(given, text=piece.text, seed=seeds.number(number)))
            places.append((index, number))
    warn_of_letters(engine.text_tokenizer, (row.text for row in rows))
    for item in speak_each(engine, rows, cfg, batch_size):
        index, number = places[item.index]
        text = texts[index]
        if item.speech is not None:
            text.spoken[number] = item.speech
        elif not text.failed:
            text.failed = True
            yield BatchItem(index, None, item.error)
        if len(text.spoken) == len(text.pieces):
            speeches = [text.spoken.pop(number) for number in range(len(text.pieces))]
            joined = join(list(zip(text.pieces, speeches, strict=True)))
            yield BatchItem(index, replace(joined, profile=profile))
