"""What may be written after the commands that measure: `doctor`, `eval` and `bench`."""

from __future__ import annotations

from typing import Any

from mars5.commands.options import (
    add_device,
    add_model,
    add_precision,
    add_set,
    new_command,
)
from mars5.commands.values import (
    count,
    positive,
    seed,
)
from mars5.config import STEP_PROFILES


def add_doctor(commands: Any) -> None:
    doctor = new_command(
        commands, "doctor", "report whether the model can be loaded here; downloads nothing"
    )
    add_model(doctor)
    doctor.set_defaults(command="doctor")


def add_eval(commands: Any) -> None:
    """Needs the extra `[eval]`; what the figures mean stands in docs/evaluation.md."""
    command = new_command(commands, "eval", "score what is heard: words, speaker, artefacts, speed")
    command.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="a model, as for --model (default: nano); a folder of audio files named by line of "
        "the list; a manifest (.csv, .jsonl: text, path[, reference]); flite:VOICE, kokoro:VOICE",
    )
    add_device(command)
    add_precision(command)
    command.add_argument(
        "--list",
        help="everyday (default), numbers_names_questions, paragraphs, hard, tuning (default of "
        "--sweep), or a text file",
    )
    command.add_argument("--limit", type=positive, metavar="N", help="the first N texts only")
    command.add_argument("--seeds", type=seed, nargs="+", default=[1, 2, 3], metavar="N")
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
        "--dnsmos", type=count, default=25, metavar="N", help="on N utterances of each seed"
    )
    command.add_argument("--show", type=count, default=5, metavar="N", help="the N worst of each")
    command.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads")
    command.add_argument("--json", metavar="FILE", help="write everything")
    command.add_argument("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf")
    command.add_argument(
        "--sweep",
        metavar="FOLDER",
        help="search sampling settings of one model instead; a killed search continues",
    )
    add_set(command)
    command.set_defaults(command="eval", refuse=command.error)


def add_bench(commands: Any) -> None:
    """What the figures mean stands in docs/performance.md."""
    bench = new_command(commands, "bench", "measure speed and memory, stage by stage")
    bench.add_argument("model", nargs="?", metavar="MODEL", help="as for --model; default: nano")
    bench.add_argument(
        "--random", choices=("full", "nano"), help="random weights of these sizes instead"
    )
    add_device(bench)
    add_precision(bench)
    bench.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
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
        "--tokens", type=positive, default=48, metavar="N", help="AR ids timed; default: 48"
    )
    bench.add_argument(
        "--steps", type=positive, default=4, metavar="N", help="NAR steps timed; default: 4"
    )
    bench.add_argument(
        "--repeats",
        type=positive,
        default=3,
        metavar="N",
        help="of each measurement, after one to warm up; 1 leaves that out; default: 3",
    )
    bench.add_argument(
        "--rows", type=positive, nargs="+", default=[], metavar="N", help="also N AR ids at once"
    )
    bench.add_argument(
        "--compare", choices=("naive",), help="also time the plain rules, for a ratio"
    )
    bench.add_argument("--json", metavar="FILE", help="also write the last line here")
    bench.add_argument("--plot", metavar="FILE", help="draw it (.png, .svg, .pdf; mars5[eval])")
    add_set(bench)
    bench.set_defaults(command="bench", refuse=bench.error)
