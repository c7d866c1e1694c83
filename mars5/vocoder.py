"""Codes to waveform with Vocos: summed codebook vectors, ConvNeXt backbone, inverse STFT.

The network is that of Vocos (https://arxiv.org/abs/2306.00814), with its names of parameters; the
head uses real arithmetic, for every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS
from mars5.errors import CheckpointError
from mars5.fourier import InverseSTFT

PUBLISHED_BANDWIDTH_ID = 1  # the 3 kbps embedding on 6 kbps codes: a deliberate smoothing
CONV_REACH = 3  # frames on either side that each convolution of the backbone sees
KERNEL = 2 * CONV_REACH + 1
EPS = 1e-6
MAX_MAGNITUDE = 100.0
CHUNK_FRAMES = 2048  # code frames vocoded at once; more are done in parts, to bound the memory


@dataclass(frozen=True)
class VocoderDims:
    """Sizes of a Vocos vocoder; the defaults are those of `charactr/vocos-encodec-24khz`.

    Attributes:
        channels: features per frame of the backbone.
        stack: backbone frames per code frame.
        n_bandwidths: rows of the adaptive norm; 0 for a vocoder without bandwidths.
    """

    channels: int = 128
    stack: int = 1
    dim: int = 384
    ff_dim: int = 1152
    n_layers: int = 8
    n_fft: int = 1280
    hop: int = 320
    n_bandwidths: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            low = 0 if name == "n_bandwidths" else 1
            high = 64 if name in ("stack", "n_layers", "n_bandwidths") else 8192
            if not isinstance(value, int) or not low <= value <= high:
                raise CheckpointError(
                    f"VocoderDims.{name} must be a whole number from {low} to {high}, got {value!r}"
                )
        if self.n_fft % 2 or self.n_fft < self.hop:
            raise CheckpointError(
                f"VocoderDims.n_fft = {self.n_fft} must be even and at least hop = {self.hop}"
            )

    def check_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        """Refuse sizes of a network that a file's weights cannot have, before it takes memory.

        Raises:
            CheckpointError: the matrices of the layers alone would have more weights.
        """
        stated = 2 * self.n_layers * self.dim * self.ff_dim
        given = sum(tensor.numel() for tensor in weights.values())
        if stated > given:
            raise CheckpointError(
                f"the {name}'s config states {stated} weights in its layers, the file has {given} "
                "in all: they do not belong together"
            )


class AdaptiveNorm(nn.LayerNorm):
    """Layer norm whose scale and shift belong to the bandwidth that the codes were made for."""

    def __init__(self, n_bandwidths: int, dim: int) -> None:
        super().__init__(dim, EPS, elementwise_affine=False)
        self.scale = nn.Embedding.from_pretrained(torch.ones(n_bandwidths, dim), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(n_bandwidths, dim), freeze=False)

    def forward(self, x: Tensor, bandwidth_id: Tensor | None = None) -> Tensor:
        return super().forward(x) * self.scale(bandwidth_id) + self.shift(bandwidth_id)


class PlainNorm(nn.LayerNorm):
    """Layer norm of a vocoder that knows no bandwidths."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, EPS)

    def forward(self, x: Tensor, bandwidth_id: Tensor | None = None) -> Tensor:
        return super().forward(x)


def _norm(dims: VocoderDims) -> AdaptiveNorm | PlainNorm:
    return AdaptiveNorm(dims.n_bandwidths, dims.dim) if dims.n_bandwidths else PlainNorm(dims.dim)


class ConvNeXtBlock(nn.Module):
    """A convolution of each channel in time, then two layers on each frame, scaled and added."""

    def __init__(self, dims: VocoderDims) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dims.dim, dims.dim, KERNEL, padding=CONV_REACH, groups=dims.dim)
        self.norm = _norm(dims)
        self.pwconv1 = nn.Linear(dims.dim, dims.ff_dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(dims.ff_dim, dims.dim)
        self.gamma = nn.Parameter(torch.full((dims.dim,), 1 / dims.n_layers))

    def forward(self, x: Tensor, bandwidth_id: Tensor | None) -> Tensor:
        """(B, dim, L) -> (B, dim, L)."""
        y = self.norm(self.dwconv(x).transpose(1, 2), bandwidth_id)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.transpose(1, 2)


class Backbone(nn.Module):
    """Vocos' network between the features and the head."""

    def __init__(self, dims: VocoderDims) -> None:
        super().__init__()
        self.embed = nn.Conv1d(dims.channels, dims.dim, KERNEL, padding=CONV_REACH)
        self.norm = _norm(dims)
        self.convnext = nn.ModuleList(ConvNeXtBlock(dims) for _ in range(dims.n_layers))
        self.final_layer_norm = nn.LayerNorm(dims.dim, EPS)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv1d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, bandwidth_id: Tensor | None) -> Tensor:
        """(B, channels, L) -> (B, L, dim)."""
        x = self.norm(self.embed(x).transpose(1, 2), bandwidth_id).transpose(1, 2)
        for block in self.convnext:
            x = block(x, bandwidth_id)
        return self.final_layer_norm(x.transpose(1, 2))


