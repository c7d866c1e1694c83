"""Pieces of a text spoken one after the other, and what joins them.

All pieces are spoken with the same voice, and each for itself: none hears the others. So the voice
cannot drift, and a piece is the same alone, in a batch, or after an interruption. Loudness is kept
near that of the first piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mars5.config import SAMPLE_RATE, InferenceConfig
from mars5.device import at_work
from mars5.engine import Engine
from mars5.errors import GenerationError
from mars5.longform.levels import levelled, speech_level
from mars5.profiles import Profile
from mars5.progress import shown
from mars5.seeds import Seeds
from mars5.speech import Speech, SpokenPiece, worst_reason
from mars5.streaming.edges import fade_ends, silence
from mars5.text import Piece
from mars5.tries import tries
from mars5.voice import Voice

if TYPE_CHECKING:
    from mars5.verify import Hearing, Verify

ATTEMPTS = 3  # a chapter does not end because one piece gave no speech


@dataclass(frozen=True, eq=False)
class Passage:
    """One piece of a text, spoken.

    Attributes:
        index: its place in the text.
        piece: the text and its pauses.
        speech: what was generated for it.
        audio: (T,) float32 at 24 kHz: the speech with its loudness levelled and its ends faded,
            and the pauses. All passages one after the other are the whole.
        level: of the speech, pauses left out: dB under full scale, before levelling.
    """

    index: int
    piece: Piece
    speech: Speech
    audio: Tensor
    level: float

    @property
    def heard(self) -> tuple[Hearing, ...]:
        """What a recogniser understood, if that was asked for; times are those of `audio`."""
        before = len(silence(self.piece.pause_before)) / SAMPLE_RATE
        return tuple(hearing.shifted(before) for hearing in self.speech.heard)


def narrate(
    engine: Engine,
    pieces: Iterable[Piece],
    voice: Voice,
    cfg: InferenceConfig,
    seeds: Seeds,
    check: Verify | None = None,
    *,
    first: int = 0,
    target: float | None = None,
    profile: Profile | None = None,
) -> Iterator[Passage]:
    """Speak pieces one after the other.

    A piece that gives no speech is tried again with another seed: twice at most, or as often as
    `check` says.

    Args:
        voice: prepared by `engine`.
        check: how each piece is heard, and made again; None for not at all.
        first: place of the first of `pieces` in the text.
        target: level to come near; None takes that of the first piece.
        profile: whose settings `cfg` are, if they are a profile's.

    Raises:
        GenerationError: a piece gave no speech.
        OutOfMemoryError: memory did not suffice.
    """

    def spoken() -> Iterator[tuple[Piece, Speech]]:
        for index, piece in enumerate(pieces, first):
            speak = partial(engine.utterance, piece.text, voice, cfg)
            try:
                speech = _spoken(speak, index, piece, seeds, check, cfg.speed, ATTEMPTS)
            except GenerationError as error:
                raise GenerationError(f"piece {index} {piece.text[:40]!r}: {error}") from error
            yield piece, replace(speech, profile=profile)

    return passages(spoken(), first=first, target=target)


def passages(
    spoken: Iterable[tuple[Piece, Speech]], *, first: int = 0, target: float | None = None
) -> Iterator[Passage]:
    """What was spoken of each piece as passages; arguments as in `narrate`."""
    for index, (piece, speech) in enumerate(spoken, first):
        level = speech_level(speech.audio)
        target = level if target is None else target
        wave = fade_ends(levelled(speech.audio, target))
        parts = [silence(piece.pause_before), wave, silence(piece.pause_after)]
        yield Passage(index, piece, speech, torch.cat(parts), level)


def speeches(
    engine: Engine,
    pieces: Sequence[Piece],
    voice: Voice,
    cfg: InferenceConfig,
    seeds: Seeds,
    progress: bool,
    check: Verify | None,
) -> Iterator[Speech]:
    """The speech of each piece; under one bar, or a bar for each stage of a single one.

    Args:
        check: how each piece is heard, and made again; None for not at all.
    """
    alone = len(pieces) == 1
    for index, piece in enumerate(shown(pieces, progress and not alone, "pieces", len(pieces))):
        speak = partial(engine.utterance, piece.text, voice, cfg, progress=progress and alone)
        yield _spoken(speak, index, piece, seeds, check, cfg.speed, attempts=1)


@at_work()
def _spoken(
    speak: Callable[[torch.Generator | None], Speech],
    index: int,
    piece: Piece,
    seeds: Seeds,
    check: Verify | None,
    speed: float,
    attempts: int,
) -> Speech:
    """The speech of one piece: the first there is in so many attempts, or what `check` takes."""
    if check is None:
        return next(tries(lambda n: speak(seeds.of_piece(index, n)), attempts, piece.text))
    from mars5.verify import verified

    def seeded(seed: int) -> Speech:
        return speak(torch.Generator().manual_seed(seed))

    return verified(seeded, piece.text, check, seeds.number(index), speed)


def join(spoken: Sequence[tuple[Piece, Speech]]) -> Speech:
    """The speech of all pieces of a text as one.

    A single piece without pauses stays as it is, sample by sample.
    """
    if len(spoken) == 1 and not (spoken[0][0].pause_before or spoken[0][0].pause_after):
        piece, speech = spoken[0]
        said = SpokenPiece(piece.text, 0, len(speech.audio), speech.finish_reason)
        return replace(speech, pieces=(said,))
    waves: list[Tensor] = []
    said_pieces: list[SpokenPiece] = []
    heard: list[Hearing] = []
    at = 0
    for passage in passages(spoken):
        start = at + len(silence(passage.piece.pause_before))
        stop = start + len(passage.speech.audio)
        reason = passage.speech.finish_reason
        said_pieces.append(SpokenPiece(passage.piece.text, start, stop, reason))
        heard += [hearing.shifted(at / SAMPLE_RATE) for hearing in passage.heard]
        waves.append(passage.audio)
        at += len(passage.audio)
    return Speech(
        torch.cat(waves),
        torch.cat([speech.codes for _, speech in spoken]),
        torch.cat([speech.ar_codes for _, speech in spoken]),
        worst_reason(speech.finish_reason for _, speech in spoken),
        heard=tuple(heard),
        style=spoken[0][1].style,
        pieces=tuple(said_pieces),
    )
