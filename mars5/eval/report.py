"""Scorecards for people and programs: a table, the worst utterances, JSON, a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mars5 import __version__
from mars5.errors import ConfigError
from mars5.eval.extra import extra
from mars5.eval.scorecard import Card, Figure, Row
from mars5.files import replacing, write_text

_UNITS = {
    "failures": "failures, %",
    "similarity": "speaker similarity, median",
    "dnsmos": "DNSMOS, mean",
    "words per second": "words per second",
    "duration ratio": "duration ratio, median",
    "real-time factor": "real-time factor",
    "first sound": "first sound, s, median",
}
_DIGITS = {"failures": 1, "wer": 1}
PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Report:
    """What one evaluation found.

    Attributes:
        texts: the list, by name or path.
        seeds: for what has seeds.
        cards: one for each source, in the order asked for.
        same, different: median speaker similarity of recordings of one person, and of two.
        people: whose recordings these baselines come from.
    """

    texts: str
    seeds: list[int]
    cards: list[Card]
    same: float | None = None
    different: float | None = None
    people: tuple[str, ...] = ()

    def table(self) -> str:
        """Metrics down, sources across: mean over the seeds, lowest and highest in brackets."""
        figures = [card.figures for card in self.cards]
        wers = sorted({name for found in figures for name in found if name.startswith("wer ")})
        names = [name for name in [*wers, *_UNITS] if any(name in found for found in figures)]
        body = [[_label(n), *(_cell(n, found.get(n)) for found in figures)] for n in names]
        kinds = ["of these", *(_kinds(card) for card in self.cards)]
        body.insert(names.index("failures") + 1, kinds)
        head = [f"{self.texts}, seeds {' '.join(map(str, self.seeds))}"]
        lines = aligned([[*head, *(card.source for card in self.cards)], *body])
        if self.people:
            lines.append(
                f"similarity of one person's recordings {_number(self.same)}, of two people's "
                f"{_number(self.different)} ({', '.join(self.people)})"
            )
        return "\n".join(lines)

    def worst(self, most: int) -> str:
        """For each source the utterances with the most errors: what was said and heard."""
        return "\n".join(line for card in self.cards for line in _worst_of(card, most))

    def write_json(self, path: Path) -> None:
        """Everything, each utterance included.

        Raises:
            ConfigError: the file cannot be written.
        """
        baselines = {"same": self.same, "different": self.different, "people": self.people}
        content = {
            "mars5": __version__,
            "list": self.texts,
            "seeds": self.seeds,
            "baselines": baselines,
            "cards": [card.to_json() for card in self.cards],
        }
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def plot(self, path: Path) -> None:
        """Word error rates, similarities and duration ratios of all sources, as one picture.

        Raises:
            ConfigError: the file cannot be written, or is of no kind in `PLOTS`.
            MissingExtraError: the extra is not installed.
        """
        if path.suffix.lower() not in PLOTS:
            raise ConfigError(f"the plot is {str(path)!r}, but must end in {', '.join(PLOTS)}")
        with extra("the plot"):
            from matplotlib.figure import Figure as Picture
        picture = Picture(figsize=(4 + 3 * len(self.cards), 4), layout="constrained")
        left, middle, right = picture.subplots(1, 3)
        self._plot_word_errors(left)
        _boxes(middle, self.cards, [[r.similarity for r in c.rows] for c in self.cards])
        for value, label in ((self.same, "one person"), (self.different, "two people")):
            if value is not None:
                middle.axhline(value, linestyle=":", color="grey")
                middle.annotate(label, (0.02, value), xycoords=("axes fraction", "data"))
        middle.set_title("speaker similarity")
        ratios = [[r.seconds / r.expected for r in c.rows] for c in self.cards]
        _boxes(right, self.cards, ratios)
        right.axhline(1, linestyle=":", color="grey")
        right.set_title("duration / expected")
        try:
            with replacing(path) as temporary:
                picture.savefig(temporary, format=path.suffix[1:].lower(), dpi=120)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot write the plot {path}: {error}") from error

    def _plot_word_errors(self, axes: Any) -> None:
        for i, card in enumerate(self.cards):
            for name, figure in card.figures.items():
                if name.startswith("wer "):
                    values = list(figure.by_seed.values())
                    axes.plot([i] * len(values), values, "o", alpha=0.6)
                    axes.annotate(f" {name[4:]}", (i, figure.mean))
        axes.set_xticks(range(len(self.cards)), [card.source for card in self.cards])
        axes.set_xlim(-0.5, len(self.cards) - 0.4)
        axes.set_ylim(bottom=0)
        axes.set_title("word error rate, %, each seed")


def _boxes(axes: Any, cards: Sequence[Card], values: Sequence[Sequence[float | None]]) -> None:
    there = [[v for v in column if v is not None] for column in values]
    axes.boxplot(there, tick_labels=[card.source for card in cards])


def _label(name: str) -> str:
    return f"word error rate, %, {name[4:]}" if name.startswith("wer ") else _UNITS[name]


def _cell(name: str, figure: Figure | None) -> str:
    if figure is None:
        return "-"
    digits = _DIGITS.get(name.split()[0], 2)
    cell = f"{figure.mean:.{digits}f}"
    if len(figure.by_seed) > 1:
        cell += f" ({figure.low:.{digits}f}-{figure.high:.{digits}f})"
    return cell


def _kinds(card: Card) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in card.failures.items()) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def _worst_of(card: Card, most: int) -> list[str]:
    ear = next(iter(card.rows[0].heard))
    wrong = [row for row in card.rows if row.errors[ear] or row.failure is not None]
    wrong.sort(key=lambda row: row.errors[ear] / row.words, reverse=True)
    lines = [_line(row, ear) for row in wrong[:most]]
    return [f"{card.source}: worst of {len(card.rows)}, as heard by {ear}", *lines] if lines else []


def _line(row: Row, ear: str) -> str:
    seed = "" if row.seed is None else f" seed {row.seed}"
    failure = "" if row.failure is None else f" [{row.failure}]"
    return f"  {row.errors[ear]} of {row.words}{seed}{failure}  {row.text} | {row.heard[ear]}"
