"""Step 5: train the Vocos vocoder to speak the codec's codes again.

Losses are log-mel and multi-resolution spectra of 1 s cuts; no discriminator. A quarter of the
batches hears only the first few codebooks, so that coarse codes alone can be vocoded too.
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
from mars5.train.loop import Run
from mars5.vocoder import Vocoder

SHARES = {"own": 0.2, "plain": 0.45, "pseudo": 0.28, "kokoro": 0.07}
CUT_FRAMES = 36  # code frames of a training cut
EDGE_FRAMES = 4  # not scored at both ends: the vocoder cannot see beyond the cut there
SPECTRA = ((512, 120), (1024, 240), (2048, 480))
MEL_WEIGHT = 2.0


class Cuts:
    """Endless batches of (codes, wave) cuts; a few corpus shards are in memory at a time."""

    def __init__(
        self, shards: dict[str, list[Path]], codec: MelCodec, batch: int, seed: int
    ) -> None:
        self.shards, self.codec, self.batch = shards, codec, batch
        self.rng = random.Random(seed)
        self.samples = CUT_FRAMES * codec.dims.stack * codec.dims.hop

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            waves = [
                torch.from_numpy(pcm).float() / 32768
                for _, pcm in read_shard(
                    self.rng.choice(self.shards[draw_cast(self.shards, SHARES, self.rng)])
                )
                if len(pcm) >= self.samples
            ]
            for _ in range(2 * len(waves) // self.batch):
                yield self._cut(self.rng.sample(waves, self.batch))

    def _cut(self, waves: list[Tensor]) -> tuple[Tensor, Tensor]:
        cuts = []
        for wave in waves:
            start = self.rng.randrange(len(wave) - self.samples + 1)
            cuts.append(self.codec.levelled(wave[None])[0, start : start + self.samples])
        batch = torch.stack(cuts)
        stacked = self.codec.log_mel(batch).unflatten(1, (-1, self.codec.dims.stack)).flatten(2)
        features = (stacked - self.codec.mean) @ self.codec.projection
        return self.codec.quantise(features), batch


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
    vocoder: Vocoder, codec: MelCodec, run: Run, cuts: Cuts, device: torch.device, seed: int
) -> None:
    """Train until the run's time is over."""
    rng = random.Random(seed + run.step)
    edge = EDGE_FRAMES * codec.dims.stack * codec.dims.hop
    stream = iter(cuts)
    for _ in run.steps():
        codes, wave = (x.to(device) for x in next(stream))
        books = N_CODEBOOKS if rng.random() < 0.75 else rng.randint(1, N_CODEBOOKS - 1)
        with torch.autocast(device.type, torch.bfloat16):
            said = vocoder(codes[..., :books])
        said, wave = said.float()[:, edge:-edge], wave[:, edge:-edge]
        mel = F.l1_loss(codec.log_mel(said), codec.log_mel(wave))
        spectra = spectral_loss(said, wave)
        run.update(MEL_WEIGHT * mel + spectra)
        run.seen += wave.numel()
        if run.tally(mel=mel.item(), spectra=spectra.item()):
            run.note()
