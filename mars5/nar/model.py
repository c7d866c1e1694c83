"""The non-autoregressive transformer ("ResidualTransformer"): noisy codes in, logits out.

The encoder reads [speaker vector, text]; the decoder reads the noisy codes of all codebooks at once
and is not causal; both are told the diffusion step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.config import N_CODEBOOKS, PAD_CODE, NARDims
from mars5.layers import (
    SPEAKER_NORM_EPS,
    Attention,
    ChunkedEmbedding,
    Encoder,
    Gate,
    LayerNorm,
    SinePositions,
    encode_speaker,
    timestep_embedding,
)

# Parts of parameter names that stay in float32 when the rest is loaded in half precision: guidance
# and temperature multiply the rounding errors of the logits by about five.
FLOAT32_PARTS = ("norm", "residual_decoder.", "timestep_")


@dataclass(frozen=True)
class Conditions:
    """All that the decoder reads beside the codes; nothing in it depends on them.

    Attributes:
        time: (B, D) vectors of the diffusion step.
        keys, values: (layers, B, H, M, head_dim) of the cross-attentions, M = 1 + N.
        visible: (B, M) bool, false for padding.
    """

    time: Tensor
    keys: Tensor
    values: Tensor
    visible: Tensor

    def split(self, rows: int) -> list[Conditions]:
        """Parts of so many rows each."""
        return [
            Conditions(*parts)
            for parts in zip(
                self.time.split(rows),
                self.keys.split(rows, 1),
                self.values.split(rows, 1),
                self.visible.split(rows),
                strict=True,
            )
        ]


@dataclass(frozen=True)
class Grid:
    """The frames and the codebooks whose logits are wanted: every one of these at every of those.

    Attributes:
        rows, frames: (F,) int64; where in the batch, and which frame of that row.
        levels: the codebooks, rising.
    """

    rows: Tensor
    frames: Tensor
    levels: Sequence[int]

    @property
    def _columns(self) -> slice | list[int]:
        """A slice if it can be: a list would have to be sent to the device."""
        first, last = self.levels[0], self.levels[-1]
        whole = len(self.levels) == last - first + 1
        return slice(first, last + 1) if whole else list(self.levels)

    def take(self, values: Tensor) -> Tensor:
        """(B, L, Q, ...) -> (F, levels, ...)."""
        return values[self.rows, self.frames][:, self._columns]

    def put(self, codes: Tensor, taken: Tensor) -> Tensor:
        """A copy of codes (B, L, Q) with (F, levels) put back in place."""
        frames = codes[self.rows, self.frames]
        frames[:, self._columns] = taken
        changed = codes.clone()
        changed[self.rows, self.frames] = frames
        return changed

    def repeated(self, copies: int, batch: int) -> Grid:
        """The same grid in each of `copies` batches, one after the other."""
        rows = torch.cat([self.rows + batch * i for i in range(copies)])
        return Grid(rows, self.frames.repeat(copies), self.levels)


class DecoderLayer(nn.Module):
    """Pre-norm self-attention, cross-attention and SwiGLU feed-forward."""

    def __init__(self, dim: int, n_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, n_heads)
        self.multihead_attn = Attention(dim, n_heads)
        self.activation = Gate(dim, ff_dim)
        self.linear2 = nn.Linear(ff_dim, dim)
        self.norm1 = LayerNorm(dim, SPEAKER_NORM_EPS)
        self.norm2 = LayerNorm(dim, SPEAKER_NORM_EPS)
        self.norm3 = LayerNorm(dim, SPEAKER_NORM_EPS)

    def forward(
        self,
        x: Tensor,
        visible: Tensor | None,
        keys: Tensor,
        values: Tensor,
        memory_visible: Tensor | None,
    ) -> Tensor:
        x = x + self.self_attn(self.norm1(x), visible)
        x = x + self.multihead_attn.attend(self.norm2(x), keys, values, memory_visible)
        return x + self.linear2(self.activation(self.norm3(x)))


class Decoder(nn.Module):
    """A stack of decoder layers with a final norm."""

    def __init__(self, dims: NARDims) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dims.dim, dims.n_heads, dims.ff_dim) for _ in range(dims.n_dec_layers)
        )
        self.norm = LayerNorm(dims.dim, SPEAKER_NORM_EPS)

    def forward(self, x: Tensor, visible: Tensor | None, given: Conditions) -> Tensor:
        for layer, keys, values in zip(self.layers, given.keys, given.values, strict=True):
            x = layer(x, visible, keys, values, given.visible)
        return self.norm(x)


class EncoderDecoder(nn.Module):
    """Holder of the two stacks under their published names."""

    def __init__(self, dims: NARDims) -> None:
        super().__init__()
        self.encoder = Encoder(dims.n_enc_layers, dims.dim, dims.n_heads, dims.ff_dim)
        self.decoder = Decoder(dims)


def _timestep_mlp(dims: NARDims) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dims.t_emb_dim, dims.dim), nn.SiLU(), nn.Linear(dims.dim, dims.dim)
    )


class ResidualTransformer(nn.Module):
    """The NAR model of one checkpoint; every size comes from `dims`."""

    def __init__(self, dims: NARDims) -> None:
        super().__init__()
        self.dims = dims
        self.cond_pos_embedding = SinePositions()
        self.pos_embedding = SinePositions()
        self.ref_pos_embedding = SinePositions()
        self.tfm = EncoderDecoder(dims)
        self.text_embed = nn.Embedding(dims.n_text_vocab, dims.dim)
        self.ref_embedder = ChunkedEmbedding(dims.dim, dims.n_classes)
        self.spk_identity_emb = nn.Embedding(1, dims.dim)
        self.spk_encoder = Encoder(dims.n_spk_layers, dims.dim, dims.n_heads, dims.ff_dim)
        self.residual_encoder = ChunkedEmbedding(dims.dim, dims.n_classes)
        self.timestep_encoder_emb = _timestep_mlp(dims)
        self.timestep_decoder_emb = _timestep_mlp(dims)
        self.residual_decoder = nn.ModuleList(
            nn.Sequential(LayerNorm(dims.dim), nn.Linear(dims.dim, dims.n_classes))
            for _ in range(N_CODEBOOKS)
        )

    def speaker_vector(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """Reference codes (B, R, Q) and their lengths (B,) -> (B, D)."""
        visible = torch.arange(codes.shape[1], device=codes.device) < lengths[:, None]
        return encode_speaker(
            self.ref_embedder(codes),
            self.spk_identity_emb,
            self.ref_pos_embedding,
            self.spk_encoder,
            visible,
        )

    def no_speaker_vector(self, batch: int) -> Tensor:
        """(B, D): what guidance subtracts, the vector of a reference of no frames."""
        device = self.spk_identity_emb.weight.device
        codes = torch.full((batch, 1, N_CODEBOOKS), PAD_CODE, device=device)
        return self.speaker_vector(codes, torch.zeros(batch, dtype=torch.long, device=device))

    def encode(self, text: Tensor, text_lengths: Tensor, speaker: Tensor, t: Tensor) -> Tensor:
        """Memory (B, 1 + N, D) of text ids (B, N) and speaker vectors (B, D) at steps t (B,)."""
        x = torch.cat([speaker[:, None].float(), self.text_embed(text).float()], 1)
        x = self.cond_pos_embedding(x) + self.timestep_encoder_emb(self._time(t))[:, None]
        return self.tfm.encoder(x, self._memory_visible(text, text_lengths))

    def conditions(
        self, text: Tensor, text_lengths: Tensor, speaker: Tensor, t: Tensor
    ) -> Conditions:
        """What `decode` reads beside the codes; arguments as in `forward`."""
        memory = self.encode(text, text_lengths, speaker, t)
        layers = cast("Iterable[DecoderLayer]", self.tfm.decoder.layers)
        pairs = [layer.multihead_attn.keys_values(memory) for layer in layers]
        return Conditions(
            self.timestep_decoder_emb(self._time(t)),
            torch.stack([keys for keys, _ in pairs]),
            torch.stack([values for _, values in pairs]),
            self._memory_visible(text, text_lengths),
        )

    def decode(
        self,
        x: Tensor,
        given: Conditions,
        x_visible: Tensor | None = None,
        grid: Grid | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Float32 logits of codes x (B, L, Q): (B, L, Q, K), or (F, levels, K) of the grid.

        Args:
            positions: (L,) of the frames; None for 0, 1, ...
        """
        h = self.pos_embedding(self.residual_encoder(x).float(), positions) + given.time[:, None]
        h = self.tfm.decoder(h, x_visible, given)
        heads = list(self.residual_decoder)
        if grid is not None:
            h, heads = h[grid.rows, grid.frames], [heads[q] for q in grid.levels]
        return torch.stack([head(h) for head in heads], -2).float()

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        speaker: Tensor,
        x: Tensor,
        t: Tensor,
        x_visible: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, L, Q, K) of the clean codes.

        Args:
            text: (B, N) joint ids; text_lengths (B,).
            speaker: (B, D) from `speaker_vector` or `no_speaker_vector`.
            x: (B, L, Q) noisy codes at steps t (B,).
            x_visible: (B, L) bool, false for padding; None if there is none.
        """
        return self.decode(x, self.conditions(text, text_lengths, speaker, t), x_visible)

    def _memory_visible(self, text: Tensor, text_lengths: Tensor) -> Tensor:
        inside = torch.arange(text.shape[1], device=text.device) < text_lengths[:, None]
        return F.pad(inside, (1, 0), value=True)

    def _time(self, t: Tensor) -> Tensor:
        dtype = next(self.timestep_decoder_emb.parameters()).dtype
        return timestep_embedding(t, self.dims.t_emb_dim, dtype)
