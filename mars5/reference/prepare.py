"""From a recording to what a voice is made of: examined, cut, transcribed, and told in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import soxr

from mars5.audio import AudioInput, load_reference
from mars5.config import SAMPLE_RATE
from mars5.errors import ConfigError, TextError
from mars5.reference.excerpt import Excerpt, best_excerpt, trimmed
from mars5.reference.findings import LONGEST_SECONDS
from mars5.reference.report import ReferenceReport, examine
from mars5.text import check_speakable


@dataclass(frozen=True, eq=False)
class PreparedReference:
    """What goes into `Mars5TTS.voice`, and what was done to it.

    Attributes:
        audio: the recording as given, or the part of it, (T,) float32 at 24 kHz.
        transcript: what `audio` says, if it was given or asked for.
        report: on the whole recording.
        used: on `audio`; `report`, if that is the whole.
        steps: what was done, in words.
        provenance: facts to keep with the voice.
    """

    audio: AudioInput
    transcript: str | None
    report: ReferenceReport
    used: ReferenceReport
    steps: tuple[str, ...]
    provenance: dict[str, str]

    def lines(self) -> list[str]:
        """What was done, and what is still wrong with `audio`, for people.

        What spoils the clone is a warning, too: a reference is made of any recording.
        """
        problems = [f"warning: {p.code} {p.shown}: {p.words}" for p in self.used.problems]
        poor = ["warning: the reference is poor, and so will its clones be"]
        return [*self.steps, *(poor if self.used.verdict == "poor" else []), *problems]

    def to_json(self) -> dict[str, Any]:
        """Everything but the audio, as JSON takes it."""
        return {
            "report": self.report.to_json(),
            "used": self.used.to_json(),
            "steps": list(self.steps),
            "transcript": self.transcript,
            "provenance": self.provenance,
        }


def prepare_reference(
    audio: AudioInput,
    transcript: str | None = None,
    *,
    transcribe: bool = False,
    pick: bool = True,
) -> PreparedReference:
    """Make the best of a recording.

    What lasts more than 12 s gives way to its best 5 to 8 s; silence of more than 1 s at the ends
    is trimmed to 0.2 s.

    Args:
        audio: as in `Mars5TTS.generate`, but up to 4 hours.
        transcript: what it says.
        transcribe: hear what the part that is used says; needs the extra `[eval]`, knows English.
        pick: False leaves the recording as it is.

    Raises:
        AudioInputError: not usable audio, or too long, and no part of it fits.
        TextError: the transcript is not speakable, or nothing was heard.
        ConfigError: a transcript of a recording of which a part is to be picked, or a transcript
            and `transcribe`.
        MissingExtraError: `transcribe` without the extra.
    """
    if transcript is not None:
        check_speakable(transcript, "the transcript")
        if transcribe:
            raise ConfigError("give a transcript or ask for one to be heard, not both")
    report = examine(audio)
    part = _part(audio, report, transcript) if pick else None
    used = report
    steps: list[str] = []
    facts: dict[str, str] = {}
    if part is not None:
        audio, used = part.audio, examine(part.audio)
        steps.append(f"{part.words}; the recording lasts {report.seconds:.2f} s")
        facts["excerpt"] = f"{part.start:.2f} to {part.end:.2f} s of {report.seconds:.2f} s"
    if transcribe:
        transcript = _heard(audio)
        steps.append(
            f"heard: {transcript!r}; if that is wrong, write the part that was used (--keep "
            "part.wav) and make the voice of that, with its words (--text)"
        )
    return PreparedReference(audio, transcript, report, used, tuple(steps), facts)


def _part(audio: AudioInput, report: ReferenceReport, transcript: str | None) -> Excerpt | None:
    if report.seconds > LONGEST_SECONDS:
        if transcript is not None:
            raise ConfigError(
                f"{report.name} lasts {report.seconds:.1f} s, and a transcript of the whole will "
                "not fit the few seconds that are picked: have them transcribed (--transcribe), "
                "or keep the whole (--no-pick, up to 60 s), or cut the recording yourself and "
                "give the transcript of the part"
            )
        return best_excerpt(audio)
    silences = {"leading_silence", "trailing_silence"} & {f.code for f in report.problems}
    return trimmed(audio) if silences else None


def _heard(audio: AudioInput) -> str:
    from mars5.eval.ears import RATE, Recogniser

    ears = Recogniser("tiny.en")
    wave = soxr.resample(load_reference(audio).numpy(), SAMPLE_RATE, RATE)
    heard = ears.transcribe([wave])[0]
    try:
        return check_speakable(heard, "what was heard")
    except TextError as error:
        raise TextError(
            f"no words were heard in the recording: give its words (--text) ({error})"
        ) from (error)
