"""The penalties and filters of `sampling` with their state kept on the device, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from mars5.ar.sampling import Vocabulary, draw, end_penalty, filters, text_mask
from mars5.config import InferenceConfig


class Sampler:
    """Draws one id for each of `rows` sequences; the same as `sampling`, given the same history.

    Nothing waits for the device and no shape depends on a value, so a CUDA graph can hold it.

    Args:
        steps: ids a row may draw at most.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        n_vocab: int,
        cfg: InferenceConfig,
        rows: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self.vocabulary, self.cfg = vocabulary, cfg
        self.counting = cfg.freq_penalty != 0 or cfg.presence_penalty != 0
        self.is_text = text_mask(n_vocab, vocabulary, device)
        self.n_drawn = torch.zeros((rows, 1), dtype=torch.long, device=device)
        self.end_penalties = torch.zeros((rows, steps + 1), device=device)
        # One column more than there are ids: what leaves a window that is not full yet.
        self.counts = torch.zeros((rows, n_vocab + 1), device=device)
        self.window = torch.full(
            (rows, cfg.rep_penalty_window or steps), n_vocab, dtype=torch.long, device=device
        )

    @property
    def state(self) -> tuple[Tensor, ...]:
        """What a draw changes."""
        return self.n_drawn, self.counts, self.window

    def reset(self, row: int, estimate: int | None) -> None:
        """Begin a row anew; `estimate` as in `sampling.filtered_logits`."""
        self.n_drawn[row] = 0
        self.counts[row] = 0
        self.window[row] = self.counts.shape[1] - 1
        self.end_penalties[row] = 0
        if estimate is not None:
            decay, factor = self.cfg.eos_penalty_decay, self.cfg.eos_penalty_factor
            n = min(estimate + 1, self.end_penalties.shape[1])
            lost = [end_penalty(i, estimate, decay, factor) for i in range(n)]
            self.end_penalties[row, :n] = torch.tensor(lost)

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Float32 logits (rows, V) and exponential noise of the same shape -> (rows,) ids."""
        ids = draw(self.probabilities(logits), noise)
        self._count(ids)
        return ids[:, 0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """(rows, V) probabilities of the next id."""
        if self.counting:
            counts = self.counts[:, :-1]
            cfg = self.cfg
            lowered = logits - counts * cfg.freq_penalty - (counts > 0) * cfg.presence_penalty
            logits = torch.where(self.n_drawn > 1, lowered, logits)
        logits = logits.masked_fill(self.is_text, -torch.inf)
        if self.cfg.eos_penalty_factor != 0:
            last = self.end_penalties.shape[1] - 1  # of a row that is not in use
            end = self.vocabulary.end
            logits[:, end] -= self.end_penalties.gather(1, self.n_drawn.clamp(max=last))[:, 0]
        return filters(logits, self.cfg).softmax(-1)

    def _count(self, ids: Tensor) -> None:
        """Take (rows, 1) ids into the history."""
        if self.counting:
            place = self.n_drawn % self.window.shape[1]
            leaving = self.window.gather(1, place)
            one = torch.ones_like(ids, dtype=self.counts.dtype)
            self.counts.scatter_add_(1, leaving, -one)
            self.counts.scatter_add_(1, ids, one)
            self.window.scatter_(1, place, ids)
        self.n_drawn += 1
