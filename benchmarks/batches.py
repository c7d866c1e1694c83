"""How much faster are many texts at once? `tts_batch` with batches of several sizes.

The same everyday sentences with the same seeds each time, so that the speech is the same. Prints a
table of the best of `--repeats` runs; the last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from mars5 import Mars5TTS
from mars5.eval.lists import read_list
from mars5.hub import NANO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Mars5TTS.from_pretrained(args.model, device=args.device)
    texts = read_list("everyday")[: args.texts]
    model.tts_batch(texts[:2], seeds=1)
    rows = []
    print("batch size   speech, s   seconds   s of speech per s   times batch 1")
    for size in args.sizes:
        best = speech = 0.0
        for _ in range(args.repeats):
            started = time.perf_counter()
            made = model.tts_batch(texts, seeds=1, batch_size=size)
            took = time.perf_counter() - started
            speech = sum(len(one.audio) for one in made) / model.sr
            best = max(best, speech / took)
        rows.append({"batch_size": size, "speech": speech, "speech_per_second": best})
        ratio = best / rows[0]["speech_per_second"]
        print(
            f"{size:10} {speech:11.1f} {speech / best:9.1f} {best:19.2f} {ratio:15.2f}", flush=True
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