class Head(nn.Module):
    """Vocos' last layer: magnitudes and phases of a spectrum, then its wave."""

    def __init__(self, dims: VocoderDims) -> None:
        super().__init__()
        self.out = nn.Linear(dims.dim, dims.n_fft + 2)
        self.istft = InverseSTFT(dims.n_fft, dims.hop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, dim) float32 -> (B, L * hop)."""
        log_magnitude, phase = self.out(x).chunk(2, -1)
        return self.istft(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase)


class Vocoder(nn.Module):
    """A Vocos vocoder over a table of codebook vectors.

    Args:
        dims: its sizes.
        rows: rows of the codebook table, 1024 a book.
    """

    def __init__(self, dims: VocoderDims, rows: int) -> None:
        super().__init__()
        self.dims = dims
        self.backbone = Backbone(dims)
        self.head = Head(dims)
        self.register_buffer("table", torch.zeros(rows, dims.channels * dims.stack))
        self.table: Tensor

    @property
    def books(self) -> Tensor:
        """(8, 1024, channels * stack): the vectors of all codes, book by book."""
        return self.table[: N_CODEBOOKS * CODEBOOK_SIZE].unflatten(0, (N_CODEBOOKS, CODEBOOK_SIZE))

    def features(self, codes: Tensor) -> Tensor:
        """Codes (B, T, Q) -> (B, channels, T * stack): the sum of the vectors of Q books.

        Any number of books from the first on will do. A code of 1024 reads row 0 of the next
        book, as in the published vocoder.
        """
        codes = codes.long()
        summed = self.table[codes[..., 0]]
        for q in range(1, codes.shape[2]):  # all at once takes eight times the memory
            summed = summed + self.table[codes[..., q] + q * CODEBOOK_SIZE]
        return summed.unflatten(2, (self.dims.stack, -1)).flatten(1, 2).transpose(1, 2)

    def synthesise(self, features: Tensor, bandwidth_id: int = PUBLISHED_BANDWIDTH_ID) -> Tensor:
        """Features (B, channels, L) -> (B, L * hop) float32 samples."""
        chosen = torch.tensor([bandwidth_id], device=features.device)
        x = self.backbone(features, chosen)
        with torch.autocast(x.device.type, enabled=False):  # phases and exponents need float32
            return self.head(x.float())

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, T, Q) -> (B, T * stack * hop) float32 samples at 24 kHz."""
        return self.wave(self.features(codes))

    def wave(self, features: Tensor) -> Tensor:
        """As `synthesise`, long features in parts."""
        length = features.shape[2] // self.dims.stack
        if length <= CHUNK_FRAMES:
            return self.synthesise(features)
        starts = range(0, length, CHUNK_FRAMES)
        parts = [self.span(features, i, min(i + CHUNK_FRAMES, length)) for i in starts]
        return torch.cat(parts, 1)

    @property
    def context(self) -> int:
        """Code frames on either side of a frame that its samples depend on."""
        frames = CONV_REACH * (1 + self.dims.n_layers) + self.head.istft.reach
        return -(-frames // self.dims.stack)

    def span(self, features: Tensor, start: int, stop: int) -> Tensor:
        """The samples of the code frames start..stop of features, as if all were vocoded.

        Reads `context` frames more on either side, where there are any, and no others: speech that
        goes on may be vocoded in parts, each once its right context is there.

        Args:
            features: (B, channels, T * stack) of T code frames.
        """
        first, stack = max(0, start - self.context), self.dims.stack
        wave = self.synthesise(features[..., first * stack : (stop + self.context) * stack])
        samples = stack * self.dims.hop
        return wave[:, (start - first) * samples : (stop - first) * samples]


def build_vocoder(config: dict[str, Any], weights: dict[str, Tensor], table: Tensor) -> Vocoder:
    """The vocoder a checkpoint describes, with its codebook `table` (rows, channels * stack).

    Raises:
        CheckpointError: config, weights and table do not fit each other.
    """
    try:
        dims = VocoderDims(**config)
        dims.check_weights("vocoder", weights)
        vocoder = Vocoder(dims, len(table))
        vocoder.load_state_dict({**weights, "table": table}, assign=True)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"the vocoder does not fit its config: {error}") from error
    return vocoder.eval()


def build_published_vocoder(weights: dict[str, Tensor]) -> Vocoder:
    """`charactr/vocos-encodec-24khz` from its `pytorch_model.bin`.

    Raises:
        CheckpointError: other weights than those.
    """
    table_name = "feature_extractor.codebook_weights"
    if table_name not in weights:
        raise CheckpointError(f"these are not the weights of Vocos for EnCodec: no {table_name!r}")
    kept = {k: v for k, v in weights.items() if k.startswith(("backbone.", "head."))}
    return build_vocoder({}, kept, weights[table_name])
