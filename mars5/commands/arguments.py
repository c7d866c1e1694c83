"""What may be written on the command line, and the help that says so."""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial
from typing import Any

from mars5 import __version__
from mars5.config import STEP_PROFILES
from mars5.hub import NANO
from mars5.profiles import NAMES as PROFILE_NAMES

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
    _add_stream(commands)
    _add_batch(commands)
    voice = _command(commands, "voice", "check a recording; make, blend or show voice files")
    verbs = voice.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_voice_make(verbs)
    _add_voice_check(verbs)
    _add_voice_blend(verbs)
    _add_voice_show(verbs)
    _add_edit(commands)
    _add_styles(commands)
    _add_doctor(commands)
    _add_eval(commands)
    _add_bench(commands)
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
    say.add_argument("text", nargs="?", help="what to say; - reads standard input")
    say.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="say this text file, of any length; if killed, the same line goes on",
    )
    _add_reference(say)
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
    _add_verify(say)
    _add_no_normalise(say)
    _add_direction(say)
    _add_settings(say)
    say.set_defaults(command="say", refuse=say.error, model=None)  # None: that of the profile


def _add_stream(commands: Any) -> None:
    stream = _command(commands, "stream", "speak a text while it is being made")
    stream.add_argument(
        "text", help="what to say; - reads standard input, and speaks each sentence as it comes"
    )
    _add_reference(stream)
    stream.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"{', '.join(AUDIO_SUFFIXES)}; - writes WAV to standard output as it is made",
    )
    stream.add_argument("--raw", action="store_true", help="with -o -: 16-bit samples, no header")
    stream.add_argument("--play", action="store_true", help="play it (needs mars5[play])")
    _add_model_options(stream)
    stream.add_argument("--seed", type=int, help="repeat a result; default: a new one, reported")
    _add_no_normalise(stream)
    _add_direction(stream)
    _add_settings(stream)
    stream.set_defaults(command="stream", refuse=stream.error, model=None)


def _add_no_normalise(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-normalise",
        dest="normalise",
        action="store_false",
        help="leave numbers, dates and so on as they are written",
    )


def _add_direction(say: argparse.ArgumentParser) -> None:
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
        "--style-strength", type=_share, default=1.0, metavar="N", help="0 to 1; default: 1"
    )
    _add_banks(group)


def _add_banks(command: Any) -> None:
    command.add_argument(
        "--styles",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a style bank beside the shipped one; repeatable",
    )


def _add_styles(commands: Any) -> None:
    styles = _command(commands, "styles", "list the styles that instructions can choose")
    styles.add_argument("instructions", nargs="?", metavar="TEXT", help="show what they choose")
    _add_banks(styles)
    _add_json(styles)
    styles.set_defaults(command="styles")


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--verify",
        nargs="?",
        type=_positive,
        const=3,
        metavar="N",
        help="hear what was made and keep the best of up to N tries (default 3; needs mars5[eval])",
    )


def _add_edit(commands: Any) -> None:
    edit = _command(commands, "edit", "replace words inside a recording")
    edit.add_argument("recording", metavar="AUDIO", help="the recording, up to 29 seconds")
    edit.add_argument("--transcript", required=True, metavar="TEXT", help="what it says")
    edit.add_argument("--new", required=True, metavar="TEXT", help="what it shall say")
    edit.add_argument(
        "-o",
        "--output",
        default="edited.wav",
        metavar="FILE",
        help=f"{', '.join(AUDIO_SUFFIXES)}; default: edited.wav; an existing file is replaced",
    )
    _add_model_options(edit)
    edit.add_argument("--seed", type=int, help="repeat a result; default: a new one, reported")
    _add_verify(edit)
    _add_settings(edit)
    edit.set_defaults(command="edit", refuse=edit.error)


def _add_reference(command: argparse.ArgumentParser) -> None:
    voice = command.add_mutually_exclusive_group()
    voice.add_argument("--ref", metavar="AUDIO", help="clone the voice of this recording")
    voice.add_argument("--voice", metavar="FILE", help="speak with a file of 'mars5 voice make'")
    command.add_argument("--ref-text", metavar="TEXT", help="what --ref says: a deep, closer clone")


