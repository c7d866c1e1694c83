"""Whether one voice speaks through a recording, by a speaker encoder of the extra `[eval]`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import soxr

from mars5.config import SAMPLE_RATE
from mars5.eval.extra import extra
from mars5.reference.recording import Floats

_ENCODER_RATE = 16_000
_LEAST_SECONDS = 4.0  # two windows of 1.6 s that hardly overlap, for each of two voices
_LEAST_WINDOWS = 2  # of one voice: a single one may be a cough or a laugh


def least_similarity(wave: Floats) -> float | None:
    """Cosine similarity of the two groups of windows of 1.6 s that differ most.

    Args:
        wave: (T,) float32 at 24 kHz.

    Returns:
        None if the recording is too short, or only a single window stands apart.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    encoder = _encoder()
    if len(wave) < _LEAST_SECONDS * SAMPLE_RATE:
        return None
    heard = soxr.resample(wave, SAMPLE_RATE, _ENCODER_RATE)
    _, windows, _ = encoder.embed_utterance(heard, return_partials=True, rate=2.5)
    similar = windows @ windows.T
    one, other = np.unravel_index(np.argmin(similar), similar.shape)
    nearer = similar[:, one] >= similar[:, other]
    groups = windows[nearer], windows[~nearer]
    if min(map(len, groups)) < _LEAST_WINDOWS:
        return 1.0
    first, second = (group.mean(0) / np.linalg.norm(group.mean(0)) for group in groups)
    return float(first @ second)


@cache
def _encoder() -> Any:
    with extra("the search for a second speaker"):
        from resemblyzer import VoiceEncoder
    return VoiceEncoder("cpu", verbose=False)
