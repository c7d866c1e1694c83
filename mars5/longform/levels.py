"""One loudness for all pieces of a text: how loud speech is, and how much to change it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

BLOCK = 480  # samples, 20 ms
UNDER_PEAK_DB = 20.0  # blocks further under the loudest are pauses
MOST_DB = 4.0  # of change: a piece that is meant to be quiet stays so
FULL_SCALE = 0.99


def speech_level(wave: Tensor) -> float:
    """Level of the speech in a wave (T,), T > 0, pauses left out: dB under full scale."""
    blocks = F.pad(wave, (0, -len(wave) % BLOCK)).view(-1, BLOCK)
    power = blocks.square().mean(1).clamp(min=1e-10)
    spoken = power[power >= power.max() * 10 ** (-UNDER_PEAK_DB / 10)]
    return float(10 * spoken.mean().log10())


def levelled(wave: Tensor, target: float) -> Tensor:
    """The wave (T,) brought nearer to the level `target`, by 4 dB at most and never clipped."""
    change = min(max(target - speech_level(wave), -MOST_DB), MOST_DB)
    gain = float(10 ** (change / 20))
    if gain > 1:
        gain = min(gain, max(1.0, FULL_SCALE / float(wave.abs().max())))
    return wave * gain
