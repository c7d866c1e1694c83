"""Steps 9 and 10: train the transposer, which moves the own voice into other registers.

It hears what the NAR makes of the own voice's coarse codes, as it will in use, and is to give the
log-mel of the same recording moved by the WORLD vocoder. The melody only changes by rule, so that
there is one right answer, and the mean of the answers is not a blur.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mars5.codec import MelCodec
from mars5.conversion.pitch import Register, register
from mars5.conversion.transposer import PITCHES, SPREADS, Shift, Transposer
from mars5.engine import Coarse, Engine
from mars5.errors import TrainError
from mars5.files import replacing
from mars5.train.corpus import read_shard
from mars5.train.loop import Run
from mars5.train.teachers import as_wave
from mars5.train.world import analyse, transposed

SHIFTS = 4  # of each recording
CUT_FRAMES = 128  # mel frames of a training cut
BATCH = 16


@dataclass(frozen=True)
class Pair:
    """A recording as the NAR gives it, and moved.

    Attributes:
        sound, wanted: (L, n_mels) float16 log-mel.
        shift: (2,) pitch and spread of the `Shift`.
    """

    sound: Tensor
    wanted: Tensor
    shift: Tensor


def pair_shard(engine: Engine, shard: Path, own: Register, target: Path) -> None:
    """Write the pairs of a corpus shard of the own voice, unless they exist.

    Args:
        engine: the checkpoint's, whose NAR gives the sound.
        own: the voice's register.
    """
    if target.exists():
        return
    codec, rng = mel_codec(engine), random.Random(shard.name)
    sounds, wanted, shifts = [], [], []
    for utterance, pcm in read_shard(shard):
        wave = as_wave(pcm)
        sound = codec.sound(said_again(engine, utterance.text, wave)[None])[0]
        sounds.append(sound.half().cpu())
        parts = analyse(wave.numpy())
        for _ in range(SHIFTS):
            shift = drawn_shift(rng)
            moved = torch.from_numpy(transposed(parts, own, shift))[: len(wave)]
            moved = F.pad(moved, (0, len(wave) - len(moved)))[None].to(engine.device)
            mel = codec.log_mel(codec.levelled(moved))[0]
            wanted.append(F.pad(mel, (0, 0, 0, len(sound) - len(mel))).half().cpu())
            shifts.append([shift.pitch, shift.spread])
    tensors = {
        "sound": torch.cat(sounds), "wanted": torch.cat(wanted), "shifts": torch.tensor(shifts)
    }  # fmt: skip
    with replacing(target) as temporary:
        save_file(tensors, temporary, {"frames": json.dumps([len(sound) for sound in sounds])})


def said_again(engine: Engine, text: str, wave: Tensor) -> Tensor:
    """(L, Q) what the NAR makes of the coarse codes of a recording (T,) of the own voice."""
    cfg = replace(engine.default_config, voice_conversion=0.0)
    codes = engine.codec.encode(wave[None].to(engine.device))[0]
    task = engine.task(text, None, None, cfg, torch.Generator().manual_seed(0))
    return engine.refined(task, Coarse(codes[:, 0].tolist(), "stop"))


def mel_codec(engine: Engine) -> MelCodec:
    """The engine's codec; raises `TrainError` if it is of another kind."""
    if not isinstance(engine.codec, MelCodec):
        raise TrainError("this step needs a checkpoint with a mel codec")
    return engine.codec


def drawn_shift(rng: random.Random) -> Shift:
    """Any shift that the network shall know."""
    pitch, spread = (rng.uniform(*map(math.log, limits)) for limits in (PITCHES, SPREADS))
    return Shift(pitch, spread)


def own_register(shards: list[Path]) -> Register:
    """That of the speaker of corpus shards, by some of the utterances.

    Raises:
        TrainError: nothing in them is voiced.
    """
    waves = [pcm for _, pcm in list(read_shard(shards[0]))[:40]]
    found = register(as_wave(np.concatenate(waves)))
    if found is None:
        raise TrainError(f"nothing is voiced in {shards[0]}")
    return found


def read_pairs(paths: list[Path]) -> list[Pair]:
    """All pairs of the shards."""
    pairs = []
    for path in paths:
        with safe_open(path, "pt") as file:
            lengths = json.loads(file.metadata()["frames"])
            sound, wanted, shifts = (file.get_tensor(n) for n in ("sound", "wanted", "shifts"))
        sounds = [each for each in sound.split(lengths) for _ in range(SHIFTS)]
        ends = [length for length in lengths for _ in range(SHIFTS)]
        pairs += [Pair(*each) for each in zip(sounds, wanted.split(ends), shifts, strict=True)]
    return pairs


def batches(pairs: list[Pair], seed: int) -> Iterator[Pair]:
    """Endless batches of cuts, each a `Pair` with a leading axis."""
    rng = random.Random(seed)
    pairs = [pair for pair in pairs if len(pair.sound) >= CUT_FRAMES]
    while True:
        chosen = rng.sample(pairs, BATCH)
        starts = [rng.randrange(len(pair.sound) - CUT_FRAMES + 1) for pair in chosen]
        cuts = [
            (pair.sound[start : start + CUT_FRAMES], pair.wanted[start : start + CUT_FRAMES])
            for pair, start in zip(chosen, starts, strict=True)
        ]
        sound, wanted = (torch.stack(each).float() for each in zip(*cuts, strict=True))
        yield Pair(sound, wanted, torch.stack([pair.shift for pair in chosen]))


def distances(model: Transposer, batch: Pair, device: torch.device) -> Tensor:
    """Mean absolute distance to what is wanted, in nats, in the middle of each cut."""
    edge = model.reach
    with torch.autocast(device.type, torch.bfloat16):
        found = model(batch.sound.to(device), batch.shift.to(device))
    return F.l1_loss(found[:, edge:-edge].float(), batch.wanted[:, edge:-edge].to(device))


def train_transposer(
    model: Transposer,
    run: Run,
    stream: Iterator[Pair],
    held_out: list[Pair],
    device: torch.device,
) -> None:
    """Train until the run's time is over; a line of figures every minute or so."""
    for _ in run.steps():
        batch = next(stream)
        loss = distances(model, batch, device)
        run.update(loss)
        run.seen += batch.sound[..., 0].numel()
        if run.tally(loss=loss.item()):
            with torch.no_grad():
                held = torch.stack([distances(model, each, device) for each in held_out]).mean()
            run.note(held_out=held.item())
