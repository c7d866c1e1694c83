"""Verified speech: a recogniser hears what was made; what it cannot understand is made again.

Needs the extra `[eval]`. Whoever speaks in pieces verifies each: see `verified`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mars5.errors import ConfigError
from mars5.eval.alignment import TimedWord, align
from mars5.eval.clips import to_judges
from mars5.eval.ears import MODELS, RATE, WINDOW_SECONDS, Recogniser, Wave
from mars5.eval.failures import expected_seconds
from mars5.eval.text import word_errors, words_of
from mars5.tries import tries

if TYPE_CHECKING:
    from mars5.editing import Edited
    from mars5.speech import Speech

MAX_TRIES = 100

Spoken = TypeVar("Spoken", bound="Speech | Edited")


@dataclass(frozen=True)
class Verify:
    """How speech is verified.

    Attributes:
        tries: how often a text is spoken, at most.
        max_word_error_rate: the first try with no more than this is taken.
        asr: the recogniser, "tiny.en" or the slower and better "base".

    Raises:
        ConfigError: a value is out of its range.
    """

    tries: int = 3
    max_word_error_rate: float = 0.1
    asr: str = "tiny.en"

    def __post_init__(self) -> None:
        tries, rate = self.tries, self.max_word_error_rate
        if isinstance(tries, bool) or not isinstance(tries, int) or not 1 <= tries <= MAX_TRIES:
            raise ConfigError(
                f"verify: tries must be a whole number from 1 to {MAX_TRIES}, got {tries!r}"
            )
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ConfigError(f"verify: max_word_error_rate must be from 0 to 1, got {rate!r}")
        if self.asr not in MODELS:
            raise ConfigError(f"verify: asr must be one of {', '.join(MODELS)}, got {self.asr!r}")


@dataclass(frozen=True)
class Hearing:
    """What a recogniser made of the speech of one text.

    Attributes:
        text: what should be said.
        heard: what was understood.
        word_error_rate: wrong, added and missing words over those of the text, both normalised.
        confidence: 0 to 1, the mean probability of the words of the text where they are said;
            0 if nothing was heard. It tells good speech from bad, but is no share of right words.
        words: those of the text, with their times in seconds from the start of the audio; () if
            nothing was heard, or of speech over 29 s, which the recogniser cannot see at once.
        tries: how often the text was spoken.
        seed: of the try that was kept.
    """

    text: str
    heard: str
    word_error_rate: float
    confidence: float
    words: tuple[TimedWord, ...]
    tries: int
    seed: int

    def shifted(self, seconds: float) -> Hearing:
        """The same, for audio that starts so much earlier."""
        moved = (replace(w, start=w.start + seconds, end=w.end + seconds) for w in self.words)
        return replace(self, words=tuple(moved))

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Hearing:
        """What `dataclasses.asdict` made of one, perhaps by way of JSON."""
        words = tuple(TimedWord(**word) for word in facts["words"])
        return cls(**{**facts, "words": words})


def describe(hearing: Hearing) -> str:
    """One line for people."""
    tries = f"{hearing.tries} {'try' if hearing.tries == 1 else 'tries'}, seed {hearing.seed}"
    return (
        f"heard {hearing.heard!r}: word error rate {hearing.word_error_rate:.0%}, confidence "
        f"{hearing.confidence:.2f}, {tries}"
    )


def as_verify(verify: bool | Verify) -> Verify:
    """What was given as `verify=`, if not False. The recogniser is there when this returns.

    Raises:
        ConfigError: neither True nor a `Verify`.
        MissingExtraError: the extra is not installed.
    """
    if verify is not True and not isinstance(verify, Verify):
        raise ConfigError(f"verify must be True, False or a Verify, got {verify!r:.80}")
    chosen = Verify() if verify is True else verify
    recogniser(chosen.asr)
    return chosen


def verified(
    speak: Callable[[int], Spoken], text: str, verify: Verify, seed: int, speed: float = 1.0
) -> Spoken:
    """Speak until it is understood; the best of the tries, with its `Hearing` in `heard`.

    The best has the fewest word errors, and among such the most plausible duration.

    Args:
        speak: gives the speech of `text` for a seed; called with `seed` first, then with others
            that follow from it.
        text: of one piece: a few seconds.
        speed: of the speech (`InferenceConfig.speed`): what is faster is expected to be shorter.

    Raises:
        MissingExtraError: the extra is not installed.
        GenerationError: no try gave any speech.
        Mars5Error: others of `speak`, at once.
    """
    ears = recogniser(verify.asr)
    said = words_of(text)
    drawn: list[int] = []

    def speak_next(number: int) -> Spoken:
        drawn.append(derived_seed(seed, number) if number else seed)
        return speak(drawn[-1])

    best: tuple[tuple[float, float], Spoken, str, int] | None = None
    for speech in tries(speak_next, verify.tries, text):
        heard = ears.transcribe([_wave(speech)])[0]
        rate = word_errors(said, words_of(heard)) / max(1, len(said))
        score = rate, _implausibility(speech, expected_seconds(text) / speed)
        if best is None or score < best[0]:
            best = score, speech, heard, drawn[-1]
        if rate <= verify.max_word_error_rate:
            break
    if best is None:  # for the type checker: there is a try, or `tries` raises
        raise ValueError("verify.tries must be positive")
    (rate, _), speech, heard, kept = best
    words = _words(ears, speech, text) if heard else ()
    confidence = float(np.mean([word.probability for word in words])) if words else 0.0
    hearing = Hearing(text, heard, rate, confidence, words, len(drawn), kept)
    return replace(speech, heard=(hearing,))


def derived_seed(seed: int, number: int) -> int:
    """The seed of try `number`, from 1 on: far from those of other texts, which may be `seed` + 1.

    Returns:
        0 to 2**63 - 1, the same everywhere.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


@cache
def recogniser(name: str) -> Recogniser:
    """A recogniser, kept: it takes seconds to load, and 40 to 80 MB.

    Raises:
        MissingExtraError: the extra is not installed; what compares words is asked for, too.
    """
    word_errors(words_of(""), [])
    return Recogniser(name)


def _wave(speech: Speech | Edited) -> Wave:
    return to_judges(speech.audio.numpy(), speech.sample_rate)


def _words(ears: Recogniser, speech: Speech | Edited, text: str) -> tuple[TimedWord, ...]:
    wave = _wave(speech)
    return tuple(align(ears, wave, text)) if len(wave) <= WINDOW_SECONDS * RATE else ()


def _implausibility(speech: Speech | Edited, expected: float) -> float:
    """How far the duration is from the seconds expected, by its logarithm."""
    seconds = len(speech.audio) / speech.sample_rate
    return abs(math.log(max(seconds, 0.01) / expected))
