"""Who speaks at the command line, and how: model, voice, settings, style."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mars5.commands import styles
from mars5.commands.checks import check_inputs
from mars5.commands.options import unused_transcript
from mars5.config import InferenceConfig
from mars5.text import read_lexicon

if TYPE_CHECKING:
    from mars5.tts import Mars5TTS
    from mars5.voice import Voice


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


def make_speaker(args: argparse.Namespace, text: str) -> Speaker:
    """Load what the line names, after all that can be refused without a model.

    Args:
        text: that will be spoken, for the profile "auto"; empty if it is not known yet.

    Raises:
        Mars5Error: as in `Mars5TTS.from_pretrained` and `Mars5TTS.generate`.
    """
    if args.ref_text is not None and args.ref is None:
        args.refuse("--ref-text goes with --ref")
    settings = dict(args.settings)
    InferenceConfig(**settings)  # what can be refused is refused before the long work
    check_inputs(args.ref, args.style)
    ref, has_transcript = _reference(args)
    style = styles.chosen_style(args)
    lexicon = None if args.lexicon is None else read_lexicon(args.lexicon)
    model = load_model(args)
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
    return Mars5TTS.from_pretrained(args.model, device=args.device, profile=profile)
