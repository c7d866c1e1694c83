"""Does speech at another speed stay clear, natural and at its pitch?

The same recordings at each speed, heard by the ears of `mars5 eval` (`pip install '.[eval]'`): the
embedded default saying everyday sentences, and the LibriVox reader's recordings that
`mars5 eval --references librivox` uses. Prints a table; the last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
from statistics import mean, median

import numpy as np
import torch
from style_matrix import pitches

from mars5 import Mars5TTS
from mars5.audio import load_reference
from mars5.config import SAMPLE_RATE
from mars5.eval.artefacts import dnsmos
from mars5.eval.clips import to_judges
from mars5.eval.ears import Recogniser
from mars5.eval.lists import read_list
from mars5.eval.references import read_references
from mars5.eval.similarity import SpeakerJudge, similarity
from mars5.eval.text import word_errors, words_of
from mars5.tempo import retimed

Recordings = list[tuple[str, torch.Tensor]]


def spoken(n: int) -> Recordings:
    system = Mars5TTS.from_pretrained()
    return [(text, system.generate(text, seed=1).audio) for text in read_list("everyday")[:n]]


def read() -> Recordings:
    recordings = ((r.transcript, r.path) for r in read_references("librivox"))
    return [(text, load_reference(path)) for text, path in recordings if text is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20, help="of the list of everyday sentences")
    parser.add_argument(
        "--speeds", type=float, nargs="+", default=[0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2]
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    ears, judge = Recogniser("base", 1), SpeakerJudge()
    rows = []
    print(
        f"{'':8} {'speed':>5} {'words missed, %':>16} {'pitch, Hz':>10} {'DNSMOS':>7} {'alike':>6}"
    )
    for name, recordings in (("nano", spoken(args.texts)), ("reader", read())):
        plain = [judge.embed(to_judges(wave.numpy(), SAMPLE_RATE)) for _, wave in recordings]
        for speed in args.speeds:
            waves = [retimed(wave, speed).numpy() for _, wave in recordings]
            judged = [to_judges(wave, SAMPLE_RATE) for wave in waves]
            heard = ears.transcribe(judged)
            said = [words_of(text) for text, _ in recordings]
            wrong = sum(word_errors(a, words_of(b)) for a, b in zip(said, heard, strict=True))
            alike = [
                similarity(judge.embed(wave), one) or 0.0
                for wave, one in zip(judged, plain, strict=True)
                if one is not None
            ]
            row = {
                "of": name,
                "speed": speed,
                "word_error_rate": 100 * wrong / sum(map(len, said)),
                "pitch": median(float(np.median(pitches(wave, SAMPLE_RATE))) for wave in waves),
                "dnsmos": mean(score for wave in judged if (score := dnsmos(wave)) is not None),
                "alike": median(alike),
            }
            rows.append(row)
            figures = "{word_error_rate:16.1f} {pitch:10.0f} {dnsmos:7.2f} {alike:6.2f}"
            print(f"{name:8} {speed:5} {figures.format(**row)}", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
