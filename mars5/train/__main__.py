"""The recipe at a shell: `python -m mars5.train STEP --work FOLDER`."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from mars5.errors import Mars5Error
from mars5.train.recipe import EVERYDAY, Workshop

STEPS = {
    "corpus": "synthesise speech with the local teacher flite",
    "codec": "fit the codec to it",
    "tokens": "encode it, and train the text tokenizer",
    "vocoder": "train the vocoder",
    "ar": "train the AR",
    "nar": "train the NAR",
    "export": "write the checkpoint folder",
    "hear": "word error rates of a checkpoint folder, by Whisper",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        "python -m mars5.train",
        description="Train the embedded checkpoint. Every step continues where it was killed.",
    )
    steps = top.add_subparsers(dest="step", required=True)
    for name, purpose in STEPS.items():
        step = steps.add_parser(name, help=purpose, description=purpose)
        step.add_argument("--work", type=Path, default=Path("work"), help="working folder")
        step.add_argument("--seed", type=int, default=1)
        step.add_argument("--threads", type=int, help="CPU threads for torch")
        if name == "corpus":
            step.add_argument("--shards", type=int, default=80, help="of 250 utterances, 10 min")
            step.add_argument("--workers", type=int, default=2, help="teachers at a time")
        if name in ("vocoder", "ar", "nar"):
            step.add_argument("--minutes", type=float, required=True, help="training time in all")
            step.add_argument("--device", default="cpu")
        if name in ("export", "hear"):
            step.add_argument("--to", type=Path, default=Path("mars5/nano"), help="checkpoint")
        if name == "hear":
            step.add_argument("--sentences", type=Path, default=EVERYDAY, help="one on each line")
            step.add_argument("--report", type=Path, help="also write every sentence as JSON")
    return top


def main(arguments: list[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    try:
        run_step(chosen)
    except Mars5Error as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def run_step(chosen: argparse.Namespace) -> None:
    chosen.work.mkdir(parents=True, exist_ok=True)
    shop = Workshop(chosen.work, getattr(chosen, "device", "cpu"), chosen.seed)
    if chosen.step == "corpus":
        shop.corpus(chosen.shards, chosen.workers)
    elif chosen.step in ("codec", "tokens"):
        getattr(shop, chosen.step)()
    elif chosen.step in ("vocoder", "ar", "nar"):
        getattr(shop, chosen.step)(chosen.minutes)
    elif chosen.step == "export":
        from mars5.train.export import export

        export(shop, chosen.to)
    else:
        _hear(chosen)


def _hear(chosen: argparse.Namespace) -> None:
    from mars5.train.export import VOICE_TEACHER
    from mars5.train.hear import Ear, error_rate, hear_checkpoint
    from mars5.tts import Mars5TTS

    system = Mars5TTS.from_pretrained(chosen.to, device="cpu")
    sentences = chosen.sentences.read_text(encoding="utf-8").splitlines()
    results = hear_checkpoint(system, sentences, Ear(), VOICE_TEACHER, chosen.seed)
    lines = [f"{row:12} {error_rate(heard):6.1f} %" for row, heard in results.items()]
    lines += [f"  {h.errors:2} of {h.words:2}  {h.said} | {h.heard}" for h in results["checkpoint"]]
    sys.stdout.write("\n".join(lines) + "\n")
    if chosen.report is not None:
        rows = {row: [asdict(h) for h in heard] for row, heard in results.items()}
        chosen.report.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
