"""The end of the walk by expectation: not one of the likely sounds, but the one nearest to all.

A draw of the diffusion is one of many possible utterances. Where the network is sure, they are all
alike. Where it is not, as a small one is of the finer codebooks, a draw puts noise into the sound:
its squared error is twice that of the mean of all. So a walk may stop half-way, and choose for each
frame the codes whose vectors sum up to the least expected squared error (minimum Bayes risk).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mars5.config import CODEBOOK_SIZE
from mars5.nar.diffusion import Schedule, log_evidence
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
    seen = log_evidence(t, schedule, log_r.shape[-1]).to(log_r.dtype).expand(*xt.shape, 1)
    return log_r.scatter_add(-1, xt[..., None], seen)[..., :CODEBOOK_SIZE].softmax(-1)


def settled(
    probabilities: Tensor,
    codes: Tensor,
    mask: Tensor,
    grid: Grid,
    books: Tensor,
) -> Tensor:
    """Codes (B, L, Q): those given, and for the grid those of the least expected squared error.

    Book by book, each takes the code nearest to what the books before it have left of the expected
    sum; so the last ones correct what the first ones could not say.

    Args:
        probabilities: (F, levels, 1024) of the clean codes of the grid.
        codes, mask: (B, L, Q) as in `Known`.
    """
    unknown = ~grid.take(mask)[..., None]
    levels = list(zip(grid.levels, probabilities.unbind(1), unknown.unbind(1), strict=True))
    rest = torch.stack([is_unknown * (p @ books[q]) for q, p, is_unknown in levels]).sum(0)
    chosen = []
    for q, _, is_unknown in levels:
        nearest = (books[q].square().sum(1) - 2 * rest @ books[q].T).argmin(1)
        rest = rest - is_unknown * books[q][nearest]
        chosen.append(nearest)
    return torch.where(mask, codes, grid.put(codes, torch.stack(chosen, 1)))
