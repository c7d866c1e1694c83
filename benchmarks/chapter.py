"""Does a long text stay clear, and memory flat? Word errors and memory, minute by minute.

The list `paragraphs`, spoken over and over by `narrate`; samples go to a file, so that memory is
the library's own. Whisper (`pip install '.[eval]'`) hears the pieces once all are spoken. Prints a
table; the last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from mars5 import Mars5TTS
from mars5.eval.clips import to_judges
from mars5.eval.ears import Recogniser
from mars5.eval.lists import read_list
from mars5.eval.text import word_errors, words_of
from mars5.hub import NANO

MIB = 2**20


@dataclass
class Minute:
    """What was spoken and missed in one minute, and the memory at its end in MiB."""

    pieces: int = 0
    words: int = 0
    errors: int = 0
    memory: int = 0


def resident() -> int:
    """MiB that this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--asr", default="base")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Mars5TTS.from_pretrained(args.model, device="cpu")
    minutes = [Minute() for _ in range(args.minutes)]
    spoken: list[tuple[int, str, int]] = []
    samples = 0
    with tempfile.TemporaryFile() as file:
        paragraphs = (f"{text}\n\n" for text in cycle(read_list("paragraphs")))
        for passage in model.narrate(paragraphs, seed=args.seed):
            minute = samples // (60 * model.sr)
            if minute >= args.minutes:
                break
            spoken.append((minute, passage.piece.text, len(passage.audio)))
            file.write(passage.audio.numpy().tobytes())
            samples += len(passage.audio)
            minutes[minute].pieces += 1
            minutes[minute].memory = resident()
        file.seek(0)
        ears = Recogniser(args.asr, 1)
        for place, text, length in spoken:
            wave = np.frombuffer(file.read(4 * length), np.float32)
            said = words_of(text)
            heard = words_of(ears.transcribe([to_judges(wave, model.sr)])[0])
            minutes[place].words += len(said)
            minutes[place].errors += word_errors(said, heard)
    print("minute  pieces  words  missed, %  memory, MiB")
    for number, m in enumerate(minutes, 1):
        missed = 100 * m.errors / max(1, m.words)
        print(f"{number:6} {m.pieces:7} {m.words:6} {missed:10.1f} {m.memory:12}")
    print(json.dumps([vars(minute) for minute in minutes]))


if __name__ == "__main__":
    main()
