"""What the three trainings share: optimisers, a clock, checkpoints, a log; killed runs continue.

The schedule follows training time, not steps: a run is told how many minutes it has, on whatever
machine, and its learning rate has decayed to nothing when they are over.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from mars5.files import replacing

log = logging.getLogger("mars5")

WARMUP = 0.01  # of the time
SAVE_SECONDS = 120.0
NOTE_SECONDS = 60.0


def optimisers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest (embeddings, heads, norms)."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = ".layers." in name and parameter.ndim == 2
        (matrices if inner else rest).append(parameter)
    chosen: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=0.01)
    ]
    if matrices:
        chosen.append(
            torch.optim.Muon(matrices, rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        )
    return chosen


def pace(progress: float) -> float:
    """Share of the full learning rate at this share of the time: a rise, a plateau, a fall."""
    if progress < WARMUP:
        return progress / WARMUP
    return min(1.0, (1.0 - progress) / 0.5)


class Run:
    """A training run that lives in `folder` as `name.pt` and `name.jsonl`.

    Args:
        model: trained in place.
        minutes: training time in all, earlier sessions of the run included.
        rate: the highest learning rate.
        resume: take up what an earlier session left there.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        model: nn.Module,
        minutes: float,
        rate: float,
        resume: bool = True,
    ) -> None:
        self.path = folder / f"{name}.pt"
        self.journal = folder / f"{name}.jsonl"
        self.model = model
        self.optimisers = optimisers(model, rate)
        self.rate = rate
        self.limit = minutes * 60
        self.seconds = 0.0
        self.step = 0
        self.seen = 0  # units of work: tokens, frames, samples
        self._tallied: defaultdict[str, list[float]] = defaultdict(list)
        folder.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            self._load()
        self._noted = self.seconds

    @property
    def progress(self) -> float:
        return min(self.seconds / self.limit, 1.0)

    def steps(self, *others: Run) -> Iterator[int]:
        """Step numbers until the time is over; saves on the way and at the end.

        Args:
            others: trainings beside this one, that keep its clock, its pace and its saves.
        """
        runs = (self, *others)
        saved = last = time.monotonic()
        while self.seconds < self.limit:
            for run in runs:
                run._slow_down(pace(self.progress))
            yield self.step
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            self.step += 1
            for other in others:
                other.seconds, other.step = self.seconds, self.step
            if now - saved > SAVE_SECONDS:
                for run in runs:
                    run.save()
                saved = now
        for run in runs:
            run.save()

    def _slow_down(self, share: float) -> None:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.rate * share

    def update(self, loss: Tensor, clip: float = 1.0) -> None:
        """One optimiser step on `loss`."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def tally(self, **figures: float) -> bool:
        """Keep the figures of one step; true when it is time for a `note`."""
        for name, value in figures.items():
            self._tallied[name].append(value)
        return self.seconds - self._noted > NOTE_SECONDS

    def note(self, **figures: float) -> None:
        """Append the means of what was tallied, and `figures`, to the journal and to the log."""
        figures = {name: fmean(values) for name, values in self._tallied.items()} | figures
        self._tallied.clear()
        self._noted = self.seconds
        line = {"step": self.step, "minutes": round(self.seconds / 60, 2), "seen": self.seen}
        line |= {name: round(float(value), 4) for name, value in figures.items()}
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s %s", self.path.stem, line)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "seconds": self.seconds,
            "step": self.step,
            "seen": self.seen,
        }
        with replacing(self.path) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.seconds, self.step, self.seen = state["seconds"], state["step"], state["seen"]


def begin(folder: Path, name: str, model: nn.Module) -> Run:
    """A run that takes no time, for a model's weights to be its first state: clocks at zero."""
    return Run(folder, name, model, 1.0, 1.0, resume=False)


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Small embeddings: the default of unit variance drowns what the first layers add."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.normal_(0, 0.1, generator=generator)


@torch.no_grad()
def start_from_codebook(rows: Tensor, book: Tensor, generator: torch.Generator) -> None:
    """Fill embedding rows (1024, D) with a random projection of codebook vectors (1024, rank).

    Codes that sound alike then start alike, which saves the model learning it from counts.
    """
    mix = torch.randn(book.shape[1], rows.shape[1], generator=generator)
    projected = (book - book.mean(0)) @ mix
    if projected.std() > 0:  # a book that had nothing left to describe has equal vectors
        rows.copy_(projected * (rows.std() / projected.std()))
