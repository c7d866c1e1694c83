"""`mars5 stream`: a text spoken while it is being made, into a file, a pipe or a loudspeaker."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from mars5.audio_writer import Write, audio_file, raw_stream, wav_stream
from mars5.commands.lines import tell
from mars5.commands.options import STANDARD
from mars5.commands.speaker import make_speaker, read_wishes
from mars5.commands.texts import text_as_it_comes
from mars5.errors import Mars5Error, TextError
from mars5.seeds import fresh_seed
from mars5.speech import Speech
from mars5.streaming.asynchronous import read_ahead
from mars5.streaming.playing import loudspeaker


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
    text = text_as_it_comes(args.text)
    known = text if isinstance(text, str) else ""
    speaker = make_speaker(args, read_wishes(args), known)
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
