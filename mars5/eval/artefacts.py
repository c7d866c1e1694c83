"""DNSMOS: a guard against noise, clicks and distortion; it is no measure of naturalness."""

from __future__ import annotations

import numpy as np

from mars5.eval.ears import RATE, Wave
from mars5.eval.extra import extra


def dnsmos(wave: Wave) -> float | None:
    """Overall quality by DNSMOS P.835, 1 to 5, of a wave at 16 kHz; None for an empty one.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    with extra("DNSMOS"):
        from speechmos import dnsmos as judge
    if not wave.any():
        return None
    found = judge.run(np.clip(wave, -1.0, 1.0), RATE, return_df=False)
    return float(found["ovrl_mos"])
