"""The non-autoregressive transformer ("ResidualTransformer"): noisy codes in, logits out.

Spec 1, section 4. The encoder reads [speaker vector, text]; the decoder reads the noisy codes of
all codebooks at once and is not causal; both are told the diffusion step.
"""

from __future__ import annotations

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
    SinePositions,
    encode_speaker,
    timestep_embedding,
)


class DecoderLayer(nn.Module):
    """Pre-norm self-attention, cross-attention and SwiGLU feed-forward."""

    def __init__(self, dim: int, n_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, n_heads)
        self.multihead_attn = Attention(dim, n_heads)
        self.activation = Gate(dim, ff_dim)
        self.linear2 = nn.Linear(ff_dim, dim)
        self.norm1 = nn.LayerNorm(dim, SPEAKER_NORM_EPS)
        self.norm2 = nn.LayerNorm(dim, SPEAKER_NORM_EPS)
        self.norm3 = nn.LayerNorm(dim, SPEAKER_NORM_EPS)

    def forward(
        self, x: Tensor, visible: Tensor | None, memory: Tensor, memory_visible: Tensor | None
    ) -> Tensor:
        x = x + self.self_attn(self.norm1(x), visible)
        x = x + self.multihead_attn(self.norm2(x), memory_visible, memory)
        return x + self.linear2(self.activation(self.norm3(x)))


class Decoder(nn.Module):
    """A stack of decoder layers with a final norm."""

    def __init__(self, dims: NARDims) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dims.dim, dims.n_heads, dims.ff_dim) for _ in range(dims.n_dec_layers)
        )
        self.norm = nn.LayerNorm(dims.dim, SPEAKER_NORM_EPS)

    def forward(
        self, x: Tensor, visible: Tensor | None, memory: Tensor, memory_visible: Tensor | None
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, visible, memory, memory_visible)
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
            nn.Sequential(nn.LayerNorm(dims.dim), nn.Linear(dims.dim, dims.n_classes))
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
        x = torch.cat([speaker[:, None], self.text_embed(text)], 1)
        x = self.cond_pos_embedding(x) + self.timestep_encoder_emb(self._time(t))[:, None]
        return self.tfm.encoder(x, self._memory_visible(text, text_lengths))

    def decode(
        self,
        memory: Tensor,
        memory_visible: Tensor,
        x: Tensor,
        x_visible: Tensor | None,
        t: Tensor,
    ) -> Tensor:
        """Logits (B, L, Q, K) of noisy codes x (B, L, Q) given the encoder's memory."""
        h = self.pos_embedding(self.residual_encoder(x))
        h = h + self.timestep_decoder_emb(self._time(t))[:, None]
        h = self.tfm.decoder(h, x_visible, memory, memory_visible)
        return torch.stack([head(h) for head in self.residual_decoder], 2)

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
        memory = self.encode(text, text_lengths, speaker, t)
        return self.decode(memory, self._memory_visible(text, text_lengths), x, x_visible, t)

    def _memory_visible(self, text: Tensor, text_lengths: Tensor) -> Tensor:
        inside = torch.arange(text.shape[1], device=text.device) < text_lengths[:, None]
        return F.pad(inside, (1, 0), value=True)

    def _time(self, t: Tensor) -> Tensor:
        return timestep_embedding(t, self.dims.t_emb_dim, self.text_embed.weight.dtype)
