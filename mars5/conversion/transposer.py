"""`Transposer`: a voice's sound in another register, as log-mel frames.

The melody keeps its form: the fundamental frequency f becomes the one that has the other register's
median m' and spread s' where f has m and s, log f' = log m' + (log f - log m) s' / s. Formants move
with the cube root of the pitch, about as they do between people.

One small network of the vocoder's kind does it, trained with the checkpoint (`mars5.train`) on its
own voice and what the WORLD vocoder makes of it. Formants of voices above 1.95 times the own pitch,
beyond what it was trained for, are moved by stretching its result: harmonics move with them, so it
is asked for less pitch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mars5.conversion.pitch import Register
from mars5.errors import CheckpointError
from mars5.vocoder import CONV_REACH, Backbone, VocoderDims

PITCHES = (0.7, 2.9)  # times the own voice's: what the network is trained for
SPREADS = (0.5, 2.2)
FORMANTS = (0.9, 1.25)


@dataclass(frozen=True)
class Shift:
    """From one register to another.

    Attributes:
        pitch: natural logarithm of the quotient of the medians.
        spread: natural logarithm of the quotient of the spreads.
    """

    pitch: float = 0.0
    spread: float = 0.0

    @classmethod
    def between(cls, own: Register, wanted: Register | None, strength: float) -> Shift:
        """The shift by `strength`, 0 to 1, of the way, within what the network knows.

        Nothing is shifted where the wanted voice has no register.
        """
        if wanted is None:
            return cls()
        return cls(
            strength * _within(wanted.median / own.median, PITCHES),
            strength * _within(wanted.spread / max(own.spread, 1e-3), SPREADS),
        )

    @property
    def formants(self) -> float:
        """The factor by which the network moves formants."""
        return math.exp(_within(math.exp(self.pitch / 3), FORMANTS))

    @property
    def stretch(self) -> float:
        """The factor by which they are still to be moved."""
        return max(1.0, math.exp(self.pitch / 3) / FORMANTS[1])


def _within(factor: float, limits: tuple[float, float]) -> float:
    """The logarithm of a factor, kept within limits."""
    return math.log(min(max(factor, limits[0]), limits[1]))


@dataclass(frozen=True)
class TransposerDims:
    """Sizes of a `Transposer`, stated by its checkpoint."""

    n_mels: int = 80
    dim: int = 256
    ff_dim: int = 768
    n_layers: int = 4

    @property
    def backbone(self) -> VocoderDims:
        """Those of the network: channels of sound, and the two numbers of a shift."""
        return VocoderDims(
            self.n_mels + 2, dim=self.dim, ff_dim=self.ff_dim, n_layers=self.n_layers,
            n_bandwidths=0,
        )  # fmt: skip


class Transposer(nn.Module):
    """The network.

    Attributes:
        reach: mel frames on either side of a frame that its result depends on.
    """

    def __init__(self, dims: TransposerDims) -> None:
        super().__init__()
        self.dims = dims
        self.body = Backbone(dims.backbone)
        self.out = nn.Linear(dims.dim, dims.n_mels)
        self.reach = CONV_REACH * (1 + dims.n_layers)

    def forward(self, sound: Tensor, shifts: Tensor) -> Tensor:
        """(B, L, n_mels) log-mel and (B, 2) log factors of pitch and spread -> log-mel."""
        given = shifts[:, None].expand(-1, sound.shape[1], -1)
        found: Tensor = self.out(self.body(torch.cat([sound, given], 2).transpose(1, 2), None))
        return found


def stretched(sound: Tensor, factor: float, centres: Tensor) -> Tensor:
    """Log-mel frames (..., C) with what was at a frequency at `factor` times that frequency.

    Args:
        centres: (C,) Hz of the bands.
    """
    places = centres / factor
    above = torch.searchsorted(centres, places).clamp(1, len(centres) - 1)
    low, high = centres[above - 1], centres[above]
    share = ((places - low) / (high - low)).clamp(0, 1)
    return sound[..., above - 1].lerp(sound[..., above], share)


def build_transposer(config: dict[str, Any], weights: dict[str, Tensor], n_mels: int) -> Transposer:
    """The one a checkpoint describes, for a codec with so many bands.

    Raises:
        CheckpointError: config, weights and codec do not fit each other.
    """
    try:
        dims = TransposerDims(**config)
        if dims.n_mels != n_mels:
            raise CheckpointError(
                f"the transposer's config states {dims.n_mels} mel bands, the codec has {n_mels}"
            )
        dims.backbone.check_weights("transposer", weights)
        model = Transposer(dims)
        model.load_state_dict(weights, assign=True)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(f"the transposer does not fit its config: {error}") from error
    return model.eval()
