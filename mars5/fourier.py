"""Fourier transforms in real arithmetic: every device has a matrix product, not all have these."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _bases(n_fft: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Scaled cosines and sines of 2 pi k n / n_fft for the half of n that the other half mirrors.

    Cosines are (n_fft // 2 + 1, n_fft // 2 + 1) for n from 0, sines lack the first and last n. All
    are taken from one turn in float64.
    """
    turn = torch.arange(n_fft, dtype=torch.float64) * (2 * math.pi / n_fft)
    half = torch.arange(n_fft // 2 + 1)
    place = half[:, None] * half % n_fft
    cos, sin = (scale * turn.cos()).float(), (scale * turn.sin()).float()
    return cos[place], sin[place[:, 1:-1]]


def mel_filters(n_freqs: int, n_mels: int, rate: int) -> Tensor:
    """(n_freqs, n_mels) triangles of equal area, evenly spread in mel up to half the rate."""
    corner = mel_corners(n_mels, rate)
    width = corner.diff()
    above = corner - torch.linspace(0, rate // 2, n_freqs)[:, None]
    rising, falling = -above[:, :-2] / width[:-1], above[:, 2:] / width[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return triangles * (2 / (corner[2:] - corner[:-2]))


def mel_corners(n_mels: int, rate: int) -> Tensor:
    """(n_mels + 2,) Hz: where each filter's neighbours have their peaks; its own lies between.

    Malcolm Slaney, Auditory Toolbox (1998): linear up to 1000 Hz, logarithmic above; what librosa
    computes by default.
    """
    linear, log_from, log_step = 200 / 3, 1000.0, math.log(6.4) / 27
    bend = log_from / linear
    highest = bend + math.log(rate / 2 / log_from) / log_step
    mel = torch.linspace(0, highest, n_mels + 2)
    return torch.where(mel < bend, mel * linear, log_from * (log_step * (mel - bend)).exp())


class Magnitudes(nn.Module):
    """Magnitudes of the short-time Fourier transform with a Hann window, no frame padded.

    Args:
        n_fft: even.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        cos, sin = _bases(n_fft)
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("cos", cos.T.contiguous(), persistent=False)
        self.register_buffer("sin", sin.T.contiguous(), persistent=False)
        self.window: Tensor
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, wave: Tensor) -> Tensor:
        """(B, T) float32 -> (B, 1 + (T - n_fft) // hop, n_fft // 2 + 1)."""
        half = self.n_fft // 2
        frames = wave.unfold(1, self.n_fft, self.hop) * self.window
        inner, mirrored = frames[..., 1:half], frames[..., half + 1 :].flip(-1)
        even = torch.cat([frames[..., :1], inner + mirrored, frames[..., half : half + 1]], -1)
        power = (even @ self.cos).square() + ((inner - mirrored) @ self.sin).square()
        return power.clamp(min=1e-20).sqrt()  # at 0 the root has no slope to train with


class InverseSTFT(nn.Module):
    """Frames of a spectrum to a wave of `hop` samples a frame, as Vocos' "same" padding does.

    Args:
        n_fft: even, at least `hop`.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        cos, sin = _bases(n_fft, 2 / n_fft)
        # All but the constant and the highest frequency stand for two, themselves and their mirror.
        for basis in (cos, sin):
            basis[[0, -1]] *= 0.5
        self.register_buffer("window", torch.hann_window(n_fft))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.window: Tensor
        self.cos: Tensor
        self.sin: Tensor

    @property
    def reach(self) -> int:
        """Frames on either side that a sample of a frame is made of."""
        return -(-self._cut // self.hop)

    @property
    def _cut(self) -> int:
        return (self.n_fft - self.hop) // 2

    def forward(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """Two of (B, L, n_fft // 2 + 1) float32 -> (B, L * hop)."""
        even, odd = (magnitude * phase.cos()) @ self.cos, (magnitude * phase.sin()) @ self.sin
        inner = even[..., 1:-1]
        mirrored = (inner + odd).flip(-1)
        frame = torch.cat([even[..., :1], inner - odd, even[..., -1:], mirrored], -1)
        wave = self._overlapped(frame * self.window)
        frames = magnitude.shape[1]
        whole = (frames - 1) * self.hop + self.n_fft
        inside = slice(self._cut, whole - self._cut)
        return wave.flatten(1)[:, inside] / self._envelope(frames).flatten()[inside]

    def _overlapped(self, frames: Tensor) -> Tensor:
        """(B, L, n_fft) -> (B, blocks, hop): the sum of all frames, each `hop` after the last."""
        length, per_frame = frames.shape[1], -(-self.n_fft // self.hop)
        frames = nn.functional.pad(frames, (0, per_frame * self.hop - self.n_fft))
        blocks = frames.unflatten(2, (per_frame, self.hop))
        total = frames.new_zeros(len(frames), length + per_frame - 1, self.hop)
        for i in range(per_frame):
            total[:, i : i + length] += blocks[:, :, i]
        return total

    def _envelope(self, length: int) -> Tensor:
        """(blocks, hop): the sum of the squared windows of so many frames.

        It is the same wherever a block has all its frames, so that few blocks tell all.
        """
        full = min(length, -(-self.n_fft // self.hop))
        few = self._overlapped(self.window.square().expand(1, full, -1))[0]
        block = torch.arange(length + len(few) - full, device=few.device)
        return few[block.clamp(max=full - 1) + (block - length + 1).clamp(min=0)]
