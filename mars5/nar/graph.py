"""The NAR's decoder as CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mars5.capture import Replay, stream_number
from mars5.config import N_CODEBOOKS
from mars5.nar.model import Conditions, Grid, ResidualTransformer

MAX_FRAMES = 1024  # of all rows; with more, arithmetic takes longer than launches
FRAME_BUCKET, MEMORY_BUCKET = 64, 32  # a graph serves all lengths up to the next multiple
KEPT = 8  # graphs, those used last

Run = Callable[[], Tensor]
Capture = Callable[[Run, torch.device], Run]


@dataclass(frozen=True)
class _Sizes:
    """What a graph is made for; lengths are rounded up."""

    stream: int
    rows: int
    length: int
    memory: int
    frames: int
    levels: tuple[int, ...]


class GraphedDecoder:
    """Called like `ResidualTransformer.decode`, with the same results up to rounding.

    Threads may share one: they take turns.
    """

    def __init__(self, model: ResidualTransformer, capture: Capture = Replay) -> None:
        self.model, self._capture = model, capture
        self._steps: dict[_Sizes, _Step] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphedDecoder, (self.model, self._capture)  # graphs can be neither copied nor saved

    @torch.inference_mode()
    def __call__(
        self,
        x: Tensor,
        given: Conditions,
        x_visible: Tensor | None = None,
        grid: Grid | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        rows, length, _ = x.shape
        if grid is None or rows * length > MAX_FRAMES:
            return self.model.decode(x, given, x_visible, grid, positions)
        sizes = _Sizes(
            stream_number(x.device),
            rows,
            _bucket(length, FRAME_BUCKET),
            _bucket(given.visible.shape[1], MEMORY_BUCKET),
            _bucket(len(grid.rows), FRAME_BUCKET),
            tuple(grid.levels),
        )
        with self._lock:
            step = self._steps.pop(sizes, None)
            step = step or _Step(self.model, self._capture, given, sizes)
            self._steps[sizes] = step
            if len(self._steps) > KEPT:
                del self._steps[next(iter(self._steps))]
            return step(x, given, x_visible, grid, positions)


def _bucket(size: int, step: int) -> int:
    return max(1, -(-size // step)) * step


class _Step:
    """One graph and the tensors it reads, longer than what comes and masked behind it."""

    def __init__(
        self,
        model: ResidualTransformer,
        capture: Capture,
        given: Conditions,
        sizes: _Sizes,
    ) -> None:
        device, keys = given.time.device, given.keys
        padded = (keys.shape[0], sizes.rows, keys.shape[2], sizes.memory, keys.shape[4])
        shape = (sizes.rows, sizes.length, N_CODEBOOKS)
        self.x = torch.zeros(shape, dtype=torch.long, device=device)
        self.visible = torch.ones(shape[:2], dtype=torch.bool, device=device)
        self.places = torch.arange(sizes.length, device=device)
        self.positions = self.places.clone()
        self.given = Conditions(
            torch.zeros_like(given.time),
            keys.new_zeros(padded),
            keys.new_zeros(padded),
            torch.ones((sizes.rows, sizes.memory), dtype=torch.bool, device=device),
        )
        wanted = torch.zeros((2, sizes.frames), dtype=torch.long, device=device)
        self.grid = Grid(wanted[0], wanted[1], sizes.levels)
        self._replay = capture(
            lambda: model.decode(self.x, self.given, self.visible, self.grid, self.positions),
            device,
        )

    def __call__(
        self,
        x: Tensor,
        given: Conditions,
        x_visible: Tensor | None,
        grid: Grid,
        positions: Tensor | None,
    ) -> Tensor:
        length, memory, frames = x.shape[1], given.visible.shape[1], len(grid.rows)
        self.x[:, :length] = x
        self.visible[:, length:] = False
        self.visible[:, :length] = True if x_visible is None else x_visible
        self.positions[:length] = self.places[:length] if positions is None else positions
        self.given.time.copy_(given.time)
        self.given.keys[..., :memory, :] = given.keys
        self.given.values[..., :memory, :] = given.values
        # A mask alone does not stop what another text left there, if that was not finite.
        self.given.keys[..., memory:, :] = 0
        self.given.values[..., memory:, :] = 0
        self.given.visible[:, memory:] = False
        self.given.visible[:, :memory] = given.visible
        self.grid.rows[:frames] = grid.rows
        self.grid.frames[:frames] = grid.frames
        return self._replay()[:frames].clone()
