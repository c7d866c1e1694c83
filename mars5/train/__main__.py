"""The recipe at a shell: `python -m mars5.train STEP --work FOLDER`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from mars5.errors import Mars5Error
from mars5.train.recipe import SIZES, Workshop
from mars5.train.teachers import CASTS

STEPS = {
    "corpus": "synthesise speech with local teachers",
    "codec": "fit the codec to it",
    "finer": "or take another working folder's codec and fit its finer books to it",
    "tokens": "encode it, and train the text tokenizer",
    "delivery": "encode other voices once more, upon the coarse codes of the default voice",
    "transfer": "start from the weights of another working folder, whatever its codec",
    "adopt": "start from the weights of a checkpoint",
    "vocoder": "train the vocoder",
    "ar": "train the AR",
    "nar": "train the NAR",
    "lent": "train AR and NAR, half of the time each, and write their pieces: for a lent machine",
    "average": "mix a training's weights with those that it started from",
    "pieces": "write the AR's and the NAR's weights as files of at most 15 MB",
    "join": "take such pieces up as the latest state",
    "export": "write the checkpoint folder",
    "pairs": "move a checkpoint's own voice into other registers, for the transposer to learn",
    "transposer": "train the transposer",
    "styles": "record the shipped style bank, which serves every checkpoint",
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
            step.add_argument("--cast", choices=list(CASTS), required=True, help="who speaks")
            step.add_argument(
                "--shards", type=int, default=80, help="of 2.5 min (kokoro) or 10 min"
            )
        if name in ("corpus", "delivery"):
            step.add_argument("--workers", type=int, default=2, help="teachers at a time")
        if name in ("adopt", "ar", "nar", "lent", "transfer", "pieces", "join", "export"):
            step.add_argument("--size", choices=list(SIZES), default="small")
        if name in ("lent", "pieces", "join"):
            step.add_argument("--pieces", type=Path, required=True, help="folder of the pieces")
        if name == "average":
            step.add_argument("--of", choices=("ar", "nar"), required=True, help="which model")
            step.add_argument("--share", type=float, required=True, help="of the new weights")
        if name in ("finer", "transfer", "average"):
            step.add_argument("--source", type=Path, required=True, help="that working folder")
        if name in ("vocoder", "ar", "nar", "lent", "transposer"):
            step.add_argument("--minutes", type=float, required=True, help="training time in all")
            step.add_argument("--device", default="cpu")
        if name in ("adopt", "pairs"):
            step.add_argument("--checkpoint", type=Path, default=Path("mars5/nano"))
        if name == "pairs":
            step.add_argument("--device", default="cpu")
        if name == "export":
            step.add_argument("--to", type=Path, default=Path("mars5/nano"), help="checkpoint")
        if name == "styles":
            step.add_argument("--to", type=Path, default=Path("mars5/style_bank"), help="folder")
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
    if chosen.step == "styles":
        from mars5.train.styles import make_bank

        make_bank(chosen.to)
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    shop = Workshop(
        chosen.work, getattr(chosen, "device", "cpu"), chosen.seed, getattr(chosen, "size", "small")
    )
    if chosen.step == "corpus":
        shop.corpus(chosen.cast, chosen.shards, chosen.workers)
    elif chosen.step == "delivery":
        shop.delivery(chosen.workers)
    elif chosen.step in ("codec", "tokens"):
        getattr(shop, chosen.step)()
    elif chosen.step in ("finer", "transfer"):
        getattr(shop, chosen.step)(chosen.source)
    elif chosen.step == "average":
        shop.average(chosen.source, chosen.of, chosen.share)
    elif chosen.step == "lent":
        shop.ar(chosen.minutes / 2)
        shop.nar(chosen.minutes / 2)
        shop.pieces(chosen.pieces)
    elif chosen.step in ("pieces", "join"):
        getattr(shop, chosen.step)(chosen.pieces)
    elif chosen.step in ("adopt", "pairs"):
        getattr(shop, chosen.step)(chosen.checkpoint)
    elif chosen.step in ("vocoder", "ar", "nar", "transposer"):
        getattr(shop, chosen.step)(chosen.minutes)
    else:
        from mars5.train.export import export

        export(shop, chosen.to)


if __name__ == "__main__":
    sys.exit(main())
