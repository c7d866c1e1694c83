"""What may be written on the command line, and the help that says so."""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial
from typing import Any

from mars5 import __version__
from mars5.hub import NANO

FAILED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141  # argparse itself exits with 2
STANDARD = "-"  # standard input or output
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

EPILOG = f"""\
exit codes:
  0    done
  {FAILED}    failed; one line on standard error says why and what to do
  2    the command line was not understood
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


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole line.

    What it returns names the command in `command`, and holds in `settings` a list of
    (InferenceConfig field, value), in the order given.
    """
    parser = argparse.ArgumentParser(
        prog="mars5",
        description="Text-to-speech that clones a voice from a few seconds of audio.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mars5 {__version__}")
    _add_global_options(parser, False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_say(commands)
    voice = _command(commands, "voice", "make or show a voice file")
    verbs = voice.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_voice_make(verbs)
    _add_voice_show(verbs)
    _add_doctor(commands)
    return parser


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # SUPPRESS: a command that was not given the option leaves what stood before the command.
    _add_global_options(parser, argparse.SUPPRESS)
    return parser


def _add_global_options(parser: argparse.ArgumentParser, default: Any) -> None:
    for flag, text in (
        ("--quiet", "no progress bars and no summary; warnings and errors stay"),
        ("--debug", "show where in the program an error came from, and all warnings"),
    ):
        parser.add_argument(flag, action="store_true", default=default, help=text)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=NANO,
        help="'nano' (inside this package; the default), a folder, or a hub repository owner/name",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")


def _add_say(commands: Any) -> None:
    say = _command(commands, "say", "speak a text into an audio file")
    say.add_argument("text", help="what to say; - reads standard input")
    voice = say.add_mutually_exclusive_group()
    voice.add_argument("--ref", metavar="AUDIO", help="clone the voice of this recording")
    voice.add_argument("--voice", metavar="FILE", help="speak with a file of 'mars5 voice make'")
    say.add_argument("--ref-text", metavar="TEXT", help="what --ref says: a deep, closer clone")
    say.add_argument(
        "-o",
        "--output",
        default="speech.wav",
        metavar="FILE",
        help=f"{', '.join(AUDIO_SUFFIXES)}; - writes WAV to standard output; default: speech.wav; "
        "an existing file is replaced",
    )
    _add_model_options(say)
    say.add_argument("--seed", type=int, help="repeat a result; default: a new one, reported")
    settings = say.add_argument_group("settings", "start from those the model recommends")
    settings.add_argument(
        "--shallow",
        dest="settings",
        action="append_const",
        default=[],
        const=("deep_clone", False),
        help="copy the voice alone, even where the transcript would allow a deep clone",
    )
    append = partial(settings.add_argument, dest="settings", action="append", default=[])
    for flag, name, text in _SETTING_FLAGS:
        append(flag, metavar="N", type=partial(_setting, name), help=text)
    append("--set", metavar="NAME=VALUE", type=_named_setting, help="any InferenceConfig setting")
    say.set_defaults(command="say", refuse=say.error)


def _add_voice_make(verbs: Any) -> None:
    make = _command(verbs, "make", "prepare a recording once, as a voice file")
    make.add_argument("ref", metavar="AUDIO", help="the recording, best 2 to 12 seconds")
    make.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    make.add_argument("--text", help="what the recording says: allows deep clones")
    make.add_argument(
        "--note",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="a fact to keep with the voice, such as source, licence or consent; repeatable",
    )
    _add_model_options(make)
    make.set_defaults(command="voice make")


def _add_voice_show(verbs: Any) -> None:
    show = _command(verbs, "show", "show what a voice file holds")
    show.add_argument("file", metavar="FILE")
    show.set_defaults(command="voice show")


def _add_doctor(commands: Any) -> None:
    doctor = _command(
        commands, "doctor", "report whether the model can be loaded here; downloads nothing"
    )
    _add_model_options(doctor)
    doctor.set_defaults(command="doctor")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _named_setting(text: str) -> tuple[str, Any]:
    return _setting(*_pair(text))


def _setting(name: str, text: str) -> tuple[str, Any]:
    """A setting and its value; what is no truth value or number stays text, to be refused."""
    if text.lower() in ("true", "false"):
        return name, text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return name, kind(text)
    return name, text