def _add_settings(command: argparse.ArgumentParser) -> None:
    settings = command.add_argument_group("settings", "start from those the model recommends")
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


def _add_batch(commands: Any) -> None:
    batch = _command(commands, "batch", "speak each line of a file into a file of its own")
    batch.add_argument("lines", metavar="FILE", help="one text a line, UTF-8; empty lines are none")
    batch.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="for 00001.wav and so on, named by line, and manifest.jsonl, which says what is in "
        "each; what an earlier run finished is not made again",
    )
    _add_reference(batch)
    _add_model_options(batch)
    batch.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="line L takes N + L; default: 0"
    )
    batch.add_argument(
        "--batch-size", type=_count, default=8, metavar="N", help="texts at a time; default: 8"
    )
    batch.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="only the I-th of N equal shares of the lines: one for each of N machines",
    )
    _add_settings(batch)
    batch.set_defaults(command="batch", refuse=batch.error)


def _shard(text: str) -> tuple[int, int]:
    share, slash, shares = text.partition("/")
    if not (slash and share.isdecimal() and shares.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected I/N, such as 1/4, got {text!r}")
    if not 1 <= int(share) <= int(shares):
        raise argparse.ArgumentTypeError(f"I must lie in 1..N, got {text!r}")
    return int(share), int(shares)


def _add_voice_make(verbs: Any) -> None:
    make = _command(verbs, "make", "prepare a recording once, as a voice file")
    make.add_argument(
        "ref",
        metavar="AUDIO",
        help="the recording; of more than 12 seconds the best 5 to 8 are picked",
    )
    make.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    said = make.add_mutually_exclusive_group()
    said.add_argument("--text", "--transcript", help="what the recording says: allows deep clones")
    said.add_argument(
        "--transcribe",
        action="store_true",
        help="hear what it says (English; needs mars5[eval])",
    )
    make.add_argument(
        "--no-pick",
        dest="pick",
        action="store_false",
        help="use the recording as it is, up to 60 seconds",
    )
    make.add_argument("--keep", metavar="FILE", help="also write the part that was used, as audio")
    _add_note(make)
    _add_json(make)
    _add_model_options(make)
    make.set_defaults(command="voice make")


def _add_voice_check(verbs: Any) -> None:
    check = _command(verbs, "check", "examine a recording as a reference; loads no model")
    check.add_argument("ref", metavar="AUDIO", help="the recording, up to 4 hours")
    _add_json(check)
    check.set_defaults(command="voice check")


def _add_voice_blend(verbs: Any) -> None:
    blend = _command(verbs, "blend", "mix voice files into a new voice, for shallow clones")
    blend.add_argument(
        "parts",
        nargs="+",
        type=_weighted,
        metavar="FILE[:WEIGHT]",
        help="a voice file and how much of it; weights count by their ratio; default: 1",
    )
    blend.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    _add_note(blend)
    blend.set_defaults(command="voice blend")


def _add_note(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--note",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="a fact to keep with the voice, such as source, licence or consent; repeatable",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="write the report as JSON")


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


def _add_eval(commands: Any) -> None:
    """Needs the extra `[eval]`; what the figures mean stands in docs/evaluation.md."""
    command = _command(commands, "eval", "score what is heard: words, speaker, artefacts, speed")
    command.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="a model, as for --model (default: nano); a folder of audio files named by line of "
        "the list; a manifest (.csv, .jsonl: text, path[, reference]); flite:VOICE, kokoro:VOICE",
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    command.add_argument(
        "--list",
        default="everyday",
        help="everyday (default), numbers_names_questions, paragraphs, hard, or a text file",
    )
    command.add_argument("--limit", type=_positive, metavar="N", help="the first N texts only")
    command.add_argument("--seeds", type=_count, nargs="+", default=[1, 2, 3], metavar="N")
    command.add_argument(
        "--asr",
        nargs="+",
        metavar="NAME",
        help="recognisers: base (default), tiny.en (quicker; default of --sweep)",
    )
    command.add_argument("--teacher", metavar="SOURCE", help="one more, that sets the durations")
    voices = command.add_mutually_exclusive_group()
    voices.add_argument(
        "--ref", action="append", default=[], metavar="AUDIO", help="clone it; repeatable"
    )
    voices.add_argument(
        "--references",
        metavar="NAME",
        help="clone these in turn: librivox (Debian's pocketsphinx-testdata), or a manifest "
        "(text, path[, speaker])",
    )
    command.add_argument(
        "--stream", action="store_true", help="hear what streaming gives, with its first sound"
    )
    command.add_argument(
        "--only-words", action="store_true", help="neither speaker similarity nor DNSMOS"
    )
    command.add_argument(
        "--dnsmos", type=_count, default=25, metavar="N", help="on N utterances of each seed"
    )
    command.add_argument("--show", type=_count, default=5, metavar="N", help="the N worst of each")
    command.add_argument("--threads", type=_positive, default=1, metavar="N", help="CPU threads")
    command.add_argument("--json", metavar="FILE", help="write everything")
    command.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    command.add_argument(
        "--sweep",
        metavar="FOLDER",
        help="search sampling settings of one model instead; a killed search continues",
    )
    _add_set(command)
    command.set_defaults(command="eval", refuse=command.error)


def _add_set(command: argparse.ArgumentParser) -> None:
    """Settings by name alone; `say` and its like have flags for the common ones, too."""
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=_named_setting,
        metavar="NAME=VALUE",
        help="any InferenceConfig setting; repeatable",
    )


def _add_bench(commands: Any) -> None:
    """What the figures mean stands in docs/performance.md."""
    bench = _command(commands, "bench", "measure speed and memory, stage by stage")
    bench.add_argument("model", nargs="?", metavar="MODEL", help="as for --model; default: nano")
    bench.add_argument(
        "--random", choices=("full", "nano"), help="random weights of these sizes instead"
    )
    bench.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    bench.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="default: float32 on a CPU, else float16",
    )
    bench.add_argument("--quantize", choices=("int8",), help="8-bit weights, on a CPU")
    bench.add_argument("--threads", type=_positive, metavar="N", help="CPU threads")
    bench.add_argument(
        "--profile",
        nargs="+",
        choices=tuple(STEP_PROFILES),
        default=list(STEP_PROFILES),
        help="numbers of diffusion steps; default: all",
    )
    bench.add_argument(
        "--seconds", type=float, default=5.0, metavar="N", help="of the utterance; default: 5"
    )
    clone = bench.add_mutually_exclusive_group()
    clone.add_argument("--deep", action="store_true", help="continue the reference")
    clone.add_argument(
        "--shallow", dest="deep", action="store_false", help="do not; this is the default"
    )
    bench.add_argument(
        "--tokens", type=_positive, default=48, metavar="N", help="AR ids timed; default: 48"
    )
    bench.add_argument(
        "--steps", type=_positive, default=4, metavar="N", help="NAR steps timed; default: 4"
    )
    bench.add_argument(
        "--repeats",
        type=_positive,
        default=3,
        metavar="N",
        help="of each measurement, after one to warm up; 1 leaves that out; default: 3",
    )
    bench.add_argument(
        "--rows", type=_positive, nargs="+", default=[], metavar="N", help="also N AR ids at once"
    )
    bench.add_argument(
        "--compare", choices=("naive",), help="also time the plain rules, for a ratio"
    )
    bench.add_argument("--json", metavar="FILE", help="also write the last line here")
    bench.add_argument("--plot", metavar="FILE", help="draw it (.png, .svg, .pdf; mars5[eval])")
    _add_set(bench)
    bench.set_defaults(command="bench", refuse=bench.error)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 up, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")


def _weighted(text: str) -> tuple[str, float]:
    """FILE:WEIGHT; a colon before what is no number is part of the path."""
    path, colon, weight = text.rpartition(":")
    with suppress(ValueError):
        if colon:
            return path, float(weight)
    return text, 1.0


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


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
