"""Judges of the vocoder: small networks that tell its spectra from those of real waves.

Distances alone make a blurred spectrum the safest guess; a judge sees the blur. Three resolutions
of the complex spectrum, as in EnCodec's training (https://arxiv.org/abs/2210.13438, section 3.4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPECTRA = ((512, 128), (1024, 256), (2048, 512))
CHANNELS = 16
WIDE = (3, 9), (1, 2), (1, 4)  # kernel, stride and padding over (time, frequency)
COMPRESSION = 0.3  # of the magnitudes: soft parts of the spectrum are heard too


class Judge(nn.Module):
    """Convolutions over time and frequency of one resolution."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.hidden = nn.ModuleList(
            [*(nn.Conv2d(n, CHANNELS, *WIDE) for n in (2, CHANNELS, CHANNELS)),
             nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)]
        )  # fmt: skip
        self.out = nn.Conv2d(CHANNELS, 1, 3, padding=1)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T) -> verdicts (B, 1, frames, bins), high for what seems real, and what led there."""
        x = self._spectrum(wave).contiguous(memory_format=torch.channels_last)
        seen = []
        for layer in self.hidden:
            x = F.leaky_relu(layer(x), 0.2)
            seen.append(x)
        return self.out(x), seen

    def _spectrum(self, wave: Tensor) -> Tensor:
        """(B, T) -> (B, 2, frames, bins): real and imaginary part, magnitudes compressed."""
        window = torch.hann_window(self.n_fft, device=wave.device)
        spectrum = torch.stft(
            wave, self.n_fft, self.hop, window=window, normalized=True, return_complex=True
        )
        parts = torch.view_as_real(spectrum)  # (B, bins, frames, 2)
        power = parts.square().sum(-1, keepdim=True).clamp(min=1e-8)
        return (parts * power ** ((COMPRESSION - 1) / 2)).permute(0, 3, 2, 1)


class Judges(nn.Module):
    """A judge for each resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(Judge(*spectrum) for spectrum in SPECTRA)

    def loss(self, said: Tensor, wave: Tensor) -> Tensor:
        """What the judges learn by: hinge losses of what the vocoder said (B, T) and the real."""
        total = said.new_zeros(())
        for judge in self.each:
            made, real = judge(said.detach())[0], judge(wave)[0]
            total = total + F.relu(1 + made.float()).mean() + F.relu(1 - real.float()).mean()
        return total / len(self.each)

    def verdict(self, said: Tensor, wave: Tensor) -> tuple[Tensor, Tensor]:
        """What the vocoder learns by: how unreal it seems, and how else it is seen than `wave`.

        The judges learn nothing by it.
        """
        self.requires_grad_(False)
        unreal, unlike = said.new_zeros(()), said.new_zeros(())
        for judge in self.each:
            made, seen = judge(said)
            with torch.no_grad():
                known = judge(wave)[1]
            unreal = unreal - made.float().mean()
            for a, b in zip(seen, known, strict=True):
                a, b = a.float(), b.float()
                unlike = unlike + F.l1_loss(a, b) / b.abs().mean() / len(seen)
        self.requires_grad_(True)
        return unreal / len(self.each), unlike / len(self.each)
