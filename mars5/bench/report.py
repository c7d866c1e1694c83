"""From times to figures: shares of limits, real-time factors, ratios; as table, JSON and plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mars5.bench import naive
from mars5.bench.clock import Taken, late, median
from mars5.bench.stages import Counts, Plan, Times
from mars5.errors import ConfigError
from mars5.eval.extra import extra
from mars5.eval.report import PLOTS, aligned
from mars5.files import replacing
from mars5.nar.decode import steps_made

Figures = dict[str, Any]
GIB = 2**30


@dataclass(frozen=True)
class Report:
    """All that one run found.

    Attributes:
        setup: model, device, precision, threads, versions.
        schedule: steps of the whole schedule, at which the exact law runs.
        has_processor_times: whether they mean something: on a CPU.
    """

    setup: dict[str, Any]
    plan: Plan
    counts: Counts
    times: Times
    schedule: int
    has_processor_times: bool

    @property
    def wall(self) -> Figures:
        """The figures by the clock."""
        return self._figures(lambda taken: taken.wall)

    @property
    def processor(self) -> Figures | None:
        """The same by processor time, for a machine that is busy with other work."""
        return self._figures(lambda taken: taken.processor) if self.has_processor_times else None

    def to_json(self) -> dict[str, Any]:
        plan = {**asdict(self.plan), "settings": dict(self.plan.settings)}
        counts = asdict(self.counts)
        found = {"wall": self.wall, "processor": self.processor}
        return {"setup": self.setup, "plan": plan, "counts": counts, **found}

    def table(self) -> str:
        """Figures down, by the clock and by processor time across, and what they rest on."""
        columns = [self.wall] if self.processor is None else [self.wall, self.processor]
        heads = ["by the clock", "by processor time"][: len(columns)]
        rows = [list(self._rows(column)) for column in columns]
        body = [[cells[0][0], *(value for _, value in cells)] for cells in zip(*rows, strict=True)]
        return "\n".join([*aligned([["", *heads], *body]), *self._notes()])

    def plot(self, path: Path) -> None:
        """Seconds for the utterance by profile, in stages.

        Raises:
            ConfigError: the file cannot be written.
            MissingExtraError: the extra `[eval]` is not installed.
        """
        with extra("the plot"):
            from matplotlib.figure import Figure
        picture = Figure(figsize=(7, 4), layout="constrained")
        axes = picture.subplots()
        names, figures = list(self.plan.profiles), self.wall
        left = [0.0] * len(names)
        for stage in ("AR", "NAR", "vocoder"):
            values = [figures["seconds"][name][stage] for name in names]
            axes.barh(names, values, left=left, label=stage)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.axvline(self.plan.seconds, linestyle=":", color="grey")
        axes.set_xlabel(f"seconds for {self.plan.seconds:g} s of speech (dotted: real time)")
        axes.legend()
        try:
            with replacing(path) as temporary:
                picture.savefig(temporary, format=path.suffix[1:].lower(), dpi=120)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot write the plot {path}: {error}") from error

    @property
    def steps(self) -> dict[str, int]:
        """Steps that each profile makes, up to the one that settles the codes."""
        return {
            name: len(steps_made(self.schedule, steps, self.counts.settle_step))
            for name, steps in self.plan.profiles.items()
        }

    def _figures(self, of: Callable[[Taken], float]) -> Figures:
        times, counts, plan = self.times, self.counts, self.plan
        token, byte, flop = of(times.token), of(times.byte), of(times.flop)
        laws = {"exact": of(times.exact), "strided": of(times.strided)}
        ar = of(times.first) + (counts.tokens - 1) * token
        seconds = {}
        for name, steps in self.steps.items():
            law = "exact" if plan.profiles[name] == self.schedule else "strided"
            seconds[name] = {"AR": ar, "NAR": steps * laws[law], "vocoder": of(times.vocoder)}
        figures: Figures = {
            "load_seconds": None if plan.has_random_weights else of(times.load),
            "voice_seconds": of(times.voice),
            "first_id_seconds": of(times.first),
            "tokens_per_second": 1 / token,
            "bandwidth": 1 / byte,
            "bandwidth_share": counts.token_bytes * byte / token,
            "tokens_per_second_by_rows": {n: 1 / of(taken) for n, taken in times.rows.items()},
            "step_seconds": laws,
            "flops": 1 / flop,
            "flops_share": {law: counts.step_flops * flop / took for law, took in laws.items()},
            "vocoder_seconds_per_second": of(times.vocoder) / plan.seconds,
            "first_sound_seconds": of(median(times.first_sounds)),
            "first_sound_p95_seconds": of(late(times.first_sounds)),
            "seconds": seconds,
            "real_time_factor": {
                name: sum(parts.values()) / plan.seconds for name, parts in seconds.items()
            },
        }
        if times.naive_token is not None and times.naive_step is not None:
            figures["naive"] = self._naive(of(times.naive_token), of(times.naive_step), figures)
        return figures

    def _naive(self, token: float, step: float, figures: Figures) -> Figures:
        """The plain rules, scaled to each profile's steps and to all, and how often we fit."""
        vocoder = figures["vocoder_seconds_per_second"] * self.plan.seconds

        def scaled(steps: int) -> float:
            seconds = self.counts.tokens * token + steps * step + vocoder
            return seconds / self.plan.seconds

        fast = figures["real_time_factor"]
        equal = {name: scaled(steps) for name, steps in self.steps.items()}
        return {
            "scaled_from": {"tokens": naive.TOKENS, "steps": naive.STEPS},
            "token_seconds": token,
            "step_seconds": step,
            "real_time_factor": equal,
            "times_as_fast": {name: equal[name] / fast[name] for name in fast},
            "times_as_fast_as_all_steps": {
                name: scaled(self.schedule) / fast[name] for name in fast
            },
            "token_times_as_fast": token * figures["tokens_per_second"],
            "step_times_as_fast": step / figures["step_seconds"]["exact"],
        }

    def _rows(self, f: Figures) -> Iterator[tuple[str, str]]:
        if f["load_seconds"] is not None:
            yield "load, s", f"{f['load_seconds']:.2f}"
        yield "voice of a 6 s reference, s", f"{f['voice_seconds']:.3f}"
        yield "AR: prompt and first id, s", f"{f['first_id_seconds']:.3f}"
        yield "AR: ids/s", f"{f['tokens_per_second']:.1f}"
        yield "AR: share of the memory limit, %", f"{100 * f['bandwidth_share']:.0f}"
        for rows, rate in f["tokens_per_second_by_rows"].items():
            yield f"AR: ids/s, {rows} at once", f"{rate:.1f}"
        for law, took in f["step_seconds"].items():
            yield f"NAR: {law} law, ms/step", f"{1000 * took:.1f}"
            share = 100 * f["flops_share"][law]
            yield f"NAR: {law} law, share of the matmul limit, %", f"{share:.0f}"
        yield "vocoder, ms per s of speech", f"{1000 * f['vocoder_seconds_per_second']:.1f}"
        quickest = min(self.plan.profiles, key=self.plan.profiles.__getitem__)
        yield f"first sound ({quickest}), s", f"{f['first_sound_seconds']:.3f}"
        count = len(self.times.first_sounds)
        yield f"first sound, 95th percentile of {count}, s", f"{f['first_sound_p95_seconds']:.3f}"
        for name, factor in f["real_time_factor"].items():
            yield f"real-time factor, {name} ({self.steps[name]})", _short(factor)
        yield "memory: GB/s read", f"{f['bandwidth'] / 1e9:.1f}"
        yield "matmul: TFLOP/s", f"{f['flops'] / 1e12:.3f}"
        if "naive" in f:
            yield from self._naive_rows(f["naive"])

    def _naive_rows(self, f: Figures) -> Iterator[tuple[str, str]]:
        timed = f["scaled_from"]
        yield f"naive: s for an id ({timed['tokens']} timed)", f"{f['token_seconds']:.3f}"
        yield f"naive: ms/step ({timed['steps']} timed)", f"{1000 * f['step_seconds']:.1f}"
        yield "AR: times as fast as naive", f"{f['token_times_as_fast']:.1f}"
        yield "NAR: times as fast as naive, exact law", f"{f['step_times_as_fast']:.1f}"
        for name, steps in self.steps.items():
            both = f"both with {steps} steps, naive scaled"
            yield f"times as fast as naive, {name}: {both}", f"{f['times_as_fast'][name]:.1f}"
        for name, ratio in f["times_as_fast_as_all_steps"].items():
            if self.plan.profiles[name] != self.schedule:
                yield f"{name} against naive with {self.schedule} steps", f"{ratio:.1f}"

    def _notes(self) -> Iterator[str]:
        c, plan, setup = self.counts, self.plan, self.setup
        kind = "deep" if plan.deep else "shallow"
        yield (
            f"{setup['model']}, {setup['dtype']}{' and int8' if setup['quantize'] else ''}, "
            f"{setup['device']}, {setup['threads']} threads, torch {setup['torch']}"
        )
        yield (
            f"{kind} clone of {plan.seconds:g} s: {c.frames} frames, {c.tokens} ids after a prompt "
            f"of {c.prompt_ids}, {c.decoder_frames} frames and {c.passes} passes in the NAR"
        )
        assumed = " (assumed)" if plan.has_random_weights else ""
        yield f"frames per id: {c.frames_per_token:.2f}{assumed}"
        yield (
            f"timed: {plan.tokens} ids in the middle of the utterance and {plan.steps} steps of "
            "each law; factors are extrapolated from these"
        )
        memory = [(c.peak_resident, "resident"), (c.peak_device, "on the GPU")]
        known = [f"{size / GIB:.2f} GiB {where}" for size, where in memory if size is not None]
        yield f"peak memory: {', '.join(known)}"
        if plan.compare:
            yield (
                f"naive: {naive.TOKENS} ids and {naive.STEPS} steps of the plain rules in float32, "
                "timed and scaled to the utterance"
            )


def check_plot(path: str | None) -> None:
    """Refuse a file that is no picture, before the long work: raises `ConfigError`."""
    if path is not None and Path(path).suffix.lower() not in PLOTS:
        raise ConfigError(f"--plot is {path!r}, but must end in {', '.join(PLOTS)}")


def _short(factor: float) -> str:
    return f"{factor:.3g}"
