"""`mars5 edit`: words replaced inside a recording."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from mars5.audio import write_audio
from mars5.commands.lines import tell
from mars5.commands.speaker import load_model
from mars5.config import InferenceConfig
from mars5.editing import Edited
from mars5.seeds import fresh_seed
from mars5.transcripts import changes
from mars5.verify import Verify, describe


def run(args: argparse.Namespace) -> int:
    """The command; what can be refused is refused before a model is loaded.

    Raises:
        Mars5Error: as in `Mars5TTS.edit`.
    """
    settings = dict(args.settings)
    InferenceConfig(**settings)
    changes(args.transcript, args.new)
    verify = False if args.verify is None else Verify(tries=args.verify)
    seed = fresh_seed() if args.seed is None else args.seed
    model = load_model(args)
    cfg = replace(model.default_config, **settings)
    started = time.perf_counter()
    edited = model.edit(args.recording, args.transcript, args.new, cfg, seed=seed, verify=verify)
    taken = time.perf_counter() - started
    write_audio(args.output, edited.audio)
    if not args.quiet:
        for line in lines(args.output, edited, taken, seed):
            tell(line)
    return 0


def lines(output: str, edited: Edited, taken: float, seed: int) -> list[str]:
    """What was done, for people."""
    seconds = len(edited.audio) / edited.sample_rate
    cut = ", new words cut off at their limit" if edited.finish_reason == "length" else ""
    told = [f"{output}: {seconds:.2f} s of speech in {taken:.2f} s, seed {seed}{cut}"]
    for span in edited.spans:
        start, end = (frame / edited.frame_rate for frame in span.frames)
        told.append(f"{start:.2f} to {end:.2f} s: {span.old!r} -> {span.new!r}")
    return [*told, *map(describe, edited.heard)]
