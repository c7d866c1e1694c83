"""What a generation gives: `Speech`, its pieces, and an item of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from mars5.config import SAMPLE_RATE
from mars5.errors import GenerationError, Mars5Error
from mars5.profiles import Profile
from mars5.styles import StyleChoice

if TYPE_CHECKING:
    from mars5.verify import Hearing


@dataclass(frozen=True, eq=False)
class Speech:
    """What one generation gave.

    Attributes:
        audio: (T,) float32 at 24 kHz on the CPU, silence at the ends trimmed.
        codes: (n, Q) int64, all codebooks of the new speech; of converted speech
            (`InferenceConfig.voice_conversion`) the nearest ones.
        ar_codes: (m,) int64 coarse codes as the AR gave them; in a deep clone they begin with
            (almost all of) the reference's own, or the style's.
        finish_reason: "stop" if the AR ended by itself, "length" if it reached its limit.
        heard: what a recogniser understood, piece by piece, if that was asked for (`verify`).
        style: what instructions chose for the voice, and why; None without them.
        profile: the profile whose settings were used, and why; None if they are no profile's.
        pieces: what was spoken when. The codes of a text of several pieces are those of all
            pieces, one after the other; of a pause there are none.
        first_sound_seconds: of a stream, how long its first sound took.
    """

    audio: Tensor
    codes: Tensor
    ar_codes: Tensor
    finish_reason: str
    sample_rate: int = SAMPLE_RATE
    heard: tuple[Hearing, ...] = ()
    style: StyleChoice | None = None
    profile: Profile | None = None
    pieces: tuple[SpokenPiece, ...] = ()
    first_sound_seconds: float | None = None


@dataclass(frozen=True)
class SpokenPiece:
    """One piece of a text in the audio of all.

    Attributes:
        text: as it was spoken.
        start, stop: its samples in the audio, half-open; pauses lie outside.
        finish_reason: as in `Speech`.
    """

    text: str
    start: int
    stop: int
    finish_reason: str


def worst_reason(finish_reasons: Iterable[str]) -> str:
    """ "length" if any of the pieces reached its limit, else "stop"."""
    return "length" if "length" in set(finish_reasons) else "stop"


def inaudible(trim_db: float) -> GenerationError:
    """The error for speech of which nothing is left after trimming."""
    return GenerationError(
        "the vocoder gave no audible sound: try another seed, another reference, or a trim_db "
        f"above {trim_db:g}"
    )


@dataclass(frozen=True, eq=False)
class BatchItem:
    """One text of a batch: its place, and either its speech or why there is none."""

    index: int
    speech: Speech | None
    error: Mars5Error | None = None
