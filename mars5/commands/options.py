"""Options that several commands have, and what all say of their exit codes."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from mars5.commands.values import (
    named_setting,
    pair,
    positive,
    setting,
    share,
)
from mars5.config import InferenceConfig
from mars5.hub import NANO
from mars5.profiles import NAMES as PROFILE_NAMES

FAILED, SOME_FAILED, INTERRUPTED, BROKEN_PIPE = 1, 3, 130, 141  # argparse itself exits with 2
STANDARD = "-"  # standard input or output
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
DTYPES = ("float32", "bfloat16", "float16")  # those of mars5.device, which would import torch

EPILOG = f"""\
exit codes:
  0    done
  {FAILED}    failed; one line on standard error says why and what to do
  2    the command line was not understood
  {SOME_FAILED}    a batch is done, but for lines that failed
  {INTERRUPTED}  interrupted from the keyboard
  {BROKEN_PIPE}  the reader of standard output went away
"""

# flag, InferenceConfig field, help
_SETTING_FLAGS = (
    (
        "--temperature",
        "temperature",
        "randomness of the coarse codes; 0 always takes the likeliest",
    ),
    ("--top-k", "top_k", "sample from the K likeliest codes only; 0 takes all"),
    ("--top-p", "top_p", "sample from the likeliest codes up to this probability; 1 takes all"),
    ("--steps", "timesteps", "diffusion steps: more are slower and better"),
    ("--guidance", "nar_guidance_w", "guidance weight of the diffusion; 1 turns it off"),
)
_SPEED_FLAG = ("--speed", "speed", "0.5 to 2 times as fast, at the same pitch")


def new_command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # SUPPRESS: a command that was not given the option leaves what stood before the command.
    add_global_options(parser, argparse.SUPPRESS)
    return parser


def add_global_options(parser: argparse.ArgumentParser, default: Any) -> None:
    for flag, text in (
        ("--quiet", "no progress bars and no summary; warnings and errors stay"),
        ("--debug", "show where in the program an error came from, and all warnings"),
    ):
        parser.add_argument(flag, action="store_true", default=default, help=text)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_precision(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=NANO,
        help="'nano' (inside this package; the default), a folder, or a hub repository owner/name",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32 on a CPU, else float16")
    parser.add_argument(
        "--quantize", choices=("int8",), help="8-bit weights, on a CPU: faster, less memory"
    )


def add_reference(command: argparse.ArgumentParser) -> None:
    voice = command.add_mutually_exclusive_group()
    voice.add_argument("--ref", metavar="AUDIO", help="clone the voice of this recording")
    voice.add_argument("--voice", metavar="FILE", help="speak with a file of 'mars5 voice make'")
    command.add_argument("--ref-text", metavar="TEXT", help="what --ref says: allows a deep clone")


def unused_transcript(args: argparse.Namespace, cfg: InferenceConfig) -> list[str]:
    """A line to say so if the transcript of `--ref-text` changes nothing, and nobody wished that.

    Args:
        cfg: the settings that the line came to.
    """
    asked = "deep_clone" in dict(args.settings)
    if args.ref_text is None or cfg.deep_clone or asked:
        return []
    return ["the transcript is not used: shallow clones are recommended here; --deep uses it"]


def add_settings(command: argparse.ArgumentParser, *, edits: bool = False) -> None:
    """Flags of the common settings; `edits`: without those that an edit has no use for."""
    settings = command.add_argument_group("settings", "start from those the model recommends")
    if not edits:
        _add_depth(settings.add_mutually_exclusive_group())
    append = partial(settings.add_argument, dest="settings", action="append", default=[])
    for flag, name, text in (*_SETTING_FLAGS, *(() if edits else (_SPEED_FLAG,))):
        append(flag, metavar="N", type=partial(setting, name), help=text)
    append("--set", metavar="NAME=VALUE", type=named_setting, help="any InferenceConfig setting")


def _add_depth(group: Any) -> None:
    for flag, deep, text in (
        ("--deep", True, "continue the reference, whose transcript must be known"),
        ("--shallow", False, "copy the voice alone, even where a deep clone would be possible"),
    ):
        setting = ("deep_clone", deep)
        group.add_argument(
            flag, dest="settings", action="append_const", default=[], const=setting, help=text
        )


def add_set(command: argparse.ArgumentParser) -> None:
    """Settings by name alone; `say` and its like have flags for the common ones, too."""
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=named_setting,
        metavar="NAME=VALUE",
        help="any InferenceConfig setting; repeatable",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="write the report as JSON")


def add_note(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--note",
        action="append",
        default=[],
        type=pair,
        metavar="KEY=VALUE",
        help="a fact to keep with the voice, such as source, licence or consent; repeatable",
    )


def add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--verify",
        nargs="?",
        type=positive,
        const=3,
        metavar="N",
        help="hear what was made and keep the best of up to N tries (default 3; needs mars5[eval])",
    )


def add_no_normalise(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-normalise",
        dest="normalise",
        action="store_false",
        help="leave numbers, dates and so on as they are written",
    )


def add_lexicon(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lexicon",
        metavar="FILE",
        help="how words are said: lines such as 'nginx = engine x', in UTF-8 (docs/text.md)",
    )


def add_banks(command: Any) -> None:
    command.add_argument(
        "--styles",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a style bank beside the shipped one; repeatable",
    )


def add_direction(say: argparse.ArgumentParser) -> None:
    group = say.add_argument_group("profile and style", "see docs/profiles.md and docs/styles.md")
    group.add_argument(
        "--profile",
        choices=PROFILE_NAMES,
        help="settings for a use, and the checkpoint if --model names none",
    )
    style = group.add_mutually_exclusive_group()
    style.add_argument("--style", metavar="FILE", help="speak like this recording or voice file")
    style.add_argument(
        "--instructions", metavar="TEXT", help="speak like this, such as 'warm and reassuring'"
    )
    group.add_argument("--style-text", metavar="TEXT", help="what --style says")
    group.add_argument(
        "--style-strength", type=share, default=1.0, metavar="N", help="0 to 1; default: 1"
    )
    add_banks(group)
