"""The NAR's guided estimate of the clean codes, and what of it can be computed ahead.

Called as it is, an `Estimator` is the plain rule: everything, at one step. `ahead` makes one that
computes what does not depend on the codes for several steps at once, and logits only where wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.nar.model import Conditions, Grid, ResidualTransformer

# Rows of encoder input computed ahead in one batch. At full size the keys and values of one take
# 128 KiB in float32.
AHEAD_ROWS = 2048

Decode = Callable[
    [Tensor, Conditions, "Tensor | None", "Grid | None", "Tensor | None"],
    Tensor,
]


@dataclass(frozen=True)
class Estimator:
    """The network's estimate of the clean codes, guided; the same arguments for every step.

    Attributes:
        text, text_lengths: (B, N) joint ids and (B,).
        speaker: (B, D) speaker vectors.
        guidance: w in w * cond + (1 - w) * uncond; 1 skips the unconditional pass.
        temperature: divisor of the logits.
        visible: (B, L) bool, false for padding; None if there is none.
        decode: runs the decoder as `ResidualTransformer.decode` does; None is the model's own.
        positions: (L,) of the frames, if some are left out in between; None for 0, 1, ...
    """

    model: ResidualTransformer
    text: Tensor
    text_lengths: Tensor
    speaker: Tensor
    guidance: float
    temperature: float
    visible: Tensor | None = None
    decode: Decode | None = None
    positions: Tensor | None = None
    _grid: Grid | None = field(default=None, repr=False)
    _ahead: Ahead | None = field(default=None, repr=False)

    @property
    def copies(self) -> int:
        """Passes through the network at each step, made in one batch."""
        return 1 if self.guidance == 1 else 2

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Codes (B, L, Q) at step t -> float32 log-probabilities of the clean codes.

        Their shape is (B, L, Q, K), or (F, levels, K) if `ahead` was told a grid.
        """
        given = self.conditions([t])[0] if self._ahead is None else self._ahead(t)
        grid, visible = self._grid, self.visible
        logits = (self.decode or self.model.decode)(
            x.repeat(self.copies, 1, 1),
            given,
            None if visible is None else visible.repeat(self.copies, 1),
            None if grid is None else grid.repeated(self.copies, len(x)),
            self.positions,
        )
        if self.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            logits = self.guidance * conditional + (1 - self.guidance) * unconditional
        return (logits / self.temperature).log_softmax(-1)

    def conditions(self, steps: Sequence[int]) -> list[Conditions]:
        """What the decoder reads beside the codes at each of the steps, all in one batch."""
        speakers = self.speaker
        if self.guidance != 1:
            speakers = torch.cat([speakers, self.model.no_speaker_vector(len(speakers))])
        rows, times = len(speakers), torch.tensor(list(steps), device=speakers.device)
        together = self.model.conditions(
            self.text.repeat(self.copies * len(steps), 1),
            self.text_lengths.repeat(self.copies * len(steps)),
            speakers.repeat(len(steps), 1),
            times.repeat_interleave(rows),
        )
        return together.split(rows)

    def ahead(self, steps: Sequence[int], grid: Grid | None = None) -> Estimator:
        """The same estimator for these steps, in about this order, and for a grid of codes.

        One that is made for the same steps already keeps what it has computed.
        """
        if self._ahead is not None and self._ahead.steps == list(steps):
            return replace(self, _grid=grid)
        rows = len(self.text) * self.copies * (1 + self.text.shape[1])
        at_once = max(1, AHEAD_ROWS // rows)
        return replace(self, _grid=grid, _ahead=Ahead(self.conditions, list(steps), at_once))


class Ahead:
    """Conditions of the coming steps, some steps at a time.

    Attributes:
        steps: all there will be.
    """

    def __init__(
        self, compute: Callable[[Sequence[int]], list[Conditions]], steps: list[int], at_once: int
    ) -> None:
        self._compute, self.steps, self._at_once = compute, steps, at_once
        self._ready: dict[int, Conditions] = {}

    def __call__(self, t: int) -> Conditions:
        if t not in self._ready:
            first = self.steps.index(t)
            coming = self.steps[first : first + self._at_once]
            self._ready.clear()  # before the next ones need memory
            self._ready = dict(zip(coming, self._compute(coming), strict=True))
        return self._ready[t]


def stack_estimators(items: Sequence[Estimator], lengths: Sequence[int]) -> Estimator:
    """One estimator for the rows of several, which have so many decoder frames.

    Model, guidance, temperature and decode are the first one's and must be the same in all.
    """
    first, longest = items[0], max(item.text.shape[1] for item in items)
    ends = torch.tensor(list(lengths), device=first.text.device)
    return replace(
        first,
        text=torch.cat([F.pad(i.text, (0, longest - i.text.shape[1])) for i in items]),
        text_lengths=torch.cat([item.text_lengths for item in items]),
        speaker=torch.cat([item.speaker for item in items]),
        _ahead=None,
        visible=torch.arange(max(lengths), device=ends.device) < ends[:, None],
    )
