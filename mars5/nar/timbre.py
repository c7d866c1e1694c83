"""The reference's own timbre, given to the sound that settles.

What is expected of a voice that the network hardly knows lies between that voice and those it was
trained with, and is duller than any of them. Both show in the statistics of the sound: so its mean
and its covariance over the frames are brought to those of the reference, by the linear map that
changes least (between normal distributions the optimal transport, Monge and Kantorovich's).

The map belongs to a voice: it is found once, by what the network makes of known coarse codes. Then
it acts on each frame alone, so that streams, batches and edits get what a whole utterance gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SPOKEN = 0.75  # share of the frames that count as speech: the loudest
SHRINKAGE = 0.2  # of correlations, which a few seconds of speech tell only roughly
LEAST_VARIANCE = 1e-4  # of a channel, in nats squared: nothing is divided by zero
SOFTNESS = 0.5  # nats over which a frame counts as quieter than speech


@dataclass(frozen=True)
class Timbre:
    """An affine map of log-mel frames for each row of a batch.

    Attributes:
        turn: (B, C, C) symmetric matrices.
        made: (B, C) means of what the network makes.
        wanted: (B, C) means of what it shall sound like.
        quiet: (B,) mean log-mel up to which a frame is a pause, and stays as it is.
    """

    turn: Tensor
    made: Tensor
    wanted: Tensor
    quiet: Tensor

    @classmethod
    def between(cls, made: Tensor, wanted: Tensor, strength: float) -> Timbre:
        """The map from some frames (n, C) of log-mel to others (m, C), for one row.

        Args:
            strength: of the way; at 1 the mapped frames have the other ones' mean and covariance,
                up to `SHRINKAGE`.
        """
        (before, here), (after, there) = (_statistics(frames.double()) for frames in (made, wanted))
        turn = torch.eye(len(here), dtype=here.dtype).lerp(_transport(before, after), strength)
        quiet = made.mean(1).quantile(1 - SPOKEN)
        target = here.lerp(there, strength)
        return cls(turn.float()[None], here.float()[None], target.float()[None], quiet[None])

    @classmethod
    def stack(cls, rows: Sequence[Timbre | None]) -> Timbre | None:
        """One map for the rows of several; None leaves a row as it is."""
        known = [row for row in rows if row is not None]
        if not known:
            return None
        nothing = cls(
            torch.eye(known[0].turn.shape[1]).to(known[0].turn)[None],
            torch.zeros_like(known[0].made),
            torch.zeros_like(known[0].made),
            torch.zeros_like(known[0].quiet),
        )
        parts = zip(*(vars(row or nothing).values() for row in rows), strict=True)
        return cls(*(torch.cat(part) for part in parts))

    def to(self, device: torch.device) -> Timbre:
        return Timbre(*(part.to(device) for part in vars(self).values()))

    def __call__(self, sound: Tensor, rows: Tensor) -> Tensor:
        """Map the sound of code frames.

        Args:
            sound: (F, stack * C), the log-mel frames of each code frame one after the other.
            rows: (F,) of the batch that they belong to.
        """
        frames = sound.unflatten(1, (-1, self.made.shape[1]))
        made, wanted = self.made[rows][:, None], self.wanted[rows][:, None]
        mapped = (frames - made) @ self.turn[rows] + wanted
        louder = frames.mean(2, keepdim=True) - self.quiet[rows][:, None, None]
        return frames.lerp(mapped, (louder / SOFTNESS).sigmoid()).flatten(1)


def _statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """(C, C) covariance and (C,) mean of the louder ones of frames (n, C)."""
    level = frames.mean(1)
    spoken = frames[level >= level.quantile(1 - SPOKEN)]
    middle = spoken.mean(0)
    covariance = (spoken - middle).T @ (spoken - middle) / len(spoken)
    alone = covariance.diagonal().clamp(min=LEAST_VARIANCE).diag()
    return covariance.lerp(alone, SHRINKAGE), middle


def _transport(before: Tensor, after: Tensor) -> Tensor:
    """(C, C) symmetric T with T before T = after: `before` and `after` are covariances."""
    root, inverse = _powers(before)
    return inverse @ _powers(root @ after @ root)[0] @ inverse


def _powers(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a positive matrix, and that of its inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    roots = values.clamp(min=LEAST_VARIANCE * SHRINKAGE).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
