"""Step 4: what other voices would be if they had the delivery of the checkpoint's own voice.

For versions 2 to 6 of the embedded checkpoint, from which its weights still descend. Since version
7 the sound of the own voice is converted instead (`mars5.conversion`), and no training asks for
this step.

In those the AR gave the coarse codes of its own voice, whoever was cloned (`own_delivery`), and the
NAR had to find the rest in the cloned voice. To learn that, it needed examples: an utterance of
somebody, moved phone by phone to the times at which the own voice says the same, with the coarse
codes of the own voice and the finer codes that bring the somebody back from there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mars5.codec import MelCodec
from mars5.train.corpus import read_shard
from mars5.train.teachers import Phones, as_wave, own_speaker, speak
from mars5.train.tokens import save_codes

# Kokoro's phones by flite's names; those not listed are called the same.
SAME_PHONES = {
    "ɹ": "r", "A": "ey", "O": "ow", "ɪ": "ih", "ɛ": "eh", "ɑ": "aa", "ʤ": "jh", "ʧ": "ch",  # noqa: RUF001
    "ð": "dh", "θ": "th", "ŋ": "ng", "ʃ": "sh", "ʒ": "zh", "i": "iy", "u": "uw", "ə": "ax",
    "ᵻ": "ax", "æ": "ae", "I": "ay", "W": "aw", "Y": "oy", "j": "y", "h": "hh", "ɡ": "g",  # noqa: RUF001
    "ʌ": "ah", "ɔ": "ao", "ʊ": "uh", "ɾ": "t",
}  # fmt: skip


def deliver_shard(codec: MelCodec, shard: Path, target: Path) -> None:
    """Write the codes of a corpus shard upon the own voice's coarse codes, unless they exist."""
    if target.exists():
        return
    save_codes(target, [codec.quantise(*pair)[0] for pair in delivered_shard(codec, shard)])


def delivered_shard(codec: MelCodec, shard: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """`delivered` for every utterance of a corpus shard."""
    for utterance, pcm in read_shard(shard):
        own, phones = speak(utterance.text, own_speaker(random.Random()))
        yield delivered(codec, (pcm, utterance.phones), (own, phones))


@torch.no_grad()
def delivered(
    codec: MelCodec, wanted: tuple[np.ndarray, Phones], own: tuple[np.ndarray, Phones]
) -> tuple[Tensor, Tensor]:
    """Somebody's features at the own voice's times, and the own voice's coarse codes.

    Args:
        wanted, own: (T,) int16 waves of one text, with their phones.

    Returns:
        (1, frames, rank) features and (1, frames) codes, as `MelCodec.quantise` takes them.
    """
    wave, own_wave = (as_wave(pcm)[None] for pcm in (wanted[0], own[0]))
    coarse = codec.encode(own_wave)[..., 0]
    rate = codec.frame_rate * codec.dims.stack
    middles = (np.arange(coarse.shape[1] * codec.dims.stack) + 0.5) / rate
    there, here = matching_times(wanted[1], own[1])
    places = torch.from_numpy(np.interp(middles, here, there) * rate - 0.5).float()
    mel = codec.log_mel(codec.levelled(wave))[0]
    return codec.project(_between_frames(mel, places)[None]), coarse


def matching_times(wanted: Phones, own: Phones) -> tuple[list[float], list[float]]:
    """Times in seconds at which both come to the same boundary of a phone, both rising from 0."""
    names = [[SAME_PHONES.get(name, name) for name, _ in phones] for phones in (wanted, own)]
    times = [[0.0, *(end for _, end in phones)] for phones in (wanted, own)]
    there, here = [0.0], [0.0]
    for run in SequenceMatcher(a=names[0], b=names[1], autojunk=False).get_matching_blocks():
        for k in range(run.size + 1 if run.size else 0):
            one, two = times[0][run.a + k], times[1][run.b + k]
            if one > there[-1] and two > here[-1]:
                there.append(one)
                here.append(two)
    return there, here


def _between_frames(mel: Tensor, places: Tensor) -> Tensor:
    """(n, C) frames of `mel` (F, C) at fractional places (n,), between their neighbours."""
    places = places.clamp(0, len(mel) - 1)
    before = places.long()
    after = (before + 1).clamp(max=len(mel) - 1)
    return mel[before].lerp(mel[after], (places - before)[:, None])
