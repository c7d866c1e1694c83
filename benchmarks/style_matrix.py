"""Do delivery and identity come apart? Two speakers, each with two styles and with their own.

Every cell is heard by the ears of `mars5 eval` (`pip install '.[eval]'`; the speakers need
`apt-get install flite`): pitch and pace should follow the style, similarity the voice. A style is
taken as its difference from its own speaker's plain reading, and once more as the whole clip. The
last column is the pitch of the AR's coarse codes alone: what the AR carries, before the NAR adds to
it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.errors import GenerationError
from mars5.eval.clips import to_judges
from mars5.eval.lists import read_list
from mars5.eval.similarity import Embedding, SpeakerJudge, similarity
from mars5.styles import StyleBank
from mars5.train.teachers import Speaker, speak

VOICES = {
    "man": (Speaker("flite", "rms"), "The evening train was almost empty, so we sat quietly."),
    "woman": (Speaker("flite", "slt"), "She put the flowers on the table and opened the window."),
}
STYLES = ("solemn", "excited")
LOWEST, HIGHEST = 60.0, 420.0  # Hz
FRAME, HOP = 0.05, 0.01  # seconds
VOICED = 0.5  # least autocorrelation

Wave = npt.NDArray[np.float32]


@dataclass
class Heard:
    """Medians over the utterances of one cell."""

    pitch: float  # Hz
    spread: float  # semitones between the 10th and the 90th percentile
    letters_per_second: float
    like: dict[str, float]  # similarity with each voice


def pitches(wave: Wave, rate: int) -> npt.NDArray[np.float64]:
    """The fundamental in Hz of each voiced frame, by normalised autocorrelation."""
    size, hop = int(FRAME * rate), int(HOP * rate)
    if len(wave) < size:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop].astype(np.float64)
    frames = (frames - frames.mean(1, keepdims=True)) * np.hanning(size)
    loud = frames.std(1) > 0.1 * frames.std(1).max()
    spectrum = np.abs(np.fft.rfft(frames[loud], 2 * size)) ** 2
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 2 * size)) ** 2)
    correlation = np.fft.irfft(spectrum) / window[None]
    correlation /= correlation[:, :1]
    first, last = int(rate / HIGHEST), int(rate / LOWEST)
    part = correlation[:, first : last + 1]
    best = part.max(1)
    # The shortest lag that is nearly as good: its multiples are as good as the period itself.
    lags = first + (part > 0.9 * best[:, None]).argmax(1)
    return rate / lags[best > VOICED]


def hear(
    waves: list[tuple[str, Wave]], rate: int, judge: SpeakerJudge, voices: dict[str, Embedding]
) -> Heard:
    """What is heard in utterances, given with their texts."""
    found = [pitches(wave, rate) for _, wave in waves]
    voiced = [f0 for f0 in found if len(f0) > 10]
    spread = [12 * np.log2(np.quantile(f0, 0.9) / np.quantile(f0, 0.1)) for f0 in voiced]
    paces = [sum(map(str.isalpha, text)) / (len(wave) / rate) for text, wave in waves]
    like = {
        name: float(np.median([similarity(judge.embed(to_judges(w, rate)), voice) or 0.0
                               for _, w in waves]))
        for name, voice in voices.items()
    }  # fmt: skip
    pitch = float(np.median([np.median(f0) for f0 in voiced])) if voiced else float("nan")
    return Heard(pitch, float(np.median(spread or [np.nan])), float(np.median(paces)), like)


def utterances(
    system: Mars5TTS, voice: Voice, cfg: InferenceConfig, texts: list[str], seeds: list[int]
) -> Iterator[tuple[str, Wave, Wave]]:
    """Text, speech, and the speech of its coarse codes alone."""
    for seed in seeds:
        for text in texts:
            try:
                speech = system.generate(text, voice, cfg=cfg, seed=seed)
            except GenerationError:
                continue
            yield text, speech.audio.numpy(), sound(system, speech.codes[:, :1])


def sound(system: Mars5TTS, codes: Tensor) -> Wave:
    wave: Wave = system.vocode(codes)[0].numpy()
    return wave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--texts", type=int, default=3, help="of the list of everyday sentences")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.0])
    parser.add_argument("--deep", action="store_true", help="continue the references (deep clone)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    system, judge = Mars5TTS.from_pretrained(args.model), SpeakerJudge()
    cfg = replace(system.default_config, deep_clone=args.deep)
    texts, rate = read_list("everyday")[: args.texts], system.sr
    bank = {style.name: style for style in StyleBank.shipped().styles}
    voices, people = {}, {}
    for name, (speaker, text) in VOICES.items():
        pcm, _ = speak(text, speaker)
        voices[name] = system.voice(torch.from_numpy(pcm.astype(np.float32) / 32768), text)
        # What the codec leaves of the voice: the most that can be reached.
        embedding = judge.embed(to_judges(sound(system, voices[name].codes), rate))
        if embedding is not None:
            people[name] = embedding

    rows: dict[str, dict[str, Heard]] = {}
    for name in STYLES:
        clip = system.voice(bank[name].path, bank[name].text)
        wave = sound(system, clip.codes)
        rows[f"clip {name}"] = {"all": hear([(bank[name].text or "", wave)], rate, judge, people)}
    for who, voice in voices.items():
        cells = {f"{who}, own": voice}
        for name in STYLES:
            for strength in args.strengths:
                for kind, style in (
                    ("", bank[name]),
                    (", whole clip", replace(bank[name], plain=None)),
                ):
                    cell = f"{who}, {name} {strength:g}{kind}"
                    cells[cell] = system.directed(voice, style=style, style_strength=strength)
        for cell, directed in cells.items():
            made = list(utterances(system, directed, cfg, texts, args.seeds))
            rows[cell] = {
                "all": hear([(text, wave) for text, wave, _ in made], rate, judge, people),
                "coarse": hear([(text, wave) for text, _, wave in made], rate, judge, people),
            }

    likes = " | ".join(f"like the {who}" for who in people)
    print(f"| | pitch, Hz | range, semitones | letters/s | {likes} | coarse alone: pitch, Hz |")
    print("|---" * (5 + len(people)) + "|")
    for cell, heard in rows.items():
        whole, coarse = heard["all"], heard.get("coarse")
        alone = "" if coarse is None else f"{coarse.pitch:.0f}"
        figures = [f"{whole.pitch:.0f}", f"{whole.spread:.1f}", f"{whole.letters_per_second:.1f}"]
        figures += [f"{value:.2f}" for value in whole.like.values()]
        print(f"| {cell} | {' | '.join(figures)} | {alone} |", flush=True)
    if args.json is not None:
        report = {cell: {k: asdict(v) for k, v in heard.items()} for cell, heard in rows.items()}
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
