"""Carry a trained checkpoint over to a new codec: what was learned of text and sound is kept.

Both codecs hear the same recordings. Where the new codec writes code i, the old one wrote code j in
a share P(j | i) of the frames, so code i starts as that mixture of the old codes' embeddings; all
other weights are taken as they are. The vocoder reads log-mel sums, which both codecs mean alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.codec import MelCodec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS
from mars5.nar.model import ResidualTransformer


@torch.no_grad()
def mixtures(old: MelCodec, new: MelCodec, waves: Iterable[Tensor]) -> Tensor:
    """(Q, 1024 new, 1024 old) shares P(old code | new code) over (T,) waves at 24 kHz.

    A new code that no wave has is the even mixture of all old ones; equal codecs need no waves.
    """
    if all(torch.equal(old.get_buffer(n), value) for n, value in new.named_buffers()):
        return torch.eye(CODEBOOK_SIZE).expand(N_CODEBOOKS, -1, -1)
    counts = torch.full((N_CODEBOOKS, CODEBOOK_SIZE, CODEBOOK_SIZE), 1e-6)
    for wave in waves:
        before, after = old.encode(wave[None])[0], new.encode(wave[None])[0]
        for q in range(N_CODEBOOKS):
            pairs = (after[:, q], before[:, q])
            counts[q].index_put_(pairs, torch.ones(len(before)), accumulate=True)
    return counts / counts.sum(2, keepdim=True)


def _mix(rows: Tensor, shares: Tensor) -> None:
    """Replace the rows of real codes, in place."""
    rows[:CODEBOOK_SIZE] = shares @ rows[:CODEBOOK_SIZE]


@torch.no_grad()
def carry_ar(model: CodecLM, shares: Tensor, n_text: int) -> None:
    """Give the new codes their embeddings; the speech tokenizer must have no merges."""
    for table in (model.embed.weight, model.ar.output.weight):
        _mix(table[n_text:], shares[0])
    for weight, share in zip(model.ref_chunked_emb.parameters(), shares, strict=True):
        _mix(weight, share)


@torch.no_grad()
def carry_nar(model: ResidualTransformer, shares: Tensor) -> None:
    """Give the new codes their embeddings and heads."""
    for embedding in (model.ref_embedder, model.residual_encoder):
        for weight, share in zip(embedding.parameters(), shares, strict=True):
            _mix(weight, share)
    for q in range(N_CODEBOOKS):
        _mix(model.get_parameter(f"residual_decoder.{q}.1.weight"), shares[q])
        _mix(model.get_parameter(f"residual_decoder.{q}.1.bias"), shares[q])


def load_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights of a training's latest state."""
    state = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = state["model"]
    return weights
