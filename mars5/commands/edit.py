"""`mars5 edit`: words replaced inside a recording."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from mars5.audio import write_audio
from mars5.commands.lines import tell
from mars5.commands.speaker import load_model
from mars5.config import InferenceConfig
from mars5.editing import Edited
from mars5.errors import ConfigError
from mars5.seeds import fresh_seed
from mars5.styles import VOICE_SUFFIXES
from mars5.text import read_lexicon, rewriter
from mars5.transcripts import Times, changes, check_times
from mars5.verify import Verify, describe
from mars5.voice import Voice


def run(args: argparse.Namespace) -> int:
    """The command; what can be refused is refused before a model is loaded.

    Raises:
        Mars5Error: as in `Mars5TTS.edit`.
    """
    settings = dict(args.settings)
    InferenceConfig(**settings)
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    changes(args.transcript, args.new, rewriter(lexicon, args.normalise))
    times = None if args.times is None else _times(args.times, args.transcript)
    recording = args.recording
    if Path(recording).suffix in VOICE_SUFFIXES:
        recording = Voice.load(recording)
    verify = False if args.verify is None else Verify(tries=args.verify)
    seed = fresh_seed() if args.seed is None else args.seed
    model = load_model(args)
    cfg = replace(model.default_config, **settings)
    started = time.perf_counter()
    edited = model.edit(
        recording, args.transcript, args.new, cfg, times=times, seed=seed, verify=verify,
        normalise=args.normalise, lexicon=lexicon,
    )  # fmt: skip
    taken = time.perf_counter() - started
    write_audio(args.output, edited.audio)
    if not args.quiet:
        for line in lines(args.output, edited, taken, seed):
            tell(line)
    return 0


def _times(path: str, transcript: str) -> Times:
    """The times of the words of `transcript`, from a JSON file.

    Raises:
        ConfigError: the file cannot be read, or is no list with a pair of seconds for each word.
    """
    try:
        times: Times = json.loads(Path(path).read_text(encoding="utf-8-sig"), parse_int=float)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"cannot read the times in {path} as a JSON list of [start, end] in seconds: {error}"
        ) from error
    try:
        check_times(times, transcript)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return times


def lines(output: str, edited: Edited, taken: float, seed: int) -> list[str]:
    """What was done, for people."""
    seconds = len(edited.audio) / edited.sample_rate
    cut = ", new words cut off at their limit" if edited.finish_reason == "length" else ""
    told = [f"{output}: {seconds:.2f} s of speech in {taken:.2f} s, seed {seed}{cut}"]
    for span in edited.spans:
        start, end = (frame / edited.frame_rate for frame in span.frames)
        told.append(f"{start:.2f} to {end:.2f} s: {span.old!r} -> {span.new!r}")
    return [*told, *map(describe, edited.heard)]
