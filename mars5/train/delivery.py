"""Step 4: what other voices would be if they had the delivery of the checkpoint's own voice.

Shallow clones of a small checkpoint keep one delivery (`own_delivery`): the AR gives the coarse
codes of its own voice, whoever is cloned, and the NAR has to find the rest in the cloned voice. To
learn that, it needs examples: an utterance of somebody, with the coarse codes of the own voice
saying the same, aligned in time, and the finer codes that bring the first back from there.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mars5.codec import MelCodec
from mars5.files import replacing
from mars5.train.corpus import read_shard
from mars5.train.teachers import own_speaker, speak

STEPS = 4  # the own voice moves on by 0 to 3 frames for each frame of the other


def deliver_shard(codec: MelCodec, shard: Path, target: Path) -> None:
    """Write the codes of a corpus shard upon the own voice's coarse codes, unless they exist."""
    if target.exists():
        return
    codes = []
    for utterance, pcm in read_shard(shard):
        own, _ = speak(utterance.text, own_speaker(random.Random()))
        codes.append(delivered(codec, pcm, own).to(torch.int16))
    with replacing(target) as temporary:
        save_file({"codes": torch.cat(codes)}, temporary)


@torch.no_grad()
def delivered(codec: MelCodec, wanted: np.ndarray, own: np.ndarray) -> Tensor:
    """(T, Q) codes of the wave `wanted` on the aligned coarse codes of `own`; both int16."""
    features, other = (
        codec.features(torch.from_numpy(pcm).float()[None] / 32768)[0] for pcm in (wanted, own)
    )
    coarse = codec.quantise(other[None])[0, :, 0][aligned(features, other)]
    return codec.quantise(features[None], coarse[None])[0]


def aligned(wanted: Tensor, other: Tensor) -> Tensor:
    """(T,) frames of `other` (S, D), in order, that sound most like those of `wanted` (T, D).

    The best path by dynamic programming, after each side's mean is taken off: it is the speaker's.
    """
    one, two = wanted - wanted.mean(0), other - other.mean(0)
    costs = torch.cdist(one, two).square().numpy()
    best = np.full(len(two), np.inf)
    best[:STEPS] = costs[0, :STEPS]
    moves = np.zeros(costs.shape, dtype=np.int64)
    for frame in range(1, len(one)):
        ways = np.full((STEPS, len(two)), np.inf)
        for step in range(min(STEPS, len(two))):
            ways[step, step:] = best[: len(two) - step]
        moves[frame] = ways.argmin(0)
        best = ways.min(0) + costs[frame]
    place = len(two) - 1 if np.isfinite(best[-1]) else int(best.argmin())
    path = [place]
    for frame in range(len(one) - 1, 0, -1):
        place -= int(moves[frame, place])
        path.append(place)
    return torch.tensor(path[::-1])
