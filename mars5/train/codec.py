"""Step 2: fit the mel codec: principal directions of the stacked log-mel, then k-means per level.

No network is trained, so the codes exist after a few minutes and the vocoder can be trained on them
for as long as one likes without changing a single code. The finer books are then fitted anew to
what they have to describe in a clone: how somebody differs from the coarse codes of another voice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor

from mars5.codec import MelCodec, MelCodecDims
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS

log = logging.getLogger("mars5")


@torch.no_grad()
def fit_codec(
    waves: Iterable[Tensor], dims: MelCodecDims, iterations: int, generator: torch.Generator
) -> MelCodec:
    """Fit a codec to (T,) float32 24 kHz waves."""
    codec = MelCodec(dims)
    width = dims.n_mels * dims.stack
    codec.projection.copy_(torch.eye(width, dims.rank))
    stacked = torch.cat([_stacked(codec, wave) for wave in waves])
    codec.mean.copy_(stacked.mean(0))
    centred = stacked - codec.mean
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    codec.projection.copy_(vectors.flip(1)[:, : dims.rank])
    rest = centred @ codec.projection
    total = centred.pow(2).sum(1).mean()
    for level in range(N_CODEBOOKS):
        book = kmeans(rest, CODEBOOK_SIZE, iterations, generator)
        codec.codebooks[level] = book
        rest = rest - book[assign(rest, book)]
        left = rest.pow(2).sum(1).mean() / total
        log.info("codec level %d: %.1f %% of the variance left", level, 100 * left)
    return codec.eval()


@torch.no_grad()
def fit_finer(
    codec: MelCodec,
    examples: Iterable[tuple[Tensor, Tensor]],
    iterations: int,
    generator: torch.Generator,
) -> None:
    """Fit all books but the first, in place, to (1, n, rank) features upon (1, n) coarse codes."""
    rests = [features[0] - codec.codebooks[0][coarse[0]] for features, coarse in examples]
    rest = torch.cat(rests)
    total = rest.pow(2).sum(1).mean()
    for level in range(1, N_CODEBOOKS):
        book = lloyd(rest, codec.codebooks[level], iterations, generator)
        codec.codebooks[level] = book
        rest = rest - book[assign(rest, book)]
        left = rest.pow(2).sum(1).mean() / total
        log.info("codec level %d: %.1f %% of the first level's rest left", level, 100 * left)


def _stacked(codec: MelCodec, wave: Tensor) -> Tensor:
    """(frames, stack * n_mels): the codec's features before any projection."""
    d = codec.dims
    mel = codec.log_mel(codec.levelled(wave[None]))
    mel = mel[:, : mel.shape[1] // d.stack * d.stack]
    return mel.unflatten(1, (-1, d.stack)).flatten(2)[0]


def assign(points: Tensor, centres: Tensor, block: int = 16_384) -> Tensor:
    """(n,) index of the nearest centre of each point, in blocks to bound memory."""
    norms = centres.pow(2).sum(1)
    return torch.cat([(norms - 2 * p @ centres.T).argmin(1) for p in points.split(block)])


def kmeans(points: Tensor, k: int, iterations: int, generator: torch.Generator) -> Tensor:
    """(k, D) centres by Lloyd's algorithm, from random points."""
    start = points[torch.randperm(len(points), generator=generator)[:k]]
    return lloyd(points, start, iterations, generator)


def lloyd(points: Tensor, centres: Tensor, iterations: int, generator: torch.Generator) -> Tensor:
    """(k, D) better centres for the points (n, D); empty clusters restart at random points."""
    for _ in range(iterations):
        nearest = assign(points, centres)
        counts = torch.bincount(nearest, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        picks = torch.randint(len(points), (len(empty),), generator=generator)
        centres[empty] = points[picks]
    return centres
