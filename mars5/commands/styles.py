"""`mars5 styles`, and what the commands that speak are told about profile and style."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mars5.profiles import Profile, resolve_profile

if TYPE_CHECKING:
    from mars5.styles import Style, StyleBank, StyleChoice


def list_styles(args: argparse.Namespace) -> int:
    """Print the styles of a bank, or the one that words choose."""
    bank = _bank(args.styles)
    found = bank.styles
    if args.instructions is not None:
        choice = bank.choose(args.instructions)
        found = (choice.style,)
    for style in found:
        facts = {"name": style.name, "caption": style.caption, "licence": style.licence}
        print(json.dumps(facts) if args.json else f"{style.name:<12} {style.caption}")
    if args.instructions is not None and not args.json:
        print(choice.reason)
    return 0


def chosen_style(args: argparse.Namespace) -> Style | StyleChoice | None:
    """The style of `--style` or `--instructions`; refuses a line that contradicts itself."""
    from mars5.styles import VOICE_SUFFIXES, Style
    from mars5.voice import Voice

    if args.style_text is not None and args.style is None:
        args.refuse("--style-text goes with --style")
    if args.styles and args.instructions is None:
        args.refuse("--styles goes with --instructions")
    if args.style_strength != 1 and args.style is None and args.instructions is None:
        args.refuse("--style-strength goes with --style or --instructions")
    if args.instructions is not None:
        return _bank(args.styles).choose(args.instructions)
    if args.style is None:
        return None
    path = Path(args.style)
    text = args.style_text
    if text is None and path.suffix in VOICE_SUFFIXES:
        text = Voice.load(path).transcript
    return Style(path.name, path, "", "", text)


def continues(style: Style | StyleChoice | None, strength: float) -> bool:
    """Whether the AR continues the style's clip in a deep clone (`Voice.delivery`)."""
    from mars5.styles import StyleChoice
    from mars5.voice import PROMPT_STRENGTH

    clip = style.style if isinstance(style, StyleChoice) else style
    whole = clip is not None and clip.plain is None and strength >= PROMPT_STRENGTH
    return whole and clip is not None and clip.text is not None


def profile_of(
    args: argparse.Namespace, device: str, text: str, has_transcript: bool
) -> Profile | None:
    """The profile of `--profile`, "auto" decided by the type of the device and the rest."""
    if args.profile is None:
        return None
    directed = args.style is not None or args.instructions is not None
    return resolve_profile(
        args.profile, device, characters=len(text), transcript=has_transcript,
        live=args.command == "stream", directed=directed,
    )  # fmt: skip


def tell(style: Style | StyleChoice | None, profile: Profile | None) -> list[str]:
    """Lines on what was chosen, and why."""
    from mars5.styles import StyleChoice

    lines = [] if profile is None else [f"profile {profile.name}: {profile.reason}"]
    if isinstance(style, StyleChoice):
        lines.append(f"style {style.style.name}: {style.reason}")
    return lines


def _bank(folders: list[str]) -> StyleBank:
    from mars5.styles import SHIPPED, StyleBank

    return StyleBank(SHIPPED, *folders)
