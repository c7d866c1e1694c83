"""Building blocks shared by both transformers: positions, norms, attention, feed-forward, speaker.

Attribute names follow the published parameter names, so state dicts load unchanged.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.config import N_CLASSES, N_CODEBOOKS

SPEAKER_NORM_EPS = 4e-5  # published: of the speaker encoders and the NAR's layer norms


def sinusoid(positions: Tensor, dim: int) -> Tensor:
    """(T, dim) rows for positions (T,), with pe[2k] = sin and pe[2k+1] = cos, base 10 000."""
    steps = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device)
    angle = positions.float()[:, None] * torch.exp(steps * -(math.log(10_000.0) / dim))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def timestep_embedding(t: Tensor, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B,) steps to (B, dim): cosines, then sines, then a zero column if `dim` is odd."""
    half = dim // 2
    rate = torch.exp(
        -math.log(10_000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    )
    angle = t[:, None].float() * rate
    return F.pad(torch.cat([angle.cos(), angle.sin()], -1), (0, dim % 2)).to(dtype)


class SinePositions(nn.Module):
    """Adds `alpha` times the sinusoid of the position; x is not scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, T, D) at positions (T,), which are 0, 1, ... if not given -> (B, T, D)."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        return x + self.alpha * sinusoid(positions, x.shape[2]).to(x.dtype)


def rotary_table(
    positions: Tensor, head_dim: int, theta: float = 10_000.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32, of shape positions.shape + (head_dim / 2,)."""
    pair = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    angle = positions[..., None].float() * theta ** -(pair / head_dim)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (2k, 2k+1) of (B, H, S, head_dim) in float32; real arithmetic only."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return turned.flatten(-2).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class LayerNorm(nn.LayerNorm):
    """LayerNorm computed and returned in float32, whatever the precision of x and the weights."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps)


class ChunkedEmbedding(nn.Module):
    """One table per codebook; their vectors side by side, codebook 0 first."""

    def __init__(self, dim: int, n_classes: int = N_CLASSES) -> None:
        super().__init__()
        self.embs = nn.ModuleList(
            nn.Embedding(n_classes, dim // N_CODEBOOKS) for _ in range(N_CODEBOOKS)
        )

    def forward(self, codes: Tensor) -> Tensor:
        """(B, T, Q) int64 -> (B, T, D)."""
        return torch.cat([table(codes[..., q]) for q, table in enumerate(self.embs)], -1)


def split_heads(y: Tensor, n_heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, head_dim)."""
    return y.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def attend_heads(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None) -> Tensor:
    """Queries (B, H, T, head_dim) on keys and values (B, H, M, head_dim) -> (B, T, D).

    `visible` is (B, M) bool, false for padding; None shows all.
    """
    mask = None if visible is None else visible[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention with biases and a fused input projection."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Attend from x (B, T, D) to itself.

        Args:
            visible: (B, T) bool, true where a key may be seen; None shows all.
        """
        x = x.to(self.in_proj_weight.dtype)
        joint = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (split_heads(part, self.n_heads) for part in joint.chunk(3, -1))
        mixed: Tensor = self.out_proj(attend_heads(q, k, v, visible))
        return mixed

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, M, head_dim) of memory (B, M, D), for `attend`."""
        dim = memory.shape[-1]
        memory = memory.to(self.in_proj_weight.dtype)
        both = F.linear(memory, self.in_proj_weight[dim:], self.in_proj_bias[dim:])
        k, v = both.chunk(2, -1)
        return split_heads(k, self.n_heads), split_heads(v, self.n_heads)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
        """Attend from x (B, T, D) to what `keys_values` gave; `visible` is (B, M)."""
        dim = x.shape[-1]
        x = x.to(self.in_proj_weight.dtype)
        q = F.linear(x, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
        mixed: Tensor = self.out_proj(
            attend_heads(split_heads(q, self.n_heads), keys, values, visible)
        )
        return mixed


class Gate(nn.Module):
    """silu(W y) * V y: the gated half of a SwiGLU feed-forward."""

    def __init__(self, dim: int, ff_dim: int) -> None:
        super().__init__()
        self.W = nn.Linear(dim, ff_dim, bias=False)
        self.V = nn.Linear(dim, ff_dim, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        y = y.to(self.W.weight.dtype)
        return F.silu(self.W(y)) * self.V(y)


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and SwiGLU feed-forward."""

    def __init__(self, dim: int, n_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, n_heads)
        self.activation = Gate(dim, ff_dim)
        self.linear2 = nn.Linear(ff_dim, dim)
        self.norm1 = LayerNorm(dim, SPEAKER_NORM_EPS)
        self.norm2 = LayerNorm(dim, SPEAKER_NORM_EPS)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.norm1(x), visible)
        return x + self.linear2(self.activation(self.norm2(x)))


class Encoder(nn.Module):
    """A stack of encoder layers with a final norm."""

    def __init__(self, n_layers: int, dim: int, n_heads: int, ff_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, n_heads, ff_dim) for _ in range(n_layers))
        self.norm = LayerNorm(dim, SPEAKER_NORM_EPS)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """(B, T, D) and (B, T) bool -> (B, T, D)."""
        for layer in self.layers:
            x = layer(x, visible)
        return self.norm(x)


def encode_speaker(
    embedded: Tensor,
    identity: nn.Embedding,
    positions: SinePositions,
    encoder: Encoder,
    visible: Tensor,
) -> Tensor:
    """The speaker vector of embedded reference codes (docs/architecture.md, The two models).

    Args:
        embedded: (B, R, D) chunked embedding of the reference.
        visible: (B, R) bool, false for padding frames.

    Returns:
        (B, D): the output at the learned row put in front, which is always visible.
    """
    first = identity.weight.expand(len(embedded), 1, -1)
    x = positions(torch.cat([first, embedded], 1))
    return encoder(x, F.pad(visible, (1, 0), value=True))[:, 0].to(identity.weight.dtype)
