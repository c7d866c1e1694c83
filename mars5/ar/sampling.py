"""Logits to the next token: penalties, filters, one draw. Pure functions on (B, V) float32.

Nothing here changes its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mars5.config import InferenceConfig

TYPICAL_OFF = 0.999


@dataclass(frozen=True)
class Vocabulary:
    """Which joint ids may be generated and which one ends the speech.

    Attributes:
        n_text: ids below this are text.
        end: the id of `<|endofspeech|>`.
    """

    n_text: int
    end: int

    @property
    def first_allowed(self) -> int:
        """The last text id stays allowed, as published; it decodes to code 0."""
        return self.n_text - 1


def penalise_repeats(
    logits: Tensor, previous: Tensor, frequency: float, presence: float, window: int
) -> Tensor:
    """Subtract `frequency` per occurrence and `presence` once for ids among the last ones.

    Args:
        previous: (B, n) generated ids.
        window: how many of them count; 0 means all.
    """
    recent = previous[:, -window:] if window else previous
    counts = torch.zeros_like(logits)
    counts.scatter_add_(1, recent, torch.ones_like(recent, dtype=logits.dtype))
    return logits - counts * frequency - (counts > 0) * presence


def end_penalty(n_generated: int, estimate: int, decay: float, factor: float) -> float:
    """What the end token loses while no more than `estimate` tokens are generated."""
    return 0.0 if n_generated > estimate else factor * max(estimate - n_generated, 1) ** decay


def penalise_early_end(
    logits: Tensor, end: int, n_generated: int, estimate: int, decay: float, factor: float
) -> Tensor:
    """Lower the end token by `end_penalty`."""
    lowered = logits.clone()
    lowered[:, end] -= end_penalty(n_generated, estimate, decay, factor)
    return lowered


def top_k_top_p(logits: Tensor, k: int, p: float, min_tokens: int = 1) -> Tensor:
    """-inf outside the k likeliest (0: all) and outside the nucleus of mass p (1: all).

    Ties with the k-th stay, and so does the token that crosses the mass. `min_tokens` is a lower
    bound for k; in the nucleus one token more than that is safe.
    """
    if k > 0:
        k = min(max(k, min_tokens), logits.shape[-1])
        kth = logits.topk(k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if p < 1.0:
        ordered, order = logits.sort(descending=True)
        beyond = ordered.softmax(-1).cumsum(-1) > p
        if min_tokens > 1:
            beyond[:, :min_tokens] = False
        beyond = beyond.roll(1, -1)  # the token that crosses the mass is kept
        beyond[:, 0] = False
        removed = torch.zeros_like(beyond).scatter(1, order, beyond)
        logits = logits.masked_fill(removed, -torch.inf)
    return logits


def typical(logits: Tensor, mass: float) -> Tensor:
    """Locally typical sampling: keep the ids whose surprise is nearest to the entropy."""
    if mass > TYPICAL_OFF:
        return logits
    log_p = logits.log_softmax(-1)
    entropy = -(log_p * log_p.exp()).nansum(-1, keepdim=True)
    distance = (-log_p - entropy).abs()
    ordered, order = distance.sort()
    covered = logits.gather(-1, order).softmax(-1).cumsum(-1)
    last = (covered < mass).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    removed = ordered > ordered.gather(-1, last)
    return logits.masked_fill(torch.zeros_like(removed).scatter(1, order, removed), -torch.inf)


def filtered_logits(
    logits: Tensor,
    generated: Tensor,
    estimate: int | None,
    vocabulary: Vocabulary,
    cfg: InferenceConfig,
) -> Tensor:
    """(B, V) logits after all penalties and filters, in the published order.

    Args:
        generated: (B, n) ids generated so far, the prompt not included.
        estimate: expected number of tokens for the end penalty; None turns it off.
    """
    n_generated = generated.shape[1]
    if n_generated > 1:
        logits = penalise_repeats(
            logits, generated, cfg.freq_penalty, cfg.presence_penalty, cfg.rep_penalty_window
        )
    logits = _without_text(logits, vocabulary)
    if estimate is not None:
        logits = penalise_early_end(
            logits,
            vocabulary.end,
            n_generated,
            estimate,
            cfg.eos_penalty_decay,
            cfg.eos_penalty_factor,
        )
    return filters(logits, cfg)


def filters(logits: Tensor, cfg: InferenceConfig) -> Tensor:
    """(B, V) logits by temperature, top-k, top-p and typical-p, in this order."""
    if cfg.temperature == 0:  # greedy
        return top_k_top_p(logits, 1, 1.0)
    logits = top_k_top_p(logits / cfg.temperature, cfg.top_k, cfg.top_p)
    return typical(logits, cfg.typical_p)


def next_token_probabilities(
    logits: Tensor,
    generated: Tensor,
    estimate: int | None,
    vocabulary: Vocabulary,
    cfg: InferenceConfig,
) -> Tensor:
    """(B, V) probabilities of the next id; arguments as in `filtered_logits`."""
    filtered = filtered_logits(logits, generated, estimate, vocabulary, cfg)
    return _without_text(filtered, vocabulary).softmax(-1)


def text_mask(n_vocab: int, vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """(V,) bool, true for ids that may not be generated."""
    return torch.arange(n_vocab, device=device) < vocabulary.first_allowed


def _without_text(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    mask = text_mask(logits.shape[-1], vocabulary, logits.device)
    return logits.masked_fill(mask, -torch.inf)


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """(B, V) probabilities and exponential noise -> (B, 1) ids, one draw a row.

    What `torch.multinomial` does inside; with the noise given, it can be drawn ahead.
    """
    return (probabilities / noise).argmax(-1, keepdim=True)


class Noise:
    """Exponential numbers for one sequence's draws, of which those drawn ahead can be given back.

    Each row is drawn by itself, so that the numbers do not depend on how many are drawn at once.

    Args:
        width: V.
        generator: source of randomness on the CPU; None is torch's global one.
    """

    def __init__(self, width: int, generator: torch.Generator | None) -> None:
        self.width = width
        self.generator = generator or torch.default_generator
        self._before: Tensor | None = None

    def draw(self, n: int) -> Tensor:
        """(n, V) float32."""
        self._before = self.generator.get_state() if n > 1 else None
        rows = torch.empty(n, self.width)
        for row in rows:
            row.exponential_(generator=self.generator)
        return rows

    def give_back(self, used: int) -> None:
        """Leave the generator as if the last call had drawn `used` rows."""
        if self._before is not None:
            self.generator.set_state(self._before)
            self.draw(used)
