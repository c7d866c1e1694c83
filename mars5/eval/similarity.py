"""Who speaks: cosine similarity of speaker embeddings, and what it is for same and other people."""

from __future__ import annotations

import shutil
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mars5.eval.clips import read_wave
from mars5.eval.ears import Wave
from mars5.eval.extra import extra
from mars5.eval.lists import read_list
from mars5.eval.references import LIBRIVOX, librivox
from mars5.eval.sources import Teacher

Embedding: TypeAlias = npt.NDArray[np.float32]  # (256,), of length 1

_MIN_VOICED_SECONDS = 0.2
FLITE_VOICES = ("slt", "rms", "awb", "kal16")


class SpeakerJudge:
    """Resemblyzer's speaker encoder, with the weights that its package holds.

    Raises:
        MissingExtraError: the extra is not installed.
    """

    def __init__(self) -> None:
        with extra("speaker similarity"):
            import resemblyzer
        self._package: Any = resemblyzer
        self._encoder: Any = resemblyzer.VoiceEncoder("cpu", verbose=False)

    def embed(self, wave: Wave) -> Embedding | None:
        """The embedding of a wave at 16 kHz; None where too little of it is speech."""
        if not wave.any():
            return None
        voiced = self._package.preprocess_wav(wave)
        if len(voiced) < _MIN_VOICED_SECONDS * self._package.sampling_rate:
            return None
        embedding: Embedding = self._encoder.embed_utterance(voiced)
        return embedding


def similarity(one: Embedding | None, other: Embedding | None) -> float | None:
    """Cosine of two embeddings, 0 to 1; None if one is missing."""
    return None if one is None or other is None else float(one @ other)


def baselines(people: dict[str, list[Embedding]]) -> tuple[float | None, float | None]:
    """Median similarity of pairs of recordings of one person, and of two people.

    Args:
        people: embeddings of the recordings of each person.

    Returns:
        (same, different); None where there is no such pair.
    """
    pairs = combinations([(who, e) for who, found in people.items() for e in found], 2)
    same: list[float] = []
    different: list[float] = []
    for (who, one), (whom, other) in pairs:
        (same if who == whom else different).append(float(one @ other))
    return _median(same), _median(different)


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def bystanders() -> dict[str, list[Wave]]:
    """Several recordings each of people who are at hand, for the baselines of speaker similarity.

    The LibriVox reader and flite's voices, as far as their Debian packages are installed.
    """
    people: dict[str, list[Wave]] = {}
    if LIBRIVOX.is_dir():
        people["librivox"] = [read_wave(reference.path) for reference in librivox()]
    if shutil.which("flite") is not None:
        for voice in FLITE_VOICES:
            teacher = Teacher(f"flite:{voice}")
            people[teacher.name] = [teacher.say(text) for text in read_list("everyday")[:4]]
    return people
