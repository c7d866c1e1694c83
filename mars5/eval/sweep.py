"""`mars5 eval --sweep`: a coarse-to-fine search over a checkpoint's sampling settings.

Stage after stage varies a few settings over a small grid, from the best found so far: first the
AR's, then the NAR's. What is measured goes into a journal, so that a killed search continues.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeAlias

from mars5.config import InferenceConfig
from mars5.errors import ConfigError
from mars5.eval.report import aligned
from mars5.eval.scorecard import Judges
from mars5.eval.sources import Checkpoint
from mars5.files import write_text

Settings: TypeAlias = dict[str, Any]

JOURNAL, BEST = "trials.jsonl", "best.json"
SETTLING, AT_ONCE = "nar_settle_step", 200


@dataclass(frozen=True)
class Stage:
    """Settings varied together.

    Attributes:
        grid: setting -> values; every combination is tried. Cheap values come first.
        relative: the values are factors of the best value so far.
        keep: the best so far is tried first, and so wins over what is not clearly better.
        of_draws: only codes that are drawn feel it: left out if the best so far settle at once.
    """

    name: str
    grid: dict[str, tuple[float, ...]]
    relative: bool = False
    keep: bool = True
    of_draws: bool = False

    def concerns(self, best: Settings) -> bool:
        """Whether it can make a difference."""
        return not self.of_draws or best.get(SETTLING, 0) < AT_ONCE

    def candidates(self, best: Settings) -> list[Settings]:
        """The settings to try, in the order of preference."""
        combined = [dict(zip(self.grid, c, strict=True)) for c in product(*self.grid.values())]
        if self.relative:
            combined = [{k: _scaled(k, best[k], v) for k, v in c.items()} for c in combined]
        tried = [best] if self.keep else []
        for settings in combined:
            if (candidate := {**best, **settings}) not in tried:
                tried.append(candidate)
        return tried


STAGES = (
    Stage("AR, coarse", {"temperature": (0.7, 1.0, 1.3), "top_p": (0.3, 0.6, 0.9)}),
    Stage("AR, cut-off", {"top_k": (0, 20, 100)}),
    Stage("AR, penalties", {"freq_penalty": (0.0, 0.3, 1.0), "presence_penalty": (0.0, 0.4)}),
    Stage("AR, fine", {"temperature": (0.85, 1.0, 1.15), "top_p": (0.8, 1.0, 1.25)}, relative=True),
    Stage("NAR, settling", {SETTLING: (0, AT_ONCE // 2, AT_ONCE)}),
    Stage("NAR, steps", {"timesteps": (4, 8, 16, 32)}, keep=False, of_draws=True),
    Stage("NAR, temperature", {"x_0_temp": (0.2, 0.5, 0.8)}, of_draws=True),
    Stage("NAR, guidance", {"nar_guidance_w": (1.0, 1.5, 2.0, 3.0)}),
)


@dataclass(frozen=True)
class Trial:
    """What some settings scored.

    Attributes:
        wer: word error rate in percent, for each seed.
        failures: share in percent.
        dnsmos, rtf: means; None if nothing could be heard.
    """

    settings: Settings
    wer: list[float]
    failures: float
    dnsmos: float | None
    rtf: float | None

    @property
    def error(self) -> float:
        """Mean word error rate over the seeds."""
        return mean(self.wer)

    @property
    def doubt(self) -> float:
        """Standard error of that mean; 0 for one seed."""
        return stdev(self.wer) / math.sqrt(len(self.wer)) if len(self.wer) > 1 else 0.0


class Journal:
    """The trials of one search, one JSON line each, behind a line that says what was searched.

    Raises:
        ConfigError: the folder holds another search, or cannot be used.
    """

    def __init__(self, folder: Path, context: dict[str, Any]) -> None:
        self._path = folder / JOURNAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = (
                self._path.read_text(encoding="utf-8").split("\n") if self._path.exists() else []
            )
            # A line without its end was being written when the search was killed.
            entries = [json.loads(line) for line in lines[:-1]]
            if not entries:
                self._path.write_text(json.dumps(context) + "\n", encoding="utf-8")
            elif lines[-1]:
                whole = "\n".join(lines[:-1]) + "\n"
                self._path.write_text(whole, encoding="utf-8")
            self.trials = [Trial(**entry) for entry in entries[1:]]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot use the journal {self._path}: {error}") from error
        if entries and entries[0] != context:
            raise ConfigError(
                f"{self._path} is of another search, {entries[0]}, not {context}: give another "
                "folder, or the same model, texts, seeds and recogniser"
            )

    def find(self, settings: Settings) -> Trial | None:
        return next((trial for trial in self.trials if trial.settings == settings), None)

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(trial)) + "\n")


def sweep(
    measure: Callable[[Settings], Trial],
    start: Settings,
    journal: Journal,
    tell: Callable[[str], None],
    stages: Sequence[Stage] = STAGES,
) -> Settings:
    """The best settings found.

    Args:
        measure: scores settings; not called for those in the journal.
        start: every setting that some stage varies, and more if wished.
        tell: gets a line for each stage and trial.
    """
    best = dict(start)
    for stage in stages:
        if not stage.concerns(best):
            continue
        tell(f"{stage.name}: {', '.join(stage.grid)}")
        trials: list[Trial] = []
        for settings in stage.candidates(best):
            trial = journal.find(settings)
            if trial is None:
                trial = measure(settings)
                journal.add(trial)
            trials.append(trial)
            varied = {name: settings[name] for name in stage.grid}
            tell(f"  {trial.error:5.1f} +- {trial.doubt:.1f} %  {varied}")
        best = prefer(trials).settings
    return best


def prefer(trials: Sequence[Trial]) -> Trial:
    """The first trial whose error is within one standard error of the least."""
    least = min(trials, key=lambda trial: trial.error)
    return next(trial for trial in trials if trial.error <= least.error + least.doubt)


def run_sweep(
    folder: Path,
    checkpoint: Checkpoint,
    judges: Judges,
    texts: Sequence[str],
    seeds: Sequence[int],
    tell: Callable[[str], None],
    stages: Sequence[Stage] = STAGES,
) -> str:
    """Search, write `best.json` (to be put into a checkpoint's defaults); returns the table.

    Raises:
        ConfigError: the folder cannot be used.
    """
    names = dict.fromkeys(name for stage in stages for name in stage.grid)
    start = {name: getattr(checkpoint.cfg, name) for name in names}
    context = {
        "model": checkpoint.name, "texts": list(texts), "seeds": list(seeds),
        "ear": judges.ears[0].name, "others": _others(checkpoint.cfg, names),
    }  # fmt: skip
    journal = Journal(folder, context)

    def measure(settings: Settings) -> Trial:
        card = judges.judge(checkpoint.with_settings(settings), texts, seeds)
        figures = card.figures
        wer = list(figures[f"wer {judges.ears[0].name}"].by_seed.values())
        means = {k: figures[k].mean for k in ("dnsmos", "real-time factor") if k in figures}
        return Trial(
            settings, wer, figures["failures"].mean, means.get("dnsmos"),
            means.get("real-time factor"),
        )  # fmt: skip

    best = sweep(measure, start, journal, tell, stages)
    write_text(folder / BEST, json.dumps(best, indent=1) + "\n")
    return _table(journal.trials, best)


def _others(cfg: InferenceConfig, names: dict[str, None]) -> Settings:
    return {name: value for name, value in vars(cfg).items() if name not in names}


def _table(trials: Sequence[Trial], best: Settings) -> str:
    """All trials, the least word error rate first; the chosen one has a star."""
    head = ["", "WER, %", "lowest", "highest", "failures, %", "DNSMOS", "RTF", *best]
    rows = [
        [
            "*" if trial.settings == best else "",
            *(f"{x:.1f}" for x in (trial.error, min(trial.wer), max(trial.wer), trial.failures)),
            *("-" if x is None else f"{x:.2f}" for x in (trial.dnsmos, trial.rtf)),
            *(f"{trial.settings[name]:g}" for name in best),
        ]
        for trial in sorted(trials, key=lambda trial: trial.error)
    ]
    return "\n".join(aligned([head, *rows]))


def _scaled(name: str, value: float, factor: float) -> float:
    scaled = round(value * factor, 3)
    return min(scaled, 1.0) if name == "top_p" else scaled
