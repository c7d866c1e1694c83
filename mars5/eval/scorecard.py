"""The scorecard: what each utterance scored, and figures over them for every seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import mean, median
from typing import Any, TypeAlias

from mars5.errors import TextError
from mars5.eval.artefacts import dnsmos
from mars5.eval.ears import RATE, Recogniser
from mars5.eval.failures import expected_seconds, failure_of
from mars5.eval.similarity import Embedding, SpeakerJudge, similarity
from mars5.eval.sources import Source, Utterance
from mars5.eval.text import word_errors, words_of
from mars5.progress import shown

Metric: TypeAlias = "Callable[[Sequence[Row]], float | None]"


@dataclass(frozen=True)
class Row:
    """One utterance and its scores.

    Attributes:
        words: how many are said, normalised.
        heard, errors: what each recogniser heard, and its errors in words.
        seconds, expected: of speech, and what the teacher (or a common pace) takes for the text,
            over the `speed` of the settings.
        failure: "empty", "looping", "cut" or None; by the first recogniser.
        similarity: cosine to the reference, 0 to 1; None without one.
        dnsmos: 1 to 5; None if there is no sound, or it was not asked for.
        took, first_sound: seconds of computing in all, and until the first sound.
    """

    text: str
    seed: int | None
    reference: str | None
    words: int
    heard: dict[str, str]
    errors: dict[str, int]
    seconds: float
    expected: float
    failure: str | None
    similarity: float | None
    dnsmos: float | None
    took: float | None
    first_sound: float | None


@dataclass(frozen=True)
class Figure:
    """One metric of a source: for every seed, and over the seeds.

    Attributes:
        by_seed: seed -> value; the key None stands for what has no seeds.
    """

    by_seed: dict[int | None, float]

    @property
    def mean(self) -> float:
        return mean(self.by_seed.values())

    @property
    def low(self) -> float:
        return min(self.by_seed.values())

    @property
    def high(self) -> float:
        return max(self.by_seed.values())


@dataclass(frozen=True)
class Card:
    """A source's rows and what follows from them."""

    source: str
    rows: list[Row]

    @property
    def figures(self) -> dict[str, Figure]:
        """Every metric that has a value; names as in `METRICS`, `wer` once for each recogniser."""
        seeds = list(dict.fromkeys(row.seed for row in self.rows))
        groups = {seed: [row for row in self.rows if row.seed == seed] for seed in seeds}
        metrics = dict(METRICS)
        for ear in self.rows[0].heard:
            metrics[f"wer {ear}"] = partial(word_error_rate, ear=ear)
        found: dict[str, Figure] = {}
        for name, metric in metrics.items():
            values = {seed: metric(rows) for seed, rows in groups.items()}
            there = {seed: value for seed, value in values.items() if value is not None}
            if there:
                found[name] = Figure(there)
        return found

    @property
    def failures(self) -> dict[str, int]:
        """How many utterances failed in which way."""
        return dict(Counter(row.failure for row in self.rows if row.failure is not None))

    def to_json(self) -> dict[str, Any]:
        figures = {
            name: {
                "mean": figure.mean,
                "low": figure.low,
                "high": figure.high,
                "by_seed": {str(seed): value for seed, value in figure.by_seed.items()},
            }
            for name, figure in self.figures.items()
        }
        return {
            "source": self.source,
            "figures": figures,
            "failures": self.failures,
            "rows": [asdict(row) for row in self.rows],
        }


def word_error_rate(rows: Sequence[Row], ear: str) -> float:
    """Errors in percent of the words said, over all rows together."""
    return 100 * sum(row.errors[ear] for row in rows) / sum(row.words for row in rows)


def _of(pick: Callable[[Row], float | None], over: Callable[[list[float]], float]) -> Metric:
    """A metric over the rows that have a value."""

    def metric(rows: Sequence[Row]) -> float | None:
        values = [value for row in rows if (value := pick(row)) is not None]
        return over(values) if values else None

    return metric


def _real_time_factor(rows: Sequence[Row]) -> float | None:
    timed = [(row.took, row.seconds) for row in rows if row.took is not None]
    seconds = sum(s for _, s in timed)
    return sum(t for t, _ in timed) / seconds if seconds else None


