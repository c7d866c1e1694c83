"""One AR step, sampling included, as a CUDA graph: one launch where there were hundreds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.ar.sampling import Vocabulary
from mars5.ar.steps import EagerSteps
from mars5.config import InferenceConfig

BUCKET = 256  # slots: a graph looks at a fixed number of them, the next multiple of this
WARM_UPS = 2  # runs before a capture, in which libraries make what they need


class GraphedSteps(EagerSteps):
    """`EagerSteps` on CUDA; a graph for each bucket of lengths, captured when first needed."""

    ahead = 8

    def __init__(
        self, model: CodecLM, vocabulary: Vocabulary, cfg: InferenceConfig, n_rows: int
    ) -> None:
        super().__init__(model, vocabulary, cfg, n_rows)
        self.made_with = (model, vocabulary, cfg, n_rows)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._noise = torch.ones(n_rows, model.dims.n_vocab, device=self.rows.device)

    def _feed_and_draw(self, noise: Tensor, used: int) -> None:
        bucket = min(-(-used // BUCKET) * BUCKET, self.rows.slots)
        if bucket not in self._graphs:
            self._graphs[bucket] = self._captured(bucket)
        self._noise.copy_(noise)
        self._graphs[bucket].replay()

    def _captured(self, bucket: int) -> torch.cuda.CUDAGraph:
        """The step over `bucket` slots; leaves the state as it was."""
        graph = torch.cuda.CUDAGraph()
        # Graphs take turns, so they may share their memory.
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        with torch.cuda.device(self.rows.device), self._unchanged():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    super()._feed_and_draw(self._noise, bucket)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, pool=pool):
                super()._feed_and_draw(self._noise, bucket)
        return graph

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Puts back all state but keys and values: the real step writes those slots again."""
        state = [self.tokens, self.finite, self.rows.lengths, *self.sampler.state]
        before = [tensor.clone() for tensor in state]
        in_use = self.in_use.clone()
        self.in_use.zero_()  # so that the warm-ups write one slot only
        yield
        self.in_use.copy_(in_use)
        for tensor, old in zip(state, before, strict=True):
            tensor.copy_(old)


class Spare:
    """Keeps the steps of the last generation, with their graphs, for the next one like it.

    Steps without graphs are quickly made and not kept. Threads may share one of these: steps are
    no one else's between `take` and `give`.
    """

    def __init__(self) -> None:
        self._kept: list[GraphedSteps] = []

    def take(
        self, model: CodecLM, vocabulary: Vocabulary, cfg: InferenceConfig, n_rows: int
    ) -> EagerSteps:
        """Idle steps made with these arguments."""
        arguments = (model, vocabulary, cfg, n_rows)
        if model.embed.weight.device.type != "cuda":
            return EagerSteps(*arguments)
        with suppress(IndexError):
            kept = self._kept.pop()
            if kept.made_with == arguments:
                return kept
        return GraphedSteps(*arguments)

    def give(self, steps: EagerSteps) -> None:
        """Take back idle steps; others kept before go."""
        if isinstance(steps, GraphedSteps):
            self._kept[:] = [steps]
