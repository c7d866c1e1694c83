"""The reference doctor: what is wrong with a recording that shall be cloned, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mars5.audio import AudioInput
from mars5.reference import findings
from mars5.reference.activity import Activity
from mars5.reference.findings import Finding
from mars5.reference.recording import measure

Verdict = Literal["healthy", "usable", "poor"]

_VERDICT_WORDS = {
    "healthy": "ready to be cloned",
    "usable": "can be cloned; better with what is advised",
    "poor": "clones badly: record again, or follow the advice",
}


@dataclass(frozen=True)
class ReferenceReport:
    """What `examine` found.

    Attributes:
        name: what was examined: a path, or "the audio".
        seconds: its length.
        sample_rate: its own, in Hz.
        findings: one for each check, in a fixed order.
    """

    name: str
    seconds: float
    sample_rate: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The warnings and errors."""
        return tuple(finding for finding in self.findings if finding.severity != "info")

    @property
    def verdict(self) -> Verdict:
        """ "healthy" without problems, "poor" with an error, else "usable"."""
        severities = {finding.severity for finding in self.findings}
        return "poor" if "error" in severities else "usable" if self.problems else "healthy"

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {**asdict(self), "findings": [asdict(f) for f in self.findings],
                "verdict": self.verdict}  # fmt: skip

    def __str__(self) -> str:
        head = f"{self.name}: {self.verdict}, {_VERDICT_WORDS[self.verdict]}"
        return "\n".join([head, *map(_line, self.findings)])


def _line(finding: Finding) -> str:
    if finding.value is None:
        return f"  {'-':<8} {finding.code:<17} {finding.words}"
    mark = "ok" if finding.severity == "info" else finding.severity
    return (
        f"  {mark:<8} {finding.code:<17} {finding.shown} ({finding.limit}) {finding.words}".rstrip()
    )


def examine(audio: AudioInput) -> ReferenceReport:
    """Examine a recording as a reference; it may last up to 4 hours.

    With the extra `[eval]`, up to a minute is also searched for a second speaker.

    Args:
        audio: as in `Mars5TTS.generate`.

    Raises:
        AudioInputError: not audio, damaged, or silent, as in `load_reference`.
    """
    measures = measure(audio)
    activity = Activity(measures)
    found = [
        findings.length(measures),
        findings.speech(activity),
        findings.loudness(measures),
        findings.clipping(measures),
        findings.offset(measures),
        findings.hum(activity),
        findings.bandwidth(activity),
        *(_not_checked(activity) if activity.steady else _by_pauses(activity)),
        findings.second_speaker(audio, measures),
    ]
    return ReferenceReport(measures.name, measures.seconds, measures.rate, tuple(found))


def _by_pauses(activity: Activity) -> Iterator[Finding]:
    yield findings.noise(activity)
    yield findings.silence(activity)
    yield findings.edge_silence(activity, "leading", activity.leading_seconds)
    yield findings.edge_silence(activity, "trailing", activity.trailing_seconds)
    yield findings.edge(activity, "start", bool(activity.speech[0]))
    yield findings.edge(activity, "end", bool(activity.speech[-1]))


def _not_checked(activity: Activity) -> Iterator[Finding]:
    codes = ("noise", "silence", "leading_silence", "trailing_silence", "cut_start", "cut_end")
    for code in codes:
        yield Finding(code, "info", None, "", "", "not checked: there are no pauses")