def _speaking_rate(rows: Sequence[Row]) -> float | None:
    seconds = sum(row.seconds for row in rows)
    return sum(len(row.text.split()) for row in rows) / seconds if seconds else None


METRICS: dict[str, Metric] = {
    "failures": lambda rows: 100 * sum(row.failure is not None for row in rows) / len(rows),
    "similarity": _of(lambda row: row.similarity, median),
    "dnsmos": _of(lambda row: row.dnsmos, mean),
    "words per second": _speaking_rate,
    "duration ratio": _of(lambda row: row.seconds / row.expected, median),
    "real-time factor": _real_time_factor,
    "first sound": _of(lambda row: row.first_sound, median),
}


def score(
    utterance: Utterance,
    heard: dict[str, str],
    expected: float,
    similarity: float | None = None,
    quality: float | None = None,
) -> Row:
    """The row of an utterance.

    Args:
        heard: recogniser -> text; the first one decides what failed.
        expected: seconds that the text should last.

    Raises:
        TextError: the text has no words.
        MissingExtraError: the extra is not installed.
    """
    said = words_of(utterance.text)
    if not said:
        raise TextError(f"{utterance.text!r} has no words to be heard: take it off the list")
    words = {ear: words_of(text) for ear, text in heard.items()}
    seconds = len(utterance.wave) / RATE
    first = next(iter(words.values()))
    return Row(
        text=utterance.text,
        seed=utterance.seed,
        reference=utterance.reference,
        words=len(said),
        heard=heard,
        errors={ear: word_errors(said, found) for ear, found in words.items()},
        seconds=seconds,
        expected=expected,
        failure=failure_of(said, first, seconds, expected, utterance.at_limit),
        similarity=similarity,
        dnsmos=quality,
        took=utterance.took,
        first_sound=utterance.first_sound,
    )


def _evenly(items: list[int], most: int) -> list[int]:
    if len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]


@dataclass
class Judges:
    """Who listens; what is not there is not scored.

    Attributes:
        ears: recognisers; the first one decides what failed.
        speakers: the judge of speaker similarity, or None.
        quality: of how many utterances of each seed DNSMOS is computed, evenly chosen; it takes
            half a second for each second of speech beyond eight.
    """

    ears: list[Recogniser]
    speakers: SpeakerJudge | None = None
    quality: int = 0

    def judge(
        self,
        source: Source,
        texts: Sequence[str],
        seeds: Sequence[int],
        expected: dict[str, float] | None = None,
        progress: bool = False,
    ) -> Card:
        """Let a source speak and score it.

        Args:
            expected: text -> seconds, such as the teacher's; a common pace for other texts.
            progress: whether a bar shows the utterances as they come.
        """
        count = source.count(texts, seeds)
        utterances = list(shown(source.speak(texts, seeds), progress, "speaking", count))
        waves = [utterance.wave for utterance in utterances]
        heard = {ear.name: ear.transcribe(waves) for ear in self.ears}
        wanted = self._wanted(source)
        quality = self._quality(utterances)
        rows = []
        for i, utterance in enumerate(utterances):
            found = {ear: texts[i] for ear, texts in heard.items()}
            length = (expected or {}).get(utterance.text, expected_seconds(utterance.text))
            alike = self._similarity(utterance, wanted)
            rows.append(score(utterance, found, length / utterance.speed, alike, quality.get(i)))
        return Card(source.name, rows)

    def _quality(self, utterances: Sequence[Utterance]) -> dict[int, float | None]:
        """DNSMOS of the chosen utterances, by their place."""
        places: dict[int | None, list[int]] = {}
        for i, utterance in enumerate(utterances):
            places.setdefault(utterance.seed, []).append(i)
        chosen = [i for group in places.values() for i in _evenly(group, self.quality)]
        return {i: dnsmos(utterances[i].wave) for i in chosen}

    def _wanted(self, source: Source) -> dict[str, Embedding | None]:
        if self.speakers is None:
            return {}
        recordings = [entry for entries in source.references().values() for entry in entries]
        return {key: self.speakers.embed(wave) for key, wave in recordings}

    def _similarity(
        self, utterance: Utterance, wanted: dict[str, Embedding | None]
    ) -> float | None:
        reference = wanted.get(utterance.reference or "")
        if self.speakers is None or reference is None:
            return None
        return similarity(self.speakers.embed(utterance.wave), reference)
