"""The command line: `mars5 say`, `mars5 voice make`, `mars5 doctor` and the others.

Only this module sets up logging. The commands import what they need when they run, so that `--help`
answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mars5.commands import styles, voice
from mars5.commands.arguments import build_parser
from mars5.commands.checks import (
    check_inputs,
    check_kept,
    check_line,
    check_output,
    check_report,
)
from mars5.commands.lines import print_fact, shows_progress, tell
from mars5.commands.options import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    STANDARD,
)
from mars5.commands.speaker import make_speaker, read_wishes
from mars5.commands.texts import whole_text
from mars5.errors import ConfigError, Mars5Error
from mars5.text import MAX_TEXT, check_speakable

if TYPE_CHECKING:
    from mars5.speech import Speech
    from mars5.verify import Verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        argv: the words after the program's name; None takes those of the process.

    Raises:
        SystemExit: from argparse: 2 for a bad command line, 0 for --help and --version.
    """
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:  # it is closed: Python has none then
                sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    if args.quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when it is imported
    with _readable_warnings(args.debug):
        try:
            return COMMANDS[args.command](args)
        except Mars5Error as error:
            if args.debug:
                traceback.print_exc()
            tell(f"error: {' '.join(str(error).split())}")
            return FAILED
        except KeyboardInterrupt:
            tell("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - the border of the program
            if args.debug:
                traceback.print_exc()
            reason = str(error).partition("\n")[0]
            tell(f"unexpected {type(error).__name__}: {reason}; --debug shows where")
            return FAILED


def _say(args: argparse.Namespace) -> int:
    if (args.text is None) == (args.file is None):
        args.refuse("give a text or -f FILE")
    if args.file is not None:
        from mars5.commands.chapter import run

        if args.output == STANDARD:
            args.refuse("-f needs a file for -o; 'mars5 stream - -o -' writes to a pipe")
        check_output(args, args.output)
        check_report(args)
        return run(args)
    check_line(args)
    check_report(args)
    from mars5.commands.report import write_report
    from mars5.seeds import fresh_seed

    text = check_speakable(whole_text(args.text), max_characters=MAX_TEXT)
    seed = fresh_seed() if args.seed is None else args.seed
    verify = _verify(args.verify)
    speaker = make_speaker(args, read_wishes(args), text)

    started = time.perf_counter()
    speech = speaker.model.generate(
        text, *speaker.given, seed=seed, progress=shows_progress(args), verify=verify,
        **speaker.directions,
    )  # fmt: skip
    taken = time.perf_counter() - started
    _write(args.output, speech)
    write_report(args, speaker, speech, seed)
    if not args.quiet:
        tell(_summary(args.output, speech, taken, seed))
        _tell_heard(speech)
        for line in speaker.remarks:
            tell(line)
    return 0


def _stream(args: argparse.Namespace) -> int:
    from mars5.commands.stream import run

    if args.output is not None:
        check_line(args)
    return run(args)


def _verify(tries: int | None) -> bool | Verify:
    if tries is None:
        return False
    from mars5.verify import Verify, as_verify

    return as_verify(Verify(tries=tries))


def _tell_heard(speech: Speech) -> None:
    if speech.heard:
        from mars5.verify import describe

        for hearing in speech.heard:
            tell(describe(hearing))


def _write(output: str, speech: Speech) -> None:
    from mars5.audio import to_wav_bytes, write_audio

    if output != STANDARD:
        write_audio(output, speech.audio)
        return
    try:
        sys.stdout.buffer.write(to_wav_bytes(speech.audio))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_stdout()
        raise ConfigError(f"cannot write to standard output: {error.strerror}") from error


def _summary(output: str, speech: Speech, taken: float, seed: int) -> str:
    seconds = len(speech.audio) / speech.sample_rate
    name = "standard output" if output == STANDARD else output
    cut = ", cut off at the length limit" if speech.finish_reason == "length" else ""
    return (
        f"{name}: {seconds:.2f} s of speech in {taken:.2f} s "
        f"(real-time factor {taken / seconds:.2f}), seed {seed}{cut}"
    )


def _doctor(args: argparse.Namespace) -> int:
    from mars5.commands.doctor import examine

    code = 0
    for fact in examine(args.model, args.device):
        print_fact(fact.name, fact.value)
        code = FAILED if fact.fatal else code
    return code


def _batch(args: argparse.Namespace) -> int:
    from mars5.commands.batch import run

    return run(args)


def _edit(args: argparse.Namespace) -> int:
    from mars5.commands.edit import run

    check_output(args, args.output)
    check_inputs(args.recording)
    return run(args)


def _styles(args: argparse.Namespace) -> int:
    return styles.list_styles(args)


def _eval(args: argparse.Namespace) -> int:
    from mars5.eval.command import run

    for flag, output in (("--json", args.json), ("--plot", args.plot)):
        if output is not None:
            check_kept(args, output, flag=flag)
    check_inputs(*args.ref)
    return run(args)


def _bench(args: argparse.Namespace) -> int:
    from mars5.bench.command import run

    if args.random is not None and args.model is not None:
        args.refuse("give a model or --random, not both")
    return run(args)


COMMANDS = {
    "say": _say,
    "stream": _stream,
    "batch": _batch,
    "voice make": voice.make,
    "voice check": voice.check,
    "voice blend": voice.blend,
    "voice show": voice.show,
    "styles": _styles,
    "doctor": _doctor,
    "edit": _edit,
    "eval": _eval,
    "bench": _bench,
}


@contextmanager
def _readable_warnings(debug: bool) -> Iterator[None]:
    """Warnings of this package as single lines; those of libraries, about code, under --debug."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("mars5: warning: %(message)s"))
    log = logging.getLogger("mars5")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        log.removeHandler(handler)


def _discard_stdout() -> None:
    """Spare the interpreter's own flush at exit a second failure."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
