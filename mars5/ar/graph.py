"""One AR step, sampling included, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.ar.sampling import Vocabulary
from mars5.ar.steps import EagerSteps
from mars5.capture import Replay, stream_number
from mars5.config import InferenceConfig

BUCKET = 256  # slots: a graph looks at a fixed number of them, the next multiple of this


class GraphedSteps(EagerSteps):
    """`EagerSteps` on CUDA; a graph for each bucket of lengths, captured when first needed."""

    ahead = 8

    def __init__(
        self, model: CodecLM, vocabulary: Vocabulary, cfg: InferenceConfig, n_rows: int
    ) -> None:
        super().__init__(model, vocabulary, cfg, n_rows)
        self.made_with = (model, vocabulary, cfg, n_rows, stream_number(self.rows.device))
        self._graphs: dict[int, Replay[None]] = {}
        self._noise = torch.ones(n_rows, model.dims.n_vocab, device=self.rows.device)

    def _feed_and_draw(self, noise: Tensor, used: int) -> None:
        bucket = min(-(-used // BUCKET) * BUCKET, self.rows.slots)
        if bucket not in self._graphs:
            self._graphs[bucket] = self._captured(bucket)
        self._noise.copy_(noise)
        self._graphs[bucket]()

    def _captured(self, bucket: int) -> Replay[None]:
        """The step over `bucket` slots; leaves the state as it was."""
        step = partial(super()._feed_and_draw, self._noise, bucket)
        with self._unchanged():
            return Replay(step, self.rows.device, next(iter(self._graphs.values()), None))

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Puts back all state but keys and values: the real step writes those slots again."""
        state = [self.tokens, self.finite, self.rows.lengths, *self.sampler.state]
        before = [tensor.clone() for tensor in state]
        in_use = self.in_use.clone()
        self.in_use.zero_()  # so that the warm-ups write one slot only
        try:
            yield
        finally:
            self.in_use.copy_(in_use)
            for tensor, old in zip(state, before, strict=True):
                tensor.copy_(old)


class Spare:
    """Keeps the steps of the last generation, with their graphs, for the next one like it.

    Steps without graphs are quickly made and not kept. Threads may share one of these: steps are
    no one else's between `take` and `give`. Copies and pickles begin with nothing.
    """

    def __init__(self) -> None:
        self._kept: list[GraphedSteps] = []

    def take(
        self, model: CodecLM, vocabulary: Vocabulary, cfg: InferenceConfig, n_rows: int
    ) -> EagerSteps:
        """Idle steps made with these arguments."""
        device = model.embed.weight.device
        if device.type != "cuda":
            return EagerSteps(model, vocabulary, cfg, n_rows)
        made_with = (model, vocabulary, cfg, n_rows, stream_number(device))
        # What does not fit is let go before the new ones need memory.
        return self._fitting(made_with) or GraphedSteps(model, vocabulary, cfg, n_rows)

    def _fitting(self, made_with: tuple[object, ...]) -> GraphedSteps | None:
        try:
            kept = self._kept.pop()
        except IndexError:  # another thread may be quicker, so that asking first is no use
            return None
        return kept if kept.made_with == made_with else None

    def give(self, steps: EagerSteps) -> None:
        """Take back idle steps; others kept before go."""
        if isinstance(steps, GraphedSteps):
            self._kept[:] = [steps]

    def __reduce__(self) -> tuple[type[Spare], tuple[()]]:
        return Spare, ()  # graphs can be neither copied nor saved
