"""`mars5 voice`: recordings examined, prepared as voice files, blended and shown."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mars5.commands.checks import check_output, check_voice_output
from mars5.commands.lines import print_fact, tell
from mars5.commands.options import FAILED
from mars5.commands.speaker import load_model

if TYPE_CHECKING:
    from mars5.voice import Voice


def make(args: argparse.Namespace) -> int:
    from mars5.reference.prepare import prepare_reference

    check_voice_output(args)
    if args.keep is not None:
        check_output(args, args.keep, "--keep")
    prepared = prepare_reference(args.ref, args.text, transcribe=args.transcribe, pick=args.pick)
    notes = {**prepared.provenance, **dict(args.note)}
    voice = load_model(args).voice(prepared.audio, prepared.transcript, provenance=notes)
    voice.save(args.output)
    if args.keep is not None:
        from mars5.audio import load_reference, write_audio

        write_audio(args.keep, load_reference(prepared.audio))
    if not args.quiet:
        tell(f"{args.output}: {len(voice.codes)} frames, {_cloning(voice)}")
        for line in prepared.lines():
            tell(line)
    if args.json:
        print(json.dumps({"voice": args.output, **prepared.to_json()}))
    return 0


def check(args: argparse.Namespace) -> int:
    from mars5.reference.report import examine

    report = examine(args.ref)
    print(json.dumps(report.to_json()) if args.json else report)
    return FAILED if report.verdict == "poor" else 0


def blend(args: argparse.Namespace) -> int:
    from mars5.voice import Voice

    check_voice_output(args)
    voice = Voice.blend([(Voice.load(path), weight) for path, weight in args.parts])
    files = {f"{i}.file": Path(path).name for i, (path, _) in enumerate(args.parts, 1)}
    notes = {**voice.provenance, **files, **dict(args.note)}
    replace(voice, provenance=notes).save(args.output)
    if not args.quiet:
        tell(f"{args.output}: {voice.provenance['blend']}, {_cloning(voice)}")
    return 0


def show(args: argparse.Namespace) -> int:
    from mars5.voice import Voice

    voice = Voice.load(args.file)
    if voice.is_blend:
        print_fact("kind", "a blend of voices, without a recording")
    print_fact("frames", len(voice.codes))
    if voice.frame_rate is not None and not voice.is_blend:
        print_fact("seconds", f"{len(voice.codes) / voice.frame_rate:.2f}")
    print_fact("transcript", "none" if voice.transcript is None else repr(voice.transcript))
    print_fact("allows", _cloning(voice))
    print_fact("codec", voice.codec)
    print_fact("checkpoint", voice.checkpoint)
    for key, value in voice.provenance.items():
        print_fact("note", f"{key}={value}")
    return 0


def _cloning(voice: Voice) -> str:
    return "shallow clones only" if voice.transcript is None else "deep and shallow clones"
