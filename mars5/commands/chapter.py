"""`mars5 say -f`: a text file of any length spoken into an audio file."""

from __future__ import annotations

import argparse

from mars5.commands.lines import shows_progress, tell
from mars5.commands.report import write_report
from mars5.commands.speaker import make_speaker, read_wishes
from mars5.longform.chapter import Chapter, read_text
from mars5.verify import Hearing, Verify, as_verify, describe

SHOWN = 10  # pieces that were not understood


def run(args: argparse.Namespace) -> int:
    """The command; the same line again goes on where a killed one stopped.

    Raises:
        Mars5Error: as in `Mars5TTS.speak_file`.
    """
    text = read_text(args.file)
    verify = None if args.verify is None else as_verify(Verify(tries=args.verify))
    speaker = make_speaker(args, read_wishes(args), text)
    chapter = speaker.model.speak_file(
        text,
        args.output,
        *speaker.given,
        seed=args.seed,
        progress=shows_progress(args),
        verify=verify or False,
        **speaker.directions,
    )
    write_report(args, speaker, chapter, chapter.seed)
    if not args.quiet:
        for line in [summary(chapter), *_heard_lines(chapter, verify), *speaker.remarks]:
            tell(line)
    return 0


def _heard_lines(chapter: Chapter, verify: Verify | None) -> list[str]:
    """What was heard of all pieces, and where to listen: the worst of those not understood."""
    if verify is None:
        return []
    heard = chapter.heard
    bad = [one for one in heard if one.word_error_rate > verify.max_word_error_rate]
    worst = sorted(bad, key=lambda one: one.word_error_rate, reverse=True)[:SHOWN]
    tries = sum(one.tries for one in heard)
    confidence = sum(one.confidence for one in heard) / len(heard)
    return [
        f"heard {len(heard)} pieces in {tries} tries: mean confidence {confidence:.2f}, "
        f"{len(bad)} not understood",
        *(f"{_place(one)}{describe(one)}" for one in worst),
    ]


def _place(hearing: Hearing) -> str:
    return f"at {hearing.words[0].start:.1f} s " if hearing.words else ""


def summary(chapter: Chapter) -> str:
    """What was done, for people."""
    reused = f", {chapter.reused} of them made before" if chapter.reused else ""
    cut = ", some cut off at the length limit" if chapter.finish_reason == "length" else ""
    return (
        f"{chapter.path}: {chapter.seconds:.1f} s of speech in {chapter.pieces} pieces{reused}, "
        f"seed {chapter.seed}{cut}"
    )
