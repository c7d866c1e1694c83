"""The autoregressive transformer ("CodecLM"): text and speech ids in, logits over both out.

The sequence is [speaker vector, embedded ids...]; positions count from 0 at the speaker vector,
whose own output is dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.config import PAD_CODE, ARDims
from mars5.layers import (
    ChunkedEmbedding,
    Encoder,
    RMSNorm,
    SinePositions,
    encode_speaker,
    rotary_table,
    rotate,
)


class KVCache:
    """Keys and values of the positions seen so far, in a ring of `slots` per layer.

    Position p lives in slot p mod slots. A ring as long as the sliding window makes a query see
    `sliding_window` positions including itself.
    """

    def __init__(
        self,
        dims: ARDims,
        slots: int,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.slots = min(slots, dims.sliding_window)
        self.length = 0
        shape = (dims.n_layers, batch, dims.n_heads, self.slots, dims.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store (B, H, S, head_dim) for the positions from `length` on; the newest win."""
        kept = min(keys.shape[2], self.slots)
        first = self.length + keys.shape[2] - kept
        start = first % self.slots
        before_wrap = min(kept, self.slots - start)
        for ring, new in ((self.keys[layer], keys), (self.values[layer], values)):
            newest = new[:, :, -kept:]
            ring[:, :, start : start + before_wrap] = newest[:, :, :before_wrap]
            ring[:, :, : kept - before_wrap] = newest[:, :, before_wrap:]

    def filled(self, new: int) -> int:
        """Slots in use once `new` further positions are written."""
        return min(self.length + new, self.slots)


class SelfAttention(nn.Module):
    """Causal attention over a sliding window, rotary positions, no biases."""

    def __init__(self, dims: ARDims) -> None:
        super().__init__()
        self.n_heads = dims.n_heads
        self.wq = nn.Linear(dims.dim, dims.dim, bias=False)
        self.wk = nn.Linear(dims.dim, dims.dim, bias=False)
        self.wv = nn.Linear(dims.dim, dims.dim, bias=False)
        self.wo = nn.Linear(dims.dim, dims.dim, bias=False)

    def queries_keys_values(
        self, x: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) -> three (B, H, S, head_dim), queries and keys rotated."""
        q, k, v = (
            w(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for w in (self.wq, self.wk, self.wv)
        )
        return rotate(q, *rotary), rotate(k, *rotary), v

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        q, k, v = self.queries_keys_values(x, rotary)
        if cache is not None:
            cache.write(layer, k, v)
            if cache.length:  # a step sees the ring; a prefill sees its own sequence
                used = cache.filled(x.shape[1])
                k, v = cache.keys[layer][:, :, :used], cache.values[layer][:, :, :used]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.wo(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """w2(silu(w1 y) * w3 y)."""

    def __init__(self, dim: int, ff_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, ff_dim, bias=False)
        self.w2 = nn.Linear(ff_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, ff_dim, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(y)) * self.w3(y))


class Block(nn.Module):
    """One pre-norm decoder block."""

    def __init__(self, dims: ARDims) -> None:
        super().__init__()
        self.attention = SelfAttention(dims)
        self.feed_forward = FeedForward(dims.dim, dims.ff_dim)
        self.attention_norm = RMSNorm(dims.dim)
        self.ffn_norm = RMSNorm(dims.dim)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, mask, cache, layer)
        return x + self.feed_forward(self.ffn_norm(x))


class Decoder(nn.Module):
    """The stack of blocks, the final norm and the output projection."""

    def __init__(self, dims: ARDims) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(dims) for _ in range(dims.n_layers))
        self.norm = RMSNorm(dims.dim)
        self.output = nn.Linear(dims.dim, dims.n_vocab, bias=False)


class CodecLM(nn.Module):
    """The AR model of one checkpoint.

    Args:
        dims: its sizes; every size comes from there.
    """

    def __init__(self, dims: ARDims) -> None:
        super().__init__()
        self.dims = dims
        self.embed = nn.Embedding(dims.n_vocab, dims.dim)
        self.ref_chunked_emb = ChunkedEmbedding(dims.dim)
        self.spk_identity_emb = nn.Embedding(1, dims.dim)
        self.pos_embedding = SinePositions()
        self.spk_encoder = Encoder(dims.n_spk_layers, dims.dim, dims.n_heads, dims.spk_ff_dim)
        self.ar = Decoder(dims)

    def speaker_vector(self, codes: Tensor) -> Tensor:
        """Reference codes (B, R, Q) int64 -> (B, D).

        Frames from the first whose level-0 code is 1024 on are padding.
        """
        visible = (codes[..., 0] == PAD_CODE).cumsum(1) == 0
        return encode_speaker(
            self.ref_chunked_emb(codes),
            self.spk_identity_emb,
            self.pos_embedding,
            self.spk_encoder,
            visible,
        )

    def hidden(self, ids: Tensor, speaker: Tensor | None, cache: KVCache | None = None) -> Tensor:
        """Final normed states (B, S, D) of ids (B, S); arguments as in `forward`."""
        x = self.embed(ids)
        if speaker is not None:
            x = torch.cat([speaker[:, None].to(x.dtype), x], 1)
        start = cache.length if cache is not None else 0
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        rotary = rotary_table(positions, self.dims.head_dim)
        mask = None if start else self.causal_mask(positions)
        for index, layer in enumerate(self.ar.layers):
            x = layer(x, rotary, mask, cache, index)
        if cache is not None:
            cache.length += x.shape[1]
        x = self.ar.norm(x)
        return x if speaker is None else x[:, 1:]

    def forward(self, ids: Tensor, speaker: Tensor | None, cache: KVCache | None = None) -> Tensor:
        """Logits (B, S, V) of ids (B, S).

        Args:
            speaker: (B, D) put in front of the sequence; None for a sequence without one, and
                for a step that continues a cache.
            cache: filled by this call. If it holds positions already, `ids` is the one next id.
        """
        return self.ar.output(self.hidden(ids, speaker, cache))

    def next_logits(
        self, ids: Tensor, speaker: Tensor | None, cache: KVCache | None = None
    ) -> Tensor:
        """Float32 logits (B, V) after the last id; arguments as in `forward`."""
        out: Tensor = self.ar.output(self.hidden(ids, speaker, cache)[:, -1])
        return out.float()

    def causal_mask(self, positions: Tensor) -> Tensor:
        """(S, S) bool: a position sees itself and `sliding_window` earlier ones."""
        behind = positions[:, None] - positions[None, :]
        return (behind >= 0) & (behind <= self.dims.sliding_window)
