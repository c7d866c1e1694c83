"""Waveform to codes: what a codec is, and the small mel codec of the embedded checkpoint.

`mars5.encodec` has the one of the published weights. Both take (B, T) float32 waves at 24 kHz and
return (B, frames, 8) int64 codes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, SAMPLE_RATE
from mars5.errors import CheckpointError
from mars5.fourier import Magnitudes, mel_filters


class Codec(Protocol):
    """What the rest of the library knows of a codec."""

    frame_rate: float

    @property
    def name(self) -> str:
        """Names the code space: voices made with another one are refused."""
        ...

    def encode(self, wave: Tensor) -> Tensor:
        """(B, T) float32 at 24 kHz -> (B, frames, Q) int64 codes in 0..1023."""
        ...


@dataclass(frozen=True)
class MelCodecDims:
    """Sizes of a `MelCodec`, stated by its checkpoint.

    Attributes:
        stack: mel frames of `hop` samples that share one code frame.
        rank: dimensions kept of the stacked log-mel.
        level: root-mean-square the wave is brought to before analysis.
        floor: smallest mel amplitude told apart from silence.
    """

    stack: int = 2
    rank: int = 96
    n_mels: int = 80
    n_fft: int = 1024
    hop: int = 320
    level: float = 0.1
    floor: float = 0.002

    def __post_init__(self) -> None:
        limits = {"stack": 16, "rank": 1024, "n_mels": 512, "n_fft": 8192, "hop": 8192}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= limit:
                raise CheckpointError(
                    f"MelCodecDims.{name} must be a whole number from 1 to {limit}, got {value!r}"
                )
        if self.n_fft % 2:
            raise CheckpointError(f"MelCodecDims.n_fft must be even, got {self.n_fft}")
        if not (0 < self.level <= 1 and 0 < self.floor <= 1 and self.n_fft >= self.hop):
            raise CheckpointError(f"codec level, floor or n_fft is out of its range: {self}")


class MelCodec(nn.Module):
    """Residual vector quantisation of stacked log-mel frames: no network, hence fast and robust.

    The codebook vectors live in a space of `rank` principal directions of the stacked log-mel;
    summed and projected back they are the log-mel a vocoder reads (see `mars5.vocoder`).
    """

    kind = "mel-rvq"

    def __init__(self, dims: MelCodecDims) -> None:
        super().__init__()
        self.dims = dims
        self.frame_rate = SAMPLE_RATE / (dims.hop * dims.stack)
        width = dims.n_mels * dims.stack
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("projection", torch.zeros(width, dims.rank))
        self.register_buffer("codebooks", torch.zeros(N_CODEBOOKS, CODEBOOK_SIZE, dims.rank))
        filters = mel_filters(dims.n_fft // 2 + 1, dims.n_mels, SAMPLE_RATE)
        self.register_buffer("filters", filters, persistent=False)
        self.magnitudes = Magnitudes(dims.n_fft, dims.hop)
        self.mean: Tensor
        self.projection: Tensor
        self.codebooks: Tensor
        self.filters: Tensor

    @property
    def name(self) -> str:
        """Kind and a digest of the codebooks: codes mean nothing to another codec of the kind."""
        books = self.codebooks.half().cpu().numpy().tobytes()
        return f"{self.kind}-{hashlib.sha256(books).hexdigest()[:8]}"

    def log_mel(self, wave: Tensor) -> Tensor:
        """(B, T) -> (B, ceil(T / hop), n_mels) log amplitudes above the floor, in nats."""
        d = self.dims
        frames = -(-wave.shape[1] // d.hop)
        side = (d.n_fft - d.hop) // 2
        wave = F.pad(wave, (side, side + frames * d.hop - wave.shape[1]))
        mel = self.magnitudes(wave)[:, :frames] @ self.filters
        return (mel.clamp(min=d.floor) / d.floor).log()

    def features(self, wave: Tensor) -> Tensor:
        """(B, T) -> (B, frames, rank): what is quantised."""
        return self.project(self.log_mel(self.levelled(wave)))

    def project(self, mel: Tensor) -> Tensor:
        """(B, mel frames, n_mels) -> (B, frames, rank) features of the log-mel."""
        stack = self.dims.stack
        mel = F.pad(mel, (0, 0, 0, -mel.shape[1] % stack))
        return (mel.unflatten(1, (-1, stack)).flatten(2) - self.mean) @ self.projection

    def quantise(self, features: Tensor, coarse: Tensor | None = None) -> Tensor:
        """(B, frames, rank) -> (B, frames, Q) codes; `coarse` as in `residual_codes`."""
        return residual_codes(features, self.codebooks, coarse)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        return self.quantise(self.features(wave))

    def sound(self, codes: Tensor) -> Tensor:
        """(B, frames, Q) -> (B, mel frames, n_mels): the log-mel that codes stand for."""
        levels = zip(self.codebooks, codes.unbind(2), strict=True)
        features = torch.stack([book[chosen] for book, chosen in levels]).sum(0)
        stacked = features @ self.projection.T + self.mean
        return stacked.unflatten(2, (self.dims.stack, -1)).flatten(1, 2)

    def vector_table(self) -> Tensor:
        """(Q * 1024, stack * n_mels): rows whose sums over the books are stacked log-mel frames."""
        vectors = self.codebooks @ self.projection.T
        vectors[0] += self.mean
        return vectors.flatten(0, 1)

    def levelled(self, wave: Tensor) -> Tensor:
        """Bring the loud part of each wave to `level`: recording gain carries no meaning."""
        blocks = F.pad(wave, (0, -wave.shape[1] % self.dims.hop)).unflatten(1, (-1, self.dims.hop))
        power = blocks.pow(2).mean(-1)
        loud = power >= power.mean(1, keepdim=True) * 0.25
        rms = ((power * loud).sum(1) / loud.sum(1).clamp(min=1)).sqrt()
        return wave * (self.dims.level / rms.clamp(min=1e-5))[:, None]


def residual_codes(features: Tensor, books: Tensor, coarse: Tensor | None = None) -> Tensor:
    """Residual vector quantisation: each book on what the ones before left.

    Args:
        features: (B, frames, D).
        books: (Q, K, D) vectors.
        coarse: (B, frames) codes of the first book, if they are to be others than the nearest.

    Returns:
        (B, frames, Q) int64.
    """
    rest, codes = features, []
    for q, book in enumerate(books):
        chosen = coarse if q == 0 and coarse is not None else _nearest(rest, book)
        codes.append(chosen)
        rest = rest - book[chosen]
    return torch.stack(codes, -1)


def _nearest(points: Tensor, book: Tensor) -> Tensor:
    """(..., D) -> (...) index of the closest of `book`'s rows (K, D)."""
    # |x - c|^2 without |x|^2, which is the same for all entries.
    return (book.pow(2).sum(-1) - 2 * points @ book.T).argmin(-1)


def build_mel_codec(config: dict[str, Any], weights: dict[str, Tensor]) -> MelCodec:
    """The mel codec a checkpoint describes; raises `CheckpointError` if the parts do not fit."""
    try:
        codec = MelCodec(MelCodecDims(**config))
        codec.load_state_dict(weights, assign=True)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"the codec does not fit its config: {error}") from error
    return codec.eval()
