"""The checks of the reference doctor: each looks at one thing, and says what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mars5.audio import AudioInput
from mars5.errors import MissingExtraError
from mars5.reference.activity import Activity, db
from mars5.reference.recording import (
    BAND_HZ,
    FRAMES_PER_SECOND,
    HUM_HZ,
    Floats,
    Measures,
    read_span,
)
from mars5.reference.speakers import least_similarity

Severity = Literal["info", "warning", "error"]

LONGEST_SECONDS = 12.0
SHORTEST_SECONDS = 2.0
_TOO_SHORT_SECONDS = 1.0
_NOISE_DB, _TOO_NOISY_DB = 20.0, 10.0
_CLIPPED, _BADLY_CLIPPED = 0.1, 2.0  # percent
_SILENT_SHARE = 50.0  # percent
_EDGE_SECONDS = 1.0
_QUIET_LUFS, _LOUD_LUFS = -36.0, -9.0
_BANDWIDTH_HZ = 5500
_OFFSET = 1.0  # percent
_HUM_DB = -45.0
_HUM_PROMINENCE = 10.0  # in power, over all that lies 4 to 9 Hz away
_SPEAKER_SIMILARITY = 0.8  # one voice gives 0.87 and more, two give 0.55 to 0.75
_SPEAKER_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        code: what, such as "noise"; stable.
        severity: "info" is in order or not checked, "warning" costs likeness or clarity, "error"
            spoils the clone.
        value: what was found, in `unit`; None if not checked.
        limit: what is in order, for people.
        words: what it means and what to do.
    """

    code: str
    severity: Severity
    value: float | None
    unit: str
    limit: str
    words: str

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return "-" if self.value is None else f"{round(self.value, 3):g} {self.unit}".rstrip()


def length(measures: Measures) -> Finding:
    """Whether it is as long as the models were made for."""
    seconds = measures.seconds
    limit = f"{SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s"
    severity: Severity = "info"
    words = ""
    if seconds < SHORTEST_SECONDS:
        severity = "error" if seconds < _TOO_SHORT_SECONDS else "warning"
        words = "too short to tell a voice: record 5 to 8 s"
    elif seconds > LONGEST_SECONDS:
        severity = "warning"
        words = "longer than the models were made for: let the best 5 to 8 s be picked"
    return Finding("length", severity, round(seconds, 3), "s", limit, words)


def speech(activity: Activity) -> Finding:
    """Whether the level changes, as that of speech does."""
    words = "the level hardly changes, as in noise, music or a tone: record speech"
    return Finding(
        "speech", "error" if activity.steady else "info", round(activity.range_db, 1), "dB",
        "level changes by 6 dB or more", words if activity.steady else "",
    )  # fmt: skip


def loudness(measures: Measures) -> Finding:
    """Integrated loudness, too low or too high."""
    value = lufs(measures.weighted)
    words = ""
    if value < _QUIET_LUFS:
        words = "very quiet: go nearer to the microphone, or raise its gain, and record again"
    elif value > _LOUD_LUFS:
        words = "very loud: lower the gain; a limiter or clipping may have changed the voice"
    return Finding(
        "loudness", "warning" if words else "info", round(value, 1), "LUFS",
        f"{_QUIET_LUFS:g} to {_LOUD_LUFS:g} LUFS", words,
    )  # fmt: skip


