"""The random numbers of the denoising loops, for a whole batch or for each row by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mars5.nar.diffusion import uniforms

# One generator for all rows, or one for each row; None is torch's global one.
Source = torch.Generator | Sequence[torch.Generator | None] | None


class Draws:
    """Draws for the rows of a batch; a row with its own generator gets what it would get alone.

    Args:
        source: generators on the CPU; one for all serves the rows one after the other.
        lengths: frames of each row.
        device: where the numbers are wanted.
    """

    def __init__(self, source: Source, lengths: Sequence[int], device: torch.device) -> None:
        self._device = device
        self._lengths, self._generators = list(lengths), self._one_each(source, len(lengths))

    @staticmethod
    def _one_each(source: Source, rows: int) -> list[torch.Generator | None]:
        if source is None or isinstance(source, torch.Generator):
            return [source] * rows
        return list(source)

    def on_device(self) -> Draws:
        """Draws by generators of the device, each seeded with one draw; on the CPU, the same."""
        if self._device.type == "cpu":
            return self
        local: dict[torch.Generator | None, torch.Generator] = {}
        for generator in self._generators:
            if generator not in local:
                seed = int(torch.randint(2**63 - 1, (), generator=generator))
                local[generator] = torch.Generator(self._device).manual_seed(seed)
        return Draws([local[g] for g in self._generators], self._lengths, self._device)

    def integers(self, high: int, shapes: Sequence[tuple[int, ...]]) -> Tensor:
        """Integers below `high`, one shape for each row, joined along the first axis."""
        rows = [
            torch.randint(0, high, shape, generator=generator)
            for shape, generator in zip(shapes, self._generators, strict=True)
        ]
        return torch.cat(rows).to(self._device)

    def uniforms(self, *tail: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, L, *tail) uniforms in [0, 1); zero behind the end of a row."""
        rows = [
            uniforms((length, *tail), generator, self._device, dtype)
            for length, generator in zip(self._lengths, self._generators, strict=True)
        ]
        if len(rows) == 1:  # spare the copy: the exact law draws millions
            return rows[0][None]
        return pad_sequence(rows, batch_first=True)
