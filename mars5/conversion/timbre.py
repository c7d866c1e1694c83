"""The timbre of another voice, given to a sound frame by frame.

A voice, its microphone and its room show in the statistics of the log-mel frames. So the mean and
the covariance of what is said are brought to those of the other voice, by the linear map that
changes least (between normal distributions the optimal transport, Monge and Kantorovich's).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPOKEN = 0.75  # share of the frames that count as speech: the loudest
SHRINKAGE = 0.2  # of correlations, which a few seconds of speech tell only roughly
LEAST_VARIANCE = 1e-4  # of a channel, in nats squared: nothing is divided by zero
SOFTNESS = 0.5  # nats over which a frame counts as quieter than speech


@dataclass(frozen=True)
class Timbre:
    """An affine map of log-mel frames.

    Attributes:
        turn: (C, C) symmetric matrix.
        made: (C,) mean of what is mapped.
        wanted: (C,) mean of what it shall sound like.
        quiet: () mean log-mel up to which a frame is a pause, and stays as it is.
    """

    turn: Tensor
    made: Tensor
    wanted: Tensor
    quiet: Tensor

    @classmethod
    def between(cls, made: Tensor, wanted: Tensor, strength: float) -> Timbre:
        """The map from some frames (n, C) of log-mel to others (m, C).

        Args:
            strength: of the way; at 1 the mapped frames have the other ones' mean and covariance,
                up to `SHRINKAGE`.
        """
        (before, here), (after, there) = (_statistics(frames.double()) for frames in (made, wanted))
        turn = torch.eye(len(here), dtype=here.dtype).lerp(_transport(before, after), strength)
        quiet = made.mean(1).quantile(1 - SPOKEN)
        target = here.lerp(there, strength)
        return cls(turn.float(), here.float(), target.float(), quiet)

    def to(self, device: torch.device) -> Timbre:
        return Timbre(*(part.to(device) for part in vars(self).values()))

    def __call__(self, sound: Tensor) -> Tensor:
        """Map log-mel frames (..., C)."""
        mapped = (sound - self.made) @ self.turn + self.wanted
        louder = sound.mean(-1, keepdim=True) - self.quiet
        return sound.lerp(mapped, (louder / SOFTNESS).sigmoid())


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
