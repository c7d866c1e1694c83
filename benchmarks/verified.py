"""Word errors and seconds of `generate` with and without `verify`, judged by another recogniser.

    python benchmarks/verified.py --list hard --seeds 1 2

Prints a table; the last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
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
    parser.add_argument("--limit", type=int, help="texts of the list; default: all")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--asr", default="tiny.en", help="selects")
    parser.add_argument("--judge", default="base", help="counts the errors")
    parser.add_argument("--show", action="store_true", help="print what was heard")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Mars5TTS.from_pretrained(args.model, device="cpu")
    judge, texts = recogniser(args.judge), read_list(args.list)[: args.limit]
    recogniser(args.asr)  # loaded before the clock runs
    rows = []
    print("seed   words   missed, %: without   with   seconds: without   with   tries")
    for seed in args.seeds:
        words, errors, seconds, tries = 0, [0, 0], [0.0, 0.0], 0
        for text in texts:
            said = words_of(text)
            words += len(said)
            for place, verify in enumerate((False, Verify(args.tries, asr=args.asr))):
                started = time.process_time()
                speech = model.generate(text, seed=seed, verify=verify)
                seconds[place] += time.process_time() - started
                heard = judge.transcribe([to_judges(speech.audio.numpy(), speech.sample_rate)])[0]
                errors[place] += word_errors(said, words_of(heard))
                tries += sum(hearing.tries for hearing in speech.heard)
                if args.show:
                    print(f"{'with' if verify else 'without'}: {text} -> {heard}")
        missed = [100 * count / words for count in errors]
        rows.append(
            {"seed": seed, "words": words, "missed": missed, "seconds": seconds, "tries": tries}
        )
        print(
            f"{seed:4} {words:7} {missed[0]:19.1f} {missed[1]:6.1f} {seconds[0]:18.1f} "
            f"{seconds[1]:6.1f} {tries:7}",
            flush=True,
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