def lufs(weighted: Floats) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4) of K-weighted powers of frames of 20 ms.

    Blocks of 0.4 s, a quarter overlap-free, are gated at -70 LUFS and at 10 LU under their mean;
    what is shorter is one block.
    """
    size, step = 2 * FRAMES_PER_SECOND // 5, FRAMES_PER_SECOND // 10
    if len(weighted) < size:
        blocks = weighted.mean(keepdims=True)
    else:
        blocks = np.lib.stride_tricks.sliding_window_view(weighted, size)[::step].mean(1)
    gated = blocks[blocks > 10 ** ((-70 + 0.691) / 10)]
    if gated.size:
        gated = gated[gated > gated.mean() / 10]
    return -0.691 + db(float(gated.mean()) if gated.size else 0.0)


def clipping(measures: Measures) -> Finding:
    """Samples cut off at full scale, or flat at a peak."""
    share = 100 * float(measures.clipped.mean())
    severity: Severity = "info"
    if share > _CLIPPED:
        severity = "error" if share > _BADLY_CLIPPED else "warning"
    words = "peaks are cut off, which sounds harsh: lower the gain and record again"
    return Finding(
        "clipping", severity, round(share, 3), "%", f"at most {_CLIPPED:g} % of the samples",
        "" if severity == "info" else words,
    )  # fmt: skip


def offset(measures: Measures) -> Finding:
    """A constant under the wave."""
    share = 100 * abs(measures.offset)
    words = "the wave is off its centre: filter out what lies below 40 Hz"
    return Finding(
        "offset", "warning" if share > _OFFSET else "info", round(share, 3), "%",
        f"at most {_OFFSET:g} % of full scale", words if share > _OFFSET else "",
    )  # fmt: skip


def hum(activity: Activity) -> Finding:
    """Lines at the mains' frequency and its multiples that stay through the recording.

    Weighted as heard: a line at 60 Hz that is 26 dB louder than one at 1 kHz is heard alike.
    """
    limit = f"{-_HUM_DB:g} dB or more under the speech, as heard"
    low = activity.measures.low
    if not len(low):
        return Finding("hum", "info", None, "dB", limit, "not checked: shorter than 1 s")
    steady = np.percentile(low, 20 if len(low) >= 5 else 0, axis=0)
    levels = {base: _mains_power(steady, base) for base in (50, 60)}
    base = max(levels, key=lambda item: levels[item])
    value = db(levels[base] / activity.speech_power)
    words = f"mains hum at {base} Hz: use a notch filter, or another cable or socket"
    return Finding(
        "hum", "warning" if value > _HUM_DB else "info", round(value, 1), "dB", limit,
        words if value > _HUM_DB else "",
    )  # fmt: skip


def _mains_power(steady: Floats, base: int) -> float:
    """Power of the lines that stand out; 0 unless the first does, or three of those above.

    One or two lines above alone may be a voice that holds its pitch.
    """
    lines: dict[int, float] = {}
    for number in range(1, 7):
        at = base * number - HUM_HZ[0]
        around = np.concatenate([steady[max(0, at - 9) : at - 3], steady[at + 4 : at + 10]])
        line = steady[at - 1 : at + 2]
        if line.max() > _HUM_PROMINENCE * around.max():
            lines[number] = float(line.sum()) * _a_weight(base * number)
    return sum(lines.values()) if 1 in lines or len(lines) >= 3 else 0.0


def _a_weight(hz: float) -> float:
    """Gain in power of the A weighting (IEC 61672-1)."""
    f = hz**2
    edges = (f + 20.6**2) * ((f + 107.7**2) * (f + 737.9**2)) ** 0.5 * (f + 12194.0**2)
    return 1.585 * (12194.0**2 * f**2 / edges) ** 2


def bandwidth(activity: Activity) -> Finding:
    """The top of the highest band of 500 Hz that carries speech, down to 60 dB under the loudest.

    Noise may hide the upper bands; whoever is told of the noise need not hear of them.
    """
    limit = f"at least {_BANDWIDTH_HZ} Hz"
    hidden = not activity.steady and activity.snr_db < _NOISE_DB
    if hidden and activity.measures.rate >= 2 * _BANDWIDTH_HZ:
        return Finding("bandwidth", "info", None, "Hz", limit, "not checked: too noisy")
    bands = activity.measures.bands
    loud = np.percentile(bands[activity.speech], 95, axis=0)
    heard = loud > loud.max() * 1e-6
    if not activity.steady and not activity.speech.all():
        heard &= loud > 4 * np.median(bands[~activity.speech], axis=0)
    found = np.flatnonzero(heard)
    top = BAND_HZ * (int(found[-1]) + 1) if found.size else 0
    words = "muffled, as from a telephone or a small file: the clone will be too; use the original"
    return Finding(
        "bandwidth", "warning" if top < _BANDWIDTH_HZ else "info", top, "Hz",
        limit, words if top < _BANDWIDTH_HZ else "",
    )  # fmt: skip


def noise(activity: Activity) -> Finding:
    """Speech over background noise."""
    value = activity.snr_db
    severity: Severity = "info"
    if value < _NOISE_DB:
        severity = "error" if value < _TOO_NOISY_DB else "warning"
    words = "background noise will be cloned: record in a quieter room, nearer to the microphone"
    return Finding(
        "noise", severity, round(value, 1), "dB", f"speech {_NOISE_DB:g} dB or more over noise",
        "" if severity == "info" else words,
    )  # fmt: skip


def silence(activity: Activity) -> Finding:
    """The share of pauses."""
    share = 100 * sum(p.frames for p in activity.pauses) / len(activity.speech)
    words = "little of it is speech: cut pauses out, or give a part with more speech"
    return Finding(
        "silence", "warning" if share > _SILENT_SHARE else "info", round(share, 1), "%",
        f"at most {_SILENT_SHARE:g} % pauses", words if share > _SILENT_SHARE else "",
    )  # fmt: skip


def edge_silence(activity: Activity, where: str, seconds: float) -> Finding:
    """Silence before (`where` is "leading") or after ("trailing") the speech."""
    words = f"silence at the {'start' if where == 'leading' else 'end'}: trim it to about 0.2 s"
    return Finding(
        f"{where}_silence", "warning" if seconds > _EDGE_SECONDS else "info", round(seconds, 2),
        "s", f"at most {_EDGE_SECONDS:g} s", words if seconds > _EDGE_SECONDS else "",
    )  # fmt: skip


def edge(activity: Activity, where: str, cut: bool) -> Finding:
    """Sound at the very "start" or "end", where a word may be cut."""
    power = activity.power[0 if where == "start" else -1]
    value = db(float(power)) - db(activity.speech_power)
    words = f"there is sound at the very {where}: a word may be cut; leave 0.1 s of pause there"
    return Finding(
        f"cut_{where}", "warning" if cut else "info", round(value, 1), "dB",
        f"a pause at the {where}", words if cut else "",
    )  # fmt: skip


def second_speaker(audio: AudioInput, measures: Measures) -> Finding:
    """Whether all parts sound like one voice; only with the extra `[eval]`."""
    limit = f"similarity of its parts at least {_SPEAKER_SIMILARITY:g}"
    value: float | None = None
    words = "not checked: longer than a minute"
    if measures.seconds <= _SPEAKER_SECONDS:
        words = "not checked: too short"
        try:
            value = least_similarity(read_span(audio, 0, measures.seconds))
        except MissingExtraError:
            words = "not checked: pip install 'mars5[eval]'"
    if value is None:
        return Finding("second_speaker", "info", None, "", limit, words)
    other = value < _SPEAKER_SIMILARITY
    words = "a second voice may be heard: give a part where one person speaks" if other else ""
    return Finding(
        "second_speaker", "warning" if other else "info", round(value, 3), "", limit, words
    )
