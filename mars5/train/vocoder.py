"""Step 5: train the Vocos vocoder to speak the codec's codes again.

Losses are log-mel and multi-resolution spectra of 1 s cuts and, after a while, the verdict of
judges that learn beside it. Some batches are given as the sound itself, as converted speech is, and
some hear only the first few codebooks, so that coarse codes alone can be vocoded too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.codec import MelCodec
from mars5.config import N_CODEBOOKS
from mars5.train.batching import draw_cast
from mars5.train.corpus import read_shard
from mars5.train.judges import Judges
from mars5.train.loop import Run
from mars5.train.teachers import as_wave
from mars5.vocoder import Vocoder

SHARES = {"own": 0.25, "plain": 0.1, "pseudo": 0.15, "crowd": 0.2, "kokoro": 0.3}
CUT_FRAMES = 36  # code frames of a training cut
EDGE_FRAMES = 4  # not scored at both ends: the vocoder cannot see beyond the cut there
SPECTRA = ((512, 120), (1024, 240), (2048, 480))
EXACT_SHARE, FEW_SHARE = 0.4, 0.2  # of the batches: given as log-mel, given in some books only
MEL_WEIGHT = 2.0
JUDGED_FROM = 0.1  # of the training time
UNREAL_WEIGHT, UNLIKE_WEIGHT = 0.1, 0.5


class Cuts:
    """Endless batches of (log-mel, codes, wave) cuts; one corpus shard is in memory at a time."""

    def __init__(
        self, shards: dict[str, list[Path]], codec: MelCodec, batch: int, seed: int
    ) -> None:
        self.shards, self.codec, self.batch = shards, codec, batch
        self.rng = random.Random(seed)
        self.samples = CUT_FRAMES * codec.dims.stack * codec.dims.hop

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            waves = [
                as_wave(pcm)
                for _, pcm in read_shard(
                    self.rng.choice(self.shards[draw_cast(self.shards, SHARES, self.rng)])
                )
                if len(pcm) >= self.samples
            ]
            for _ in range(2 * len(waves) // self.batch):
                yield self._cut(self.rng.sample(waves, self.batch))

    def _cut(self, waves: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        cuts = []
        for wave in waves:
            start = self.rng.randrange(len(wave) - self.samples + 1)
            cuts.append(self.codec.levelled(wave[None])[0, start : start + self.samples])
        batch = torch.stack(cuts)
        mel = self.codec.log_mel(batch)
        return mel, self.codec.quantise(self.codec.project(mel)), batch


def spectral_loss(said: Tensor, wanted: Tensor) -> Tensor:
    """Distance of magnitudes, linear and logarithmic, at three resolutions; inputs (B, T)."""
    total = said.new_zeros(())
    for n_fft, hop in SPECTRA:
        window = torch.hann_window(n_fft, device=said.device)
        a, b = (
            torch.stft(x, n_fft, hop, window=window, return_complex=True).abs().clamp(min=1e-4)
            for x in (said, wanted)
        )
        linear = (a - b).norm(dim=(1, 2)) / b.norm(dim=(1, 2))
        total = total + linear.mean() + F.l1_loss(a.log(), b.log())
    return total / len(SPECTRA)


def train_vocoder(
    vocoder: Vocoder,
    judges: Judges,
    codec: MelCodec,
    runs: tuple[Run, Run],
    cuts: Cuts,
    device: torch.device,
    seed: int,
) -> None:
    """Train both until the time of the vocoder's run, the first, is over."""
    run, judging = runs
    rng = random.Random(seed + run.step)
    edge = EDGE_FRAMES * codec.dims.stack * codec.dims.hop
    stream = iter(cuts)
    for _ in run.steps(judging):
        mel, codes, wave = (x.to(device) for x in next(stream))
        lot = rng.random()
        books = rng.randint(1, N_CODEBOOKS - 1) if lot < FEW_SHARE else N_CODEBOOKS
        exact = lot >= 1 - EXACT_SHARE
        with torch.autocast(device.type, torch.bfloat16):
            said = vocoder.synthesise(mel.mT if exact else vocoder.features(codes[..., :books]))
        said, wave = said.float()[:, edge:-edge], wave[:, edge:-edge]
        figures = {
            "mel": F.l1_loss(codec.log_mel(said), codec.log_mel(wave)),
            "spectra": spectral_loss(said, wave),
        }
        loss = MEL_WEIGHT * figures["mel"] + figures["spectra"]
        # Few books describe another sound than the wave's: nothing to be judged by it.
        if run.progress > JUDGED_FROM and books == N_CODEBOOKS:
            with torch.autocast(device.type, torch.bfloat16):
                figures["judges"] = judges.loss(said, wave)
            judging.update(figures["judges"])
            with torch.autocast(device.type, torch.bfloat16):
                figures["unreal"], figures["unlike"] = judges.verdict(said, wave)
            loss = loss + UNREAL_WEIGHT * figures["unreal"] + UNLIKE_WEIGHT * figures["unlike"]
        run.update(loss)
        run.seen += wave.numel()
        if run.tally(**{name: figure.item() for name, figure in figures.items()}):
            run.note()
