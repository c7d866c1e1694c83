"""What a checkpoint's NAR makes of the corpus, for what comes after it: vocoder and transposer.

Codes that settle at the expected sound are smoother than those of recordings. Who has heard only
the latter takes the smoothness for the voice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mars5.codec import MelCodec
from mars5.engine import Coarse, Engine
from mars5.errors import TrainError
from mars5.train.corpus import Utterance, read_shard
from mars5.train.tokens import save_codes
from mars5.voice import Voice


def refine_shard(engine: Engine, shard: Path, target: Path) -> None:
    """Write `refined` codes of a corpus shard, unless they exist.

    The own voice speaks as the default voice, others as a second recording of theirs in the shard,
    the longest, if there is one.
    """
    if target.exists():
        return
    rows = list(read_shard(shard))
    voices: dict[int, Voice] = {}
    by_length = sorted(range(len(rows)), key=lambda i: -rows[i][0].length)
    codes = []
    for i, (utterance, pcm) in enumerate(rows):
        voice = None
        if not shard.name.startswith("own-"):
            same = [j for j in by_length if rows[j][0].speaker == utterance.speaker]
            other = next((j for j in same if j != i), i)
            if other not in voices:
                known = _wave(rows[other][1])
                voices[other] = engine.voices.of_wave(known, engine.default_config)
            voice = voices[other]
        codes.append(refined(engine, utterance, _wave(pcm), voice))
    save_codes(target, codes)


def refined(engine: Engine, utterance: Utterance, wave: Tensor, voice: Voice | None) -> Tensor:
    """(frames, Q) what the NAR makes of the coarse codes of a recording (T,), in a voice.

    Args:
        voice: None for the checkpoint's own.
    """
    cfg = replace(engine.default_config, voice_conversion=0.0, deep_clone=False)
    coarse = mel_codec(engine).encode(wave[None].to(engine.device))[0, :, 0]
    task = engine.task(utterance.text, voice, None, cfg, torch.Generator().manual_seed(0))
    return engine.refined(task, Coarse(coarse.tolist(), "stop"))


def mel_codec(engine: Engine) -> MelCodec:
    """The engine's codec; raises `TrainError` if it is of another kind."""
    if not isinstance(engine.codec, MelCodec):
        raise TrainError("this step needs a checkpoint with a mel codec")
    return engine.codec


def _wave(pcm: np.ndarray) -> Tensor:
    """(T,) int16 -> (T,) float32."""
    return torch.from_numpy(pcm).float() / 32768
