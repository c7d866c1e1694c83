"""Word errors and seconds of `generate` with and without `verify`, judged by another recogniser.

python benchmarks/verified.py --list hard --limit 10 --tries 3
"""

from __future__ import annotations

import argparse
import time

import torch

from mars5 import Mars5TTS
from mars5.eval.clips import to_judges
from mars5.eval.lists import read_list
from mars5.eval.text import word_errors, words_of
from mars5.hub import NANO
from mars5.verify import Verify, recogniser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--list", default="hard")
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--asr", default="tiny.en", help="selects")
    parser.add_argument("--judge", default="base", help="counts the errors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Mars5TTS.from_pretrained(args.model, device="cpu")
    judge = recogniser(args.judge)
    recogniser(args.asr)
    words, errors, seconds, tries = 0, [0, 0], [0.0, 0.0], 0
    for text in read_list(args.list)[: args.limit]:
        said = words_of(text)
        words += len(said)
        for place, verify in enumerate((False, Verify(args.tries, asr=args.asr))):
            started = time.process_time()
            speech = model.generate(text, seed=args.seed, verify=verify)
            seconds[place] += time.process_time() - started
            heard = judge.transcribe([to_judges(speech.audio.numpy(), speech.sample_rate)])[0]
            errors[place] += word_errors(said, words_of(heard))
            for hearing in speech.heard:
                tries += hearing.tries
                print(f"{hearing.tries} tries, {hearing.confidence:.2f}: {text} -> {heard}")
    for place, name in enumerate(("without", "with")):
        rate = errors[place] / words
        print(f"{name} verify: word error rate {rate:.1%} of {words}, {seconds[place]:.1f} s")
    print(f"{tries} tries, {seconds[1] / seconds[0]:.2f} times the seconds")


if __name__ == "__main__":
    main()
