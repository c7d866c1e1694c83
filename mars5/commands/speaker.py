"""Who speaks at the command line, and how: model, voice, settings, style."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mars5.commands import styles
from mars5.commands.checks import check_inputs
from mars5.commands.options import unused_transcript
from mars5.config import InferenceConfig
from mars5.text import read_lexicon

if TYPE_CHECKING:
    from mars5.profiles import Profile
    from mars5.styles import Style, StyleChoice
    from mars5.tts import Mars5TTS
    from mars5.voice import Voice


@dataclass(frozen=True)
class Wishes:
    """What a line names, read and checked before a model is loaded.

    Attributes:
        ref: what to clone; None for the model's own voice.
        has_transcript: what `ref` says is known.
        settings: those that replace the model's or the profile's.
    """

    ref: str | Voice | None
    has_transcript: bool
    style: Style | StyleChoice | None
    lexicon: Mapping[str, str] | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Speaker:
    """Who speaks, and how.

    Attributes:
        given: voice, transcript and settings, as `generate`, `stream` and `speak_file` take them.
        directions: keywords of the same.
        profile: whose settings they are, if it is a profile's.
        remarks: lines on what was chosen, and why.
    """

    model: Mars5TTS
    given: tuple[str | Voice | None, str | None, InferenceConfig]
    directions: dict[str, Any]
    profile: Profile | None
    remarks: list[str]


def read_wishes(args: argparse.Namespace) -> Wishes:
    """Read what the line names, and refuse all that can be refused without a model.

    Raises:
        Mars5Error: a file cannot be used, a setting is out of its range, no style is as described.
    """
    if args.ref_text is not None and args.ref is None:
        args.refuse("--ref-text goes with --ref")
    settings = dict(args.settings)
    InferenceConfig(**settings)
    check_inputs(args.ref, args.style)
    ref, has_transcript = _reference(args)
    style = styles.chosen_style(args)
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    return Wishes(ref, has_transcript, style, lexicon, settings)


def make_speaker(args: argparse.Namespace, wishes: Wishes, text: str) -> Speaker:
    """Load the model, and make of it and the wishes what speaks.

    Args:
        text: that will be spoken, for the profile "auto"; empty if it is not known yet.

    Raises:
        Mars5Error: as in `Mars5TTS.from_pretrained`.
    """
    style, has_transcript = wishes.style, wishes.has_transcript
    model = load_model(args)
    if wishes.ref is None and model.default_voice is not None:
        has_transcript = model.default_voice.transcript is not None
    profile = styles.profile_of(args, model.device.type, text, has_transcript)
    cfg = model.default_config if profile is None else profile.config(model.config)
    has_transcript = has_transcript or styles.continues(style, args.style_strength)
    cfg = replace(cfg.for_reference(has_transcript), **wishes.settings)
    directions = {
        "style": style,
        "style_strength": args.style_strength,
        "normalise": args.normalise,
        "lexicon": wishes.lexicon,
    }
    remarks = [*styles.tell(style, profile), *unused_transcript(args, cfg)]
    return Speaker(model, (wishes.ref, args.ref_text, cfg), directions, profile, remarks)


def _reference(args: argparse.Namespace) -> tuple[str | Voice | None, bool]:
    """What to clone, and whether its transcript is known."""
    if args.voice is None:
        return args.ref, args.ref_text is not None
    from mars5.voice import Voice

    voice = Voice.load(args.voice)
    return voice, voice.transcript is not None


def load_model(args: argparse.Namespace) -> Mars5TTS:
    """The model of `--model`, or of `--profile`; errors as in `Mars5TTS.from_pretrained`."""
    from mars5.tts import Mars5TTS

    profile = getattr(args, "profile", None)
    return Mars5TTS.from_pretrained(
        args.model, device=args.device, profile=profile, **precision(args)
    )


def precision(args: argparse.Namespace) -> dict[str, Any]:
    """`--dtype` and `--quantize` as keywords of `Mars5TTS.from_pretrained`."""
    import torch

    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    return {"dtype": dtype, "quantize": args.quantize}
