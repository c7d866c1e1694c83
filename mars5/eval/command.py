"""`mars5 eval`: from the command line to scorecards."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mars5.commands.lines import shows_progress, tell
from mars5.commands.speaker import precision
from mars5.config import InferenceConfig
from mars5.errors import ConfigError
from mars5.eval.ears import Recogniser
from mars5.eval.lists import read_list
from mars5.eval.references import Reference, read_references
from mars5.eval.report import PLOTS, Report
from mars5.eval.scorecard import Card, Judges
from mars5.eval.similarity import SpeakerJudge, baselines, bystanders
from mars5.eval.sources import Source, check_source, load_checkpoint, open_source
from mars5.eval.sweep import BEST, run_sweep
from mars5.hub import NANO

_SWEEP_DNSMOS = 4  # utterances of each seed: enough to see a setting that crackles


def run(args: argparse.Namespace) -> int:
    """Evaluate or search, print the table, write what was asked for; returns the exit code."""
    InferenceConfig(**dict(args.settings))  # what can be refused is refused before the long work
    if args.plot is not None and Path(args.plot).suffix.lower() not in PLOTS:
        raise ConfigError(f"--plot is {args.plot!r}, but must end in {', '.join(PLOTS)}")
    torch.set_num_threads(args.threads)
    return _sweep(args) if args.sweep is not None else _evaluate(args)


def _evaluate(args: argparse.Namespace) -> int:
    spoken = args.list or "everyday"
    texts = read_list(spoken)[: args.limit]
    names = [*(args.sources or [NANO]), *([args.teacher] if args.teacher else [])]
    for name in names:
        check_source(name)  # refused before the ears are loaded
    references = _references(args)
    ears = [Recogniser(name, args.threads) for name in args.asr or ["base"]]
    judges = Judges(
        ears, None if args.only_words else SpeakerJudge(), 0 if args.only_words else args.dnsmos
    )
    settings = dict(args.settings)
    sources = [
        open_source(name, texts, settings, references, args.device, args.stream, **precision(args))
        for name in names
    ]
    cards = _judge(args, judges, sources, texts)
    report = Report(spoken, args.seeds, cards, *_baselines(judges, sources))
    print(report.table())
    if args.show:
        print(report.worst(args.show))
    if args.json is not None:
        report.write_json(Path(args.json))
    if args.plot is not None:
        report.plot(Path(args.plot))
    return 0


def _sweep(args: argparse.Namespace) -> int:
    if len(args.sources) > 1 or args.teacher or args.json or args.plot:
        args.refuse("--sweep takes one model, and neither --teacher nor --json nor --plot")
    texts = read_list(args.list or "tuning")[: args.limit]
    model = args.sources[0] if args.sources else NANO
    check_source(model)
    judges = Judges(
        [Recogniser(name, args.threads) for name in (args.asr or ["tiny.en"])[:1]],
        quality=min(args.dnsmos, _SWEEP_DNSMOS),
    )
    checkpoint = load_checkpoint(
        model, dict(args.settings), _references(args), args.device, **precision(args)
    )
    folder = Path(args.sweep)
    told = (lambda _: None) if args.quiet else tell
    table = run_sweep(folder, checkpoint, judges, texts, args.seeds, told)
    print(table)
    print(f"the starred settings are in {folder / BEST}")
    return 0


def _references(args: argparse.Namespace) -> list[Reference]:
    """The references named on the command line; none for a model's own voice."""
    if args.references is not None:
        return read_references(args.references)
    return [Reference(Path(path), path) for path in args.ref]


def _judge(
    args: argparse.Namespace, judges: Judges, sources: list[Source], texts: list[str]
) -> list[Card]:
    """Cards in the order of the sources; a teacher, the last of them, is judged first."""
    progress = shows_progress(args)
    if not args.teacher:
        return [judges.judge(source, texts, args.seeds, progress=progress) for source in sources]
    *others, teacher = sources
    told = judges.judge(teacher, texts, args.seeds, progress=progress)
    expected = {row.text: row.seconds for row in told.rows if row.seconds}
    return [*(judges.judge(s, texts, args.seeds, expected, progress) for s in others), told]


def _baselines(
    judges: Judges, sources: list[Source]
) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Same, different, and the people: those at hand and those that the sources clone."""
    if judges.speakers is None:
        return None, None, ()
    people = bystanders()
    for source in sources:
        for who, entries in source.references().items():
            people.setdefault(who, [wave for _, wave in entries])
    embedded = {
        who: [e for wave in waves if (e := judges.speakers.embed(wave)) is not None]
        for who, waves in people.items()
    }
    return *baselines(embedded), tuple(people)
