"""`mars5 bench`: from the command line to a table and a line of JSON."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from mars5 import __version__
from mars5.ar.model import CodecLM
from mars5.bench.clock import Clock
from mars5.bench.random_systems import random_system
from mars5.bench.report import Report, check_plot
from mars5.bench.stages import Plan, measure
from mars5.commands.speaker import precision
from mars5.config import STEP_PROFILES, InferenceConfig
from mars5.device import resolve_device
from mars5.errors import ConfigError
from mars5.files import write_text
from mars5.hub import NANO
from mars5.nar.model import ResidualTransformer
from mars5.tts import Mars5TTS

LEAST_TOKENS = 16  # a GPU draws 8 at a time
MOST_SECONDS = 30.0


def run(args: argparse.Namespace) -> int:
    """Measure, print the table and the line, write what was asked for; returns the exit code."""
    check_plot(args.plot)
    if args.tokens < LEAST_TOKENS:
        raise ConfigError(f"--tokens is {args.tokens}, must be at least {LEAST_TOKENS}")
    if not 0.5 <= args.seconds <= MOST_SECONDS:  # also refuses NaN
        raise ConfigError(f"--seconds is {args.seconds:g}, must be 0.5 to {MOST_SECONDS:g}")
    InferenceConfig(**dict(args.settings))  # refused before the long work
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    clock = Clock(resolve_device(args.device))
    start = clock.now()
    system = _system(args)
    load = clock.now() - start
    plan = _plan(args, len(system.schedule))
    counts, times = measure(system, load, plan, clock)
    on_cpu = system.device.type == "cpu"
    report = Report(_setup(args, system), plan, counts, times, len(system.schedule), on_cpu)
    line = json.dumps(report.to_json())
    if args.json is not None:
        write_text(Path(args.json), line + "\n")
    if args.plot is not None:
        report.plot(Path(args.plot))
    if not args.quiet:
        print(report.table())
    print(line)
    return 0


def _system(args: argparse.Namespace) -> Mars5TTS:
    if args.random is not None:
        return random_system(args.random, args.device, **precision(args))
    model = NANO if args.model is None else args.model
    return Mars5TTS.from_pretrained(model, device=args.device, **precision(args))


def _plan(args: argparse.Namespace, schedule: int) -> Plan:
    if args.steps >= schedule:
        raise ConfigError(
            f"--steps is {args.steps}, this model has {schedule}, and fewer are timed"
        )
    return Plan(
        seconds=args.seconds,
        profiles={name: min(STEP_PROFILES[name], schedule) for name in args.profile},
        deep=args.deep,
        tokens=args.tokens,
        steps=args.steps,
        repeats=args.repeats,
        rows=args.rows,
        settings=dict(args.settings),
        compare=args.compare is not None,
        has_random_weights=args.random is not None,
    )


def _setup(args: argparse.Namespace, system: Mars5TTS) -> dict[str, Any]:
    on_cuda = system.device.type == "cuda"
    name = torch.cuda.get_device_name(system.device) if on_cuda else platform.processor()
    return {
        "model": f"random {args.random}" if args.random else args.model or NANO,
        "parameters": _n_parameters(system),
        "device": f"{system.device} {name}".strip(),
        "dtype": str(system.nar.text_embed.weight.dtype).removeprefix("torch."),
        "quantize": args.quantize,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "mars5": __version__,
    }


def _n_parameters(system: Mars5TTS) -> int:
    """Of both transformers; counted by their sizes, since int8 layers have none of their own."""
    with torch.device("meta"):
        models = CodecLM(system.ar.dims), ResidualTransformer(system.nar.dims)
    return sum(parameter.numel() for model in models for parameter in model.parameters())
