"""`mars5 stream`: a text spoken while it is being made, into a file, a pipe or a loudspeaker."""

from __future__ import annotations

import argparse
import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

from mars5.audio_writer import Write, audio_file, raw_stream, wav_stream
from mars5.commands.lines import tell
from mars5.commands.options import STANDARD
from mars5.commands.speaker import make_speaker, read_wishes
from mars5.errors import Mars5Error, TextError
from mars5.seeds import fresh_seed
from mars5.speech import Speech
from mars5.streaming.asynchronous import read_ahead
from mars5.streaming.playing import loudspeaker

_MOST_BYTES = 2**13  # of standard input at a time; less is taken as soon as it is there


def run(args: argparse.Namespace) -> int:
    """The command. After an error, what was spoken until then is kept.

    Raises:
        Mars5Error: as in `Mars5TTS.stream`.
    """
    if not args.play and args.output is None:
        args.refuse("give --play, -o FILE or both")
    if args.raw and args.output != STANDARD:
        args.refuse("--raw goes with -o -")
    seed = fresh_seed() if args.seed is None else args.seed
    known = "" if args.text == STANDARD else args.text
    speaker = make_speaker(args, read_wishes(args), known)
    text = typed() if args.text == STANDARD else args.text
    stream = speaker.model.stream(text, *speaker.given, seed=seed, **speaker.directions)
    failure: Mars5Error | None = None
    with ExitStack() as outputs, stream:
        writers = [outputs.enter_context(loudspeaker())] if args.play else []
        writers += [_writer(args, outputs)] if args.output is not None else []
        try:
            for chunk in read_ahead(stream):
                for write in writers:
                    write(chunk.audio)
        except Mars5Error as error:
            if stream.first_sound_seconds is None:
                raise
            failure = error
        if stream.first_sound_seconds is None:  # raised in here, it leaves an existing file alone
            raise TextError("nothing to say: standard input held no text; write some to it")
    if not args.quiet:
        for line in [summary(stream.speech, seed), *speaker.remarks]:
            tell(line)
    if failure is not None:
        raise failure
    return 0


def summary(speech: Speech, seed: int) -> str:
    """What was done, for people."""
    seconds = len(speech.audio) / speech.sample_rate
    cut = ", cut off at the length limit" if speech.finish_reason == "length" else ""
    first = speech.first_sound_seconds or 0.0
    return f"{seconds:.2f} s of speech, the first sound after {first:.2f} s, seed {seed}{cut}"


def _writer(args: argparse.Namespace, outputs: ExitStack) -> Write:
    if args.output != STANDARD:
        return outputs.enter_context(audio_file(args.output))
    return raw_stream(sys.stdout.buffer) if args.raw else wav_stream(sys.stdout.buffer)


def typed() -> Iterator[str]:
    """Standard input as it comes: a program that writes text a word at a time ends no lines."""
    decode = codecs.getincrementaldecoder(sys.stdin.encoding)()
    decoder = io.IncrementalNewlineDecoder(decode, translate=True)  # as sys.stdin itself
    pipe = cast(io.BufferedReader, sys.stdin.buffer)
    try:
        while data := pipe.read1(_MOST_BYTES):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise TextError(f"standard input is not {error.encoding} text: {error.reason}") from error
