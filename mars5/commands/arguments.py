"""What may be written on the command line, and the help that says so."""

from __future__ import annotations

import argparse
from typing import Any

from mars5 import __version__
from mars5.commands.measuring import add_bench, add_doctor, add_eval
from mars5.commands.options import (
    AUDIO_SUFFIXES,
    EPILOG,
    add_banks,
    add_direction,
    add_global_options,
    add_json,
    add_lexicon,
    add_model_options,
    add_no_normalise,
    add_note,
    add_reference,
    add_settings,
    add_verify,
    new_command,
)
from mars5.commands.values import batch_size, seed, shard, weighted


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
    add_global_options(parser, False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_say(commands)
    _add_stream(commands)
    _add_batch(commands)
    voice = new_command(commands, "voice", "check a recording; make, blend or show voice files")
    verbs = voice.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_voice_make(verbs)
    _add_voice_check(verbs)
    _add_voice_blend(verbs)
    _add_voice_show(verbs)
    _add_edit(commands)
    _add_styles(commands)
    add_doctor(commands)
    add_eval(commands)
    add_bench(commands)
    return parser


def _add_say(commands: Any) -> None:
    say = new_command(commands, "say", "speak a text into an audio file")
    say.add_argument("text", nargs="?", help="what to say; - reads standard input")
    say.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="say this text file, of any length; if killed, the same line goes on",
    )
    add_reference(say)
    say.add_argument(
        "-o",
        "--output",
        default="speech.wav",
        metavar="FILE",
        help=f"{', '.join(AUDIO_SUFFIXES)}; - writes WAV to standard output; default: speech.wav; "
        "an existing file is replaced",
    )
    add_model_options(say)
    say.add_argument("--seed", type=seed, help="repeat a result; default: a new one, reported")
    add_verify(say)
    say.add_argument(
        "--json",
        metavar="FILE",
        help="also write what was spoken when, and what --verify heard; - is standard output",
    )
    add_no_normalise(say)
    add_lexicon(say)
    add_direction(say)
    add_settings(say)
    say.set_defaults(command="say", refuse=say.error, model=None)  # None: that of the profile


def _add_stream(commands: Any) -> None:
    stream = new_command(commands, "stream", "speak a text while it is being made")
    stream.add_argument(
        "text", help="what to say; - reads standard input, and speaks each sentence as it comes"
    )
    add_reference(stream)
    stream.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"{', '.join(AUDIO_SUFFIXES)}; - writes WAV to standard output as it is made",
    )
    stream.add_argument("--raw", action="store_true", help="with -o -: 16-bit samples, no header")
    stream.add_argument("--play", action="store_true", help="play it (needs mars5[play])")
    add_model_options(stream)
    stream.add_argument("--seed", type=seed, help="repeat a result; default: a new one, reported")
    add_no_normalise(stream)
    add_lexicon(stream)
    add_direction(stream)
    add_settings(stream)
    stream.set_defaults(command="stream", refuse=stream.error, model=None)


def _add_styles(commands: Any) -> None:
    styles = new_command(commands, "styles", "list the styles that instructions can choose")
    styles.add_argument("instructions", nargs="?", metavar="TEXT", help="show what they choose")
    add_banks(styles)
    add_json(styles)
    styles.set_defaults(command="styles")


def _add_edit(commands: Any) -> None:
    edit = new_command(commands, "edit", "replace words inside a recording")
    edit.add_argument(
        "recording", metavar="AUDIO", help="the recording, up to 29 seconds; or a voice file"
    )
    edit.add_argument("--transcript", required=True, metavar="TEXT", help="what it says")
    edit.add_argument("--new", required=True, metavar="TEXT", help="what it shall say")
    edit.add_argument(
        "--times",
        metavar="FILE",
        help="when each word of --transcript is said: a JSON list of [start, end] in seconds; "
        "default: hear it (needs mars5[eval])",
    )
    edit.add_argument(
        "-o",
        "--output",
        default="edited.wav",
        metavar="FILE",
        help=f"{', '.join(AUDIO_SUFFIXES)}; default: edited.wav; an existing file is replaced",
    )
    add_model_options(edit)
    edit.add_argument("--seed", type=seed, help="repeat a result; default: a new one, reported")
    add_verify(edit)
    add_no_normalise(edit)
    add_lexicon(edit)
    add_settings(edit, edits=True)  # an edit goes on from the recording
    edit.set_defaults(command="edit", refuse=edit.error)


def _add_batch(commands: Any) -> None:
    batch = new_command(commands, "batch", "speak each line of a file into a file of its own")
    batch.add_argument("lines", metavar="FILE", help="one text a line, UTF-8; empty lines are none")
    batch.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="for 00001.wav and so on, named by line, and manifest.jsonl, which says what is in "
        "each; what an earlier run finished is not made again",
    )
    add_reference(batch)
    add_model_options(batch)
    batch.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="line L takes N + L; default: 0"
    )
    batch.add_argument(
        "--batch-size", type=batch_size, default=8, metavar="N", help="texts at a time; default: 8"
    )
    batch.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="only the I-th of N equal shares of the lines: one for each of N machines",
    )
    add_no_normalise(batch)
    add_lexicon(batch)
    add_direction(batch)
    add_settings(batch)
    batch.set_defaults(command="batch", refuse=batch.error, model=None)


def _add_voice_make(verbs: Any) -> None:
    make = new_command(verbs, "make", "prepare a recording once, as a voice file")
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
    add_note(make)
    add_json(make)
    add_model_options(make)
    make.set_defaults(command="voice make")


def _add_voice_check(verbs: Any) -> None:
    check = new_command(verbs, "check", "examine a recording as a reference; loads no model")
    check.add_argument("ref", metavar="AUDIO", help="the recording, up to 4 hours")
    add_json(check)
    check.set_defaults(command="voice check")


def _add_voice_blend(verbs: Any) -> None:
    blend = new_command(verbs, "blend", "mix voice files into a new voice, for shallow clones")
    blend.add_argument(
        "parts",
        nargs="+",
        type=weighted,
        metavar="FILE[:WEIGHT]",
        help="a voice file and how much of it; weights count by their ratio; default: 1",
    )
    blend.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    add_note(blend)
    blend.set_defaults(command="voice blend")


def _add_voice_show(verbs: Any) -> None:
    show = new_command(verbs, "show", "show what a voice file holds")
    show.add_argument("file", metavar="FILE")
    show.set_defaults(command="voice show")
