"""The command line: `mars5 say`, `mars5 voice make`, `mars5 doctor` and the others.

Only this module sets up logging. The commands import what they need when they run, so that `--help`
answers at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mars5.commands import styles
from mars5.commands.arguments import build_parser
from mars5.commands.options import (
    AUDIO_SUFFIXES,
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    STANDARD,
    unused_transcript,
)
from mars5.config import InferenceConfig
from mars5.errors import ConfigError, Mars5Error, TextError
from mars5.text import MAX_TEXT, check_speakable, read_lexicon

if TYPE_CHECKING:
    from mars5.speech import Speech
    from mars5.tts import Mars5TTS
    from mars5.verify import Verify
    from mars5.voice import Voice


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
            _tell(f"error: {' '.join(str(error).split())}")
            return FAILED
        except KeyboardInterrupt:
            _tell("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - the border of the program
            if args.debug:
                traceback.print_exc()
            reason = str(error).partition("\n")[0]
            _tell(f"unexpected {type(error).__name__}: {reason}; --debug shows where")
            return FAILED


def _say(args: argparse.Namespace) -> int:
    if (args.text is None) == (args.file is None):
        args.refuse("give a text or -f FILE")
    if args.file is not None:
        from mars5.longform.command import run

        if args.output == STANDARD:
            args.refuse("-f needs a file for -o; 'mars5 stream - -o -' writes to a pipe")
        _check_output(args.output)
        return run(args, _speaker)
    from mars5.seeds import fresh_seed

    _check_line(args)
    text = check_speakable(_read_text(args.text), max_characters=MAX_TEXT)
    seed = fresh_seed() if args.seed is None else args.seed
    verify = _verify(args.verify)
    speaker = _speaker(args, text)

    started = time.perf_counter()
    speech = speaker.model.generate(
        text, *speaker.given, seed=seed, progress=_shows_progress(args), verify=verify,
        **speaker.directions,
    )  # fmt: skip
    taken = time.perf_counter() - started
    _write(args.output, speech)
    if not args.quiet:
        _tell(_summary(args.output, speech, taken, seed))
        _tell_heard(speech)
        for line in speaker.remarks:
            _tell(line)
    return 0


def _stream(args: argparse.Namespace) -> int:
    from mars5.streaming.command import run

    if args.output is not None:
        _check_line(args)
    return run(args, _speaker)


def _check_line(args: argparse.Namespace) -> None:
    """Refuse an output that cannot be written."""
    if args.output == STANDARD and sys.stdout.isatty():
        args.refuse("-o - writes audio: send standard output to a file or a pipe")
    _check_output(args.output, pipe=True)


def _shows_progress(args: argparse.Namespace) -> bool:
    return not args.quiet and sys.stderr.isatty()


@dataclass(frozen=True)
class Speaker:
    """Who speaks, and how.

    Attributes:
        given: voice, transcript and settings, as `generate`, `stream` and `speak_file` take them.
        directions: keywords of the same.
        remarks: lines on what was chosen, and why.
    """

    model: Mars5TTS
    given: tuple[str | Voice | None, str | None, InferenceConfig]
    directions: dict[str, Any]
    remarks: list[str]


def _speaker(args: argparse.Namespace, text: str) -> Speaker:
    if args.ref_text is not None and args.ref is None:
        args.refuse("--ref-text goes with --ref")
    settings = dict(args.settings)
    InferenceConfig(**settings)  # what can be refused is refused before the long work
    _check_inputs(args.ref, args.style)
    ref, has_transcript = _reference(args)
    style = styles.chosen_style(args)
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    model = _load(args)
    if ref is None and model.default_voice is not None:
        has_transcript = model.default_voice.transcript is not None
    profile = styles.profile_of(args, model, text, has_transcript)
    cfg = model.default_config if profile is None else profile.config(model.config)
    has_transcript = has_transcript or styles.continues(style, args.style_strength)
    cfg = replace(cfg.for_reference(has_transcript), **settings)
    directions = {
        "style": style,
        "style_strength": args.style_strength,
        "normalise": args.normalise,
        "lexicon": lexicon,
    }
    remarks = [*styles.tell(style, profile), *unused_transcript(args, cfg)]
    return Speaker(model, (ref, args.ref_text, cfg), directions, remarks)


def _verify(tries: int | None) -> bool | Verify:
    if tries is None:
        return False
    from mars5.verify import Verify, as_verify

    return as_verify(Verify(tries=tries))


def _tell_heard(speech: Speech) -> None:
    if speech.heard:
        from mars5.verify import describe

        for hearing in speech.heard:
            _tell(describe(hearing))


def _read_text(text: str) -> str:
    if text != STANDARD:
        return text
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise TextError(f"standard input is not {error.encoding} text: {error.reason}") from error


def _check_output(output: str, flag: str = "-o", *, pipe: bool = False) -> None:
    """Refuse, before the work, a file that no audio could be written to.

    Args:
        flag: what it was given to.
        pipe: whether - writes to standard output.
    """
    if pipe and output == STANDARD:
        return
    if not _names_audio(output):
        ends = f"{flag} is {output!r}, but must end in one of {', '.join(AUDIO_SUFFIXES)}"
        raise ConfigError(f"{ends}, or be -" if pipe else ends)
    _check_place(output, flag)


def _check_voice_output(output: str) -> None:
    """Refuse what can only be a slip, such as the name of the recording itself."""
    if output == STANDARD or _names_audio(output):
        raise ConfigError(
            f"-o is {output!r}, but the name of a voice file ends in .voice or .safetensors"
        )
    _check_place(output, "-o")


def _names_audio(output: str) -> bool:
    return Path(output).suffix.lower() in AUDIO_SUFFIXES


def _check_place(output: str, flag: str) -> None:
    target = Path(output)
    if target.is_dir():
        raise ConfigError(f"{flag} is {output!r}, which is a folder: name a file in it")
    if not target.parent.is_dir():
        raise ConfigError(f"{flag} is {output!r}, but there is no folder {target.parent}: make it")


def _check_inputs(*paths: str | None) -> None:
    """Refuse, before a model is loaded, files that are not there or cannot be read."""
    from mars5.audio_files import open_regular

    for path in paths:
        if path is not None:
            with open_regular(Path(path)):
                pass


def _reference(args: argparse.Namespace) -> tuple[str | Voice | None, bool]:
    """What to clone, and whether its transcript is known."""
    if args.voice is None:
        return args.ref, args.ref_text is not None
    from mars5.voice import Voice

    voice = Voice.load(args.voice)
    return voice, voice.transcript is not None


def _load(args: argparse.Namespace) -> Mars5TTS:
    from mars5.tts import Mars5TTS

    profile = getattr(args, "profile", None)
    return Mars5TTS.from_pretrained(args.model, device=args.device, profile=profile)


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


def _voice_make(args: argparse.Namespace) -> int:
    from mars5.reference.prepare import prepare_reference

    _check_voice_output(args.output)
    if args.keep is not None:
        _check_output(args.keep, "--keep")
    prepared = prepare_reference(args.ref, args.text, transcribe=args.transcribe, pick=args.pick)
    notes = {**prepared.provenance, **dict(args.note)}
    voice = _load(args).voice(prepared.audio, prepared.transcript, provenance=notes)
    voice.save(args.output)
    if args.keep is not None:
        from mars5.audio import load_reference, write_audio

        write_audio(args.keep, load_reference(prepared.audio))
    if not args.quiet:
        _tell(f"{args.output}: {len(voice.codes)} frames, {_cloning(voice)}")
        for line in prepared.lines():
            _tell(line)
    if args.json:
        print(json.dumps({"voice": args.output, **prepared.to_json()}))
    return 0


def _voice_check(args: argparse.Namespace) -> int:
    from mars5.reference.report import examine

    report = examine(args.ref)
    print(json.dumps(report.to_json()) if args.json else report)
    return FAILED if report.verdict == "poor" else 0


def _voice_blend(args: argparse.Namespace) -> int:
    from mars5.voice import Voice

    _check_voice_output(args.output)
    blend = Voice.blend([(Voice.load(path), weight) for path, weight in args.parts])
    files = {f"{i}.file": Path(path).name for i, (path, _) in enumerate(args.parts, 1)}
    notes = {**blend.provenance, **files, **dict(args.note)}
    replace(blend, provenance=notes).save(args.output)
    if not args.quiet:
        _tell(f"{args.output}: {blend.provenance['blend']}, {_cloning(blend)}")
    return 0


def _voice_show(args: argparse.Namespace) -> int:
    from mars5.voice import Voice

    voice = Voice.load(args.file)
    if voice.is_blend:
        _print_fact("kind", "a blend of voices, without a recording")
    _print_fact("frames", len(voice.codes))
    if voice.frame_rate is not None and not voice.is_blend:
        _print_fact("seconds", f"{len(voice.codes) / voice.frame_rate:.2f}")
    _print_fact("transcript", "none" if voice.transcript is None else repr(voice.transcript))
    _print_fact("allows", _cloning(voice))
    _print_fact("codec", voice.codec)
    _print_fact("checkpoint", voice.checkpoint)
    for key, value in voice.provenance.items():
        _print_fact("note", f"{key}={value}")
    return 0


def _cloning(voice: Voice) -> str:
    return "shallow clones only" if voice.transcript is None else "deep and shallow clones"


def _doctor(args: argparse.Namespace) -> int:
    from mars5.commands.doctor import examine

    code = 0
    for fact in examine(args.model, args.device):
        _print_fact(fact.name, fact.value)
        code = FAILED if fact.fatal else code
    return code


def _batch(args: argparse.Namespace) -> int:
    from mars5.commands.batch import run

    if args.ref_text is not None and args.ref is None:
        args.refuse("--ref-text goes with --ref")
    _check_inputs(args.ref)
    return run(args)


def _edit(args: argparse.Namespace) -> int:
    from mars5.commands.edit import run

    _check_output(args.output)
    _check_inputs(args.recording)
    return run(args)


def _styles(args: argparse.Namespace) -> int:
    return styles.list_styles(args)


def _eval(args: argparse.Namespace) -> int:
    from mars5.eval.command import run

    _check_inputs(*args.ref)
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
    "voice make": _voice_make,
    "voice check": _voice_check,
    "voice blend": _voice_blend,
    "voice show": _voice_show,
    "styles": _styles,
    "doctor": _doctor,
    "edit": _edit,
    "eval": _eval,
    "bench": _bench,
}


def _print_fact(name: str, value: object) -> None:
    print(f"{name:<15} {value}")


def _tell(message: str) -> None:
    print(f"mars5: {message}", file=sys.stderr)


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
