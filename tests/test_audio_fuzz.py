"""Damaged recordings are refused or read."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch
from audio_made import KINDS, SR, encode, tone

from mars5.audio import (
    load_reference,
)
from mars5.errors import AudioInputError


def mutated(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        reach = min(len(out), 200) if chance.random() < 0.6 else len(out)
        at = chance.randrange(max(1, reach))
        match chance.randrange(5):
            case 0:
                out[at : at + 1] = bytes([chance.choice((0, 127, 255, chance.randrange(256)))])
            case 1:
                number = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, chance.randrange(2**32)))
                out[at : at + 4] = struct.pack(chance.choice("<>") + "I", number)
            case 2:
                del out[at : at + chance.randrange(1, 200)]
            case 3:
                out[at:at] = out[at : at + chance.randrange(1, 200)]
            case 4 if chance.random() < 0.3:
                del out[at:]
    return bytes(out)


@pytest.mark.parametrize(("kind", "subtype"), [*KINDS, ("WAVEX", "FLOAT"), ("WAV", "ULAW")])
def test_mutated_files_are_refused_or_read(kind: str, subtype: str) -> None:
    stereo = np.stack([tone(0.5), tone(0.5)], 1)
    originals = [encode(tone(0.5), kind, subtype), encode(stereo, kind, subtype)]
    outcomes = {True: 0, False: 0}
    for seed in range(200):
        chance = random.Random(f"{kind} {subtype} {seed}")
        try:
            wave = load_reference(mutated(chance.choice(originals), chance))
        except AudioInputError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            assert wave.ndim == 1
            assert wave.dtype == torch.float32
            assert wave.isfinite().all()
            assert 0.2 * SR <= len(wave) <= 60 * SR + 1
    assert all(outcomes.values())  # the mutations are neither all harmless nor all fatal
