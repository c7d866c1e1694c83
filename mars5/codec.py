"""Waveform to codes: EnCodec for the published weights, a small mel codec for the embedded ones.

Both take (B, T) float32 waves at 24 kHz and return (B, frames, 8) int64 codes. This module is the
only user of the `encodec` package: its module classes with our own loading.
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
from mars5.fourier import Magnitudes

ENCODEC_HOP = 320
ENCODEC_BANDWIDTH = 6.0  # kbps: 8 codebooks
# Frames that EnCodec's convolutions at the audio's rate read at once, and of what came before: they
# see 478 samples back and none ahead.
ENCODEC_CHUNK = 10 * 75
ENCODEC_CONTEXT = 2


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


class EncodecCodec(nn.Module):
    """EnCodec 24 kHz at 6 kbps, built from the package's own classes."""

    name = "encodec"
    frame_rate = SAMPLE_RATE / ENCODEC_HOP

    def __init__(self) -> None:
        super().__init__()
        from encodec.model import EncodecModel

        self.model = EncodecModel.encodec_model_24khz(pretrained=False)
        self.model.set_target_bandwidth(ENCODEC_BANDWIDTH)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        layers = self.model.encoder.model
        from encodec.modules.lstm import SLSTM

        recurrent = next(i for i, layer in enumerate(layers) if isinstance(layer, SLSTM))
        # What takes memory is the convolutions in front of the recurrent layer.
        features = layers[recurrent:](_in_chunks(layers[:recurrent], wave[:, None]))
        codes = self.model.quantizer.encode(features, self.model.frame_rate, ENCODEC_BANDWIDTH)
        return codes.permute(1, 2, 0)


def _in_chunks(convolutions: nn.Module, wave: Tensor) -> Tensor:
    """(B, 1, T) -> (B, C, ceil(T / hop)) by causal convolutions, with bounded memory."""
    parts = []
    frames = -(-wave.shape[2] // ENCODEC_HOP)
    for start in range(0, frames, ENCODEC_CHUNK):
        before = min(start, ENCODEC_CONTEXT)
        samples = slice((start - before) * ENCODEC_HOP, (start + ENCODEC_CHUNK) * ENCODEC_HOP)
        parts.append(convolutions(wave[..., samples])[..., before:])
    return torch.cat(parts, -1)


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
        from torchaudio.functional import melscale_fbanks

        self.dims = dims
        self.frame_rate = SAMPLE_RATE / (dims.hop * dims.stack)
        width = dims.n_mels * dims.stack
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("projection", torch.zeros(width, dims.rank))
        self.register_buffer("codebooks", torch.zeros(N_CODEBOOKS, CODEBOOK_SIZE, dims.rank))
        filters = melscale_fbanks(
            dims.n_fft // 2 + 1, 0.0, SAMPLE_RATE / 2, dims.n_mels, SAMPLE_RATE, "slaney", "slaney"
        )
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
        """(B, frames, rank) -> (B, frames, Q) codes, each book on what the ones before left.

        Args:
            coarse: (B, frames) codes of the first book, if they are to be others than the nearest.
        """
        rest, codes = features, []
        for q, book in enumerate(self.codebooks):
            chosen = coarse if q == 0 and coarse is not None else _nearest(rest, book)
            codes.append(chosen)
            rest = rest - book[chosen]
        return torch.stack(codes, -1)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        return self.quantise(self.features(wave))

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


def _nearest(points: Tensor, book: Tensor) -> Tensor:
    """(..., D) -> (...) index of the closest of `book`'s rows (K, D)."""
    # |x - c|^2 without |x|^2, which is the same for all entries.
    return (book.pow(2).sum(-1) - 2 * points @ book.T).argmin(-1)


def build_encodec(weights: dict[str, Tensor]) -> EncodecCodec:
    """EnCodec with the published weights; raises `CheckpointError` if they are others."""
    codec = EncodecCodec()
    try:
        codec.model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"these are not the weights of EnCodec 24 kHz: {error}") from error
    return codec.eval()


def build_mel_codec(config: dict[str, Any], weights: dict[str, Tensor]) -> MelCodec:
    """The mel codec a checkpoint describes; raises `CheckpointError` if the parts do not fit."""
    try:
        codec = MelCodec(MelCodecDims(**config))
        codec.load_state_dict(weights, assign=True)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"the codec does not fit its config: {error}") from error
    return codec.eval()
