"""`mars5 say -f`: a text file of any length spoken into an audio file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mars5.audio import file_format
from mars5.longform.chapter import Chapter, read_text

if TYPE_CHECKING:
    from mars5.cli import Speaker


def run(
    args: argparse.Namespace, make_speaker: Callable[[argparse.Namespace, str], Speaker]
) -> int:
    """The command; the same line again goes on where a killed one stopped.

    Raises:
        Mars5Error: as in `Mars5TTS.speak_file`.
    """
    if args.verify is not None:
        args.refuse("--verify goes with a text, not with -f")
    if args.output == "-":
        args.refuse("-f needs a file for -o; 'mars5 stream - -o -' writes to a pipe")
    file_format(Path(args.output).suffix.lower())  # what can be refused is refused first
    text = read_text(args.file)
    speaker = make_speaker(args, text)
    chapter = speaker.model.speak_file(
        text,
        args.output,
        *speaker.given,
        seed=args.seed,
        progress=not args.quiet and sys.stderr.isatty(),
        **speaker.directions,
    )
    if not args.quiet:
        for line in [summary(chapter), *speaker.remarks]:
            print(f"mars5: {line}", file=sys.stderr)
    return 0


def summary(chapter: Chapter) -> str:
    """What was done, for people."""
    reused = f", {chapter.reused} of them made before" if chapter.reused else ""
    cut = ", some cut off at the length limit" if chapter.finish_reason == "length" else ""
    return (
        f"{chapter.path}: {chapter.seconds:.1f} s of speech in {chapter.pieces} pieces{reused}, "
        f"seed {chapter.seed}{cut}"
    )
