"""What the commands refuse before the long work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mars5.commands.options import AUDIO_SUFFIXES, STANDARD
from mars5.errors import ConfigError

REPORT_SUFFIX = ".json"

# Where a line names files to be read, whatever the command.
_INPUTS = ("ref", "voice", "style", "file", "lexicon", "recording", "times", "lines", "sources",
           "list", "references")  # fmt: skip


def check_line(args: argparse.Namespace) -> None:
    """Refuse an output that cannot be written, or would replace an input."""
    if args.output == STANDARD and (sys.stdout is None or sys.stdout.isatty()):
        args.refuse("-o - writes audio: send standard output to a file or a pipe")
    check_output(args, args.output, pipe=True)


def check_output(
    args: argparse.Namespace, output: str, flag: str = "-o", *, pipe: bool = False
) -> None:
    """Refuse, before the work, a file that no audio could be written to, or that is an input.

    Args:
        output: the file.
        flag: what it was given to.
        pipe: whether - writes to standard output.
    """
    if pipe and output == STANDARD:
        return
    if not _names_audio(output):
        ends = f"{flag} is {output!r}, but must end in one of {', '.join(AUDIO_SUFFIXES)}"
        raise ConfigError(f"{ends}, or be -" if pipe else ends)
    _check_place(args, output, flag)


def check_report(args: argparse.Namespace) -> None:
    """Refuse a `--json FILE` that cannot be meant, such as the name of the text or the audio."""
    if args.json == STANDARD and args.output == STANDARD:
        args.refuse("-o - and --json - would both write to standard output: name a file for one")
    if args.json in (None, STANDARD):
        return
    if Path(args.json).suffix.lower() != REPORT_SUFFIX:
        raise ConfigError(f"--json is {args.json!r}, but must end in {REPORT_SUFFIX}, or be -")
    _check_place(args, args.json, "--json")


def check_voice_output(args: argparse.Namespace) -> None:
    """Refuse what can only be a slip, such as the name of the recording itself."""
    output = args.output
    if output == STANDARD or _names_audio(output):
        raise ConfigError(
            f"-o is {output!r}, but the name of a voice file ends in .voice or .safetensors"
        )
    _check_place(args, output, "-o")


def _names_audio(output: str) -> bool:
    return Path(output).suffix.lower() in AUDIO_SUFFIXES


def _check_place(args: argparse.Namespace, output: str, flag: str) -> None:
    target = Path(output)
    if target.is_dir():
        raise ConfigError(f"{flag} is {output!r}, which is a folder: name a file in it")
    if target.exists() and not target.is_file():
        raise ConfigError(
            f"{flag} is {output!r}, which is a device or a pipe: name a file, or write to standard "
            "output with - where that is offered"
        )
    if not target.parent.is_dir():
        raise ConfigError(f"{flag} is {output!r}, but there is no folder {target.parent}: make it")
    check_kept(args, output, flag=flag)


def check_kept(
    args: argparse.Namespace, *outputs: str | os.PathLike[str], flag: str = "-o"
) -> None:
    """Refuse outputs that are files which the line names to be read, by whatever name or link.

    Raises:
        ConfigError: one is.
        StyleError: a style bank cannot be read.
    """
    read = {_identity(path): path for path in _inputs(args)}
    for output in outputs:
        one = _identity(output)
        if one is not None and one in read:
            raise ConfigError(
                f"{flag} would replace {os.fspath(output)!r}, which is also read, as "
                f"{read[one]!r}: name another place"
            )


def _inputs(args: argparse.Namespace) -> Iterator[str]:
    for name in _INPUTS:
        named = getattr(args, name, None)
        yield from [named] if isinstance(named, str) else named or []
    yield from (path for path, _ in getattr(args, "parts", []))
    if getattr(args, "instructions", None) is not None:  # without, no bank is read
        for folder in args.styles:
            yield from _bank_files(folder)


def _bank_files(folder: str) -> Iterator[str]:
    """The manifest of a style bank, and its clips."""
    from mars5.styles import MANIFEST, StyleBank

    yield os.fspath(Path(folder, MANIFEST))
    yield from (os.fspath(style.path) for style in StyleBank(folder).styles)


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """What a file has but once, whatever its names; None where there is no file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a zero byte in it
        return None
    return status.st_dev, status.st_ino


def check_inputs(*paths: str | None) -> None:
    """Refuse, before a model is loaded, files that are not there or cannot be read."""
    from mars5.audio_files import open_regular

    for path in paths:
        if path is not None:
            with open_regular(Path(path)):
                pass
