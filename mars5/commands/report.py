"""`mars5 say --json`: what was spoken, when, and what was heard of it, for programs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mars5.commands.options import STANDARD
from mars5.commands.speaker import Speaker
from mars5.files import write_text
from mars5.longform.chapter import Chapter
from mars5.profiles import Profile
from mars5.speech import Speech
from mars5.styles import StyleChoice


def write_report(
    args: argparse.Namespace, speaker: Speaker, made: Speech | Chapter, seed: int
) -> None:
    """Write the report where `--json` says, if it was given; it is one line.

    Raises:
        ConfigError: the file cannot be written.
    """
    if args.json is None:
        return
    line = json.dumps(report(args.output, speaker, made, seed))
    if args.json == STANDARD:
        print(line)
    else:
        write_text(Path(args.json), line + "\n")


def report(output: str, speaker: Speaker, made: Speech | Chapter, seed: int) -> dict[str, Any]:
    """What was made, as JSON takes it; times are seconds of the audio."""
    rate = speaker.model.sr
    if isinstance(made, Chapter):
        seconds, pieces = made.seconds, made.spoken
    else:
        seconds, pieces = len(made.audio) / rate, made.pieces
    return {
        "output": output,
        "seed": seed,
        "sample_rate": rate,
        "seconds": round(seconds, 3),
        "finish_reason": made.finish_reason,
        "profile": _profile(speaker.profile),
        "style": _style(speaker.directions),
        "pieces": [
            {
                "text": piece.text,
                "start": round(piece.start / rate, 3),
                "stop": round(piece.stop / rate, 3),
                "finish_reason": piece.finish_reason,
            }
            for piece in pieces
        ],
        "heard": [asdict(hearing) for hearing in made.heard],
    }


def _profile(profile: Profile | None) -> dict[str, str] | None:
    return None if profile is None else {"name": profile.name, "reason": profile.reason}


def _style(directions: dict[str, Any]) -> dict[str, Any] | None:
    style = directions["style"]
    if style is None:
        return None
    chosen = isinstance(style, StyleChoice)
    clip = style.style if chosen else style
    facts = {"name": clip.name, "file": str(clip.path), "strength": directions["style_strength"]}
    return {**facts, "score": style.score, "reason": style.reason} if chosen else facts
