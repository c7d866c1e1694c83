"""The end of the walk by expectation: not one of the likely sounds, but the one nearest to all.

A draw of the diffusion is one of many possible utterances. Where the network is sure, they are all
alike. Where it is not, as a small one is of the finer codebooks, a draw puts noise into the sound:
its squared error is twice that of the mean of all. So a walk may stop half-way, and choose for each
frame the codes whose vectors sum up to the least expected squared error (minimum Bayes risk).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mars5.config import CODEBOOK_SIZE
from mars5.nar.diffusion import Schedule
from mars5.nar.model import Grid


@dataclass(frozen=True)
class Settling:
    """When the codes settle, and by what they are compared.

    Attributes:
        step: at the first visited step below this one.
        books: (Q, 1024, C) float32 vectors of the codes; those of a frame are summed to its sound.
    """

    step: int
    books: Tensor


def clean_posterior(log_r: Tensor, xt: Tensor, t: int, schedule: Schedule) -> Tensor:
    """(..., 1024) probabilities of the clean codes, the code itself that is seen at t among them.

    Args:
        log_r: (..., K) log-probabilities by all other tokens, as in `strided_step`.
        xt: (...) codes at step t.
    """
    total = schedule.log_cumprod_alpha[t].double().exp().item()
    evidence = math.log1p(log_r.shape[-1] * total / max(1 - total, 1e-12))
    seen = torch.full_like(xt, evidence, dtype=log_r.dtype)[..., None]
    return log_r.scatter_add(-1, xt[..., None], seen)[..., :CODEBOOK_SIZE].softmax(-1)


def settled(
    probabilities: Tensor, codes: Tensor, mask: Tensor, grid: Grid, books: Tensor
) -> Tensor:
    """Codes (B, L, Q): those given, and for the grid those of the least expected squared error.

    Book by book, each takes the code nearest to what the books before it have left of the expected
    sum; so the last ones correct what the first ones could not say.

    Args:
        probabilities: (F, levels, 1024) of the clean codes of the grid.
        codes, mask: (B, L, Q) as in `Known`.
    """
    frames, given = codes[grid.rows, grid.frames], mask[grid.rows, grid.frames]
    expected = (p @ books[q] for p, q in zip(probabilities.unbind(1), grid.levels, strict=True))
    unknown = [~given[:, q, None] for q in grid.levels]
    left = torch.stack([torch.where(*parts, 0.0) for parts in zip(unknown, expected, strict=True)])
    rest = left.sum(0)
    chosen = []
    for q, is_unknown in zip(grid.levels, unknown, strict=True):
        nearest = (books[q].square().sum(1) - 2 * rest @ books[q].T).argmin(1)
        rest = rest - torch.where(is_unknown, books[q][nearest], 0.0)
        chosen.append(torch.where(is_unknown[:, 0], nearest, frames[:, q]))
    return torch.where(mask, codes, grid.put(codes, torch.stack(chosen, 1)))
