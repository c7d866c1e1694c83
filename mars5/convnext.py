"""Vocos' backbone: a convolution and ConvNeXt blocks over frames of features.

Parameter names and results are those of `vocos.models.VocosBackbone`, so that its weights load
unchanged. That package cannot be built without memory for weights that are then replaced, and
brings six others along; the tests compare with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6
KERNEL = 7  # frames
REACH = KERNEL // 2  # frames on either side that each convolution sees


class AdaptiveNorm(nn.Module):
    """Layer norm whose gain and offset are chosen by number, e.g. for a bandwidth."""

    def __init__(self, n_choices: int, dim: int) -> None:
        super().__init__()
        self.scale = nn.Embedding.from_pretrained(torch.ones(n_choices, dim), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(n_choices, dim), freeze=False)

    def forward(self, x: Tensor, choice: Tensor) -> Tensor:
        """(B, L, dim) and (1,) int64 -> (B, L, dim)."""
        scale, shift = self.scale(choice), self.shift(choice)
        return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * scale + shift


class PlainNorm(nn.LayerNorm):
    """Layer norm that is called as `AdaptiveNorm` is."""

    def forward(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        return super().forward(x)


def _norm(dim: int, n_choices: int) -> nn.Module:
    return AdaptiveNorm(n_choices, dim) if n_choices else PlainNorm(dim, NORM_EPS)


class Block(nn.Module):
    """A convolution for each channel, then two layers for each frame, scaled and added."""

    def __init__(self, dim: int, ff_dim: int, scale: float, n_choices: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL, padding=REACH, groups=dim)
        self.norm = _norm(dim, n_choices)
        self.pwconv1 = nn.Linear(dim, ff_dim)
        self.pwconv2 = nn.Linear(ff_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, choice: Tensor | None) -> Tensor:
        """(B, dim, L) -> (B, dim, L)."""
        y = self.norm(self.dwconv(x).transpose(1, 2), choice)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.transpose(1, 2)


class Backbone(nn.Module):
    """The whole stack.

    Args:
        n_choices: rows of the adaptive norms; 0 for plain ones.
    """

    def __init__(self, channels: int, dim: int, ff_dim: int, n_layers: int, n_choices: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(channels, dim, KERNEL, padding=REACH)
        self.norm = _norm(dim, n_choices)
        self.convnext = nn.ModuleList(
            Block(dim, ff_dim, 1 / n_layers, n_choices) for _ in range(n_layers)
        )
        self.final_layer_norm = nn.LayerNorm(dim, NORM_EPS)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Linear)) and module.bias is not None:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, choice: Tensor | None = None) -> Tensor:
        """Features (B, channels, L) -> (B, L, dim); `choice` (1,) int64 for adaptive norms."""
        x = self.norm(self.embed(x).transpose(1, 2), choice).transpose(1, 2)
        for block in self.convnext:
            x = block(x, choice)
        normed: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return normed
