"""`mars5 bench` over a tiny random model: what it counts, times, derives and writes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mars5 import Mars5TTS
from mars5.ar.model import CodecLM
from mars5.bench import command, limits, naive, random_systems, stages
from mars5.bench.clock import Clock, Taken, late, least, many, median, several, timed
from mars5.bench.report import Report
from mars5.bench.stages import Counts, Plan, Times, measure
from mars5.cli import main
from mars5.config import N_CODEBOOKS, STEP_PROFILES, ARDims
from mars5.errors import ConfigError
from mars5.nar.decode import denoise
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.quantized import quantize_linears
from mars5.tokenizers import SpeechTokenizer, TextTokenizer

CPU = torch.device("cpu")
SMALL = ["--seconds", "0.5", "--tokens", "16", "--steps", "2", "--repeats", "1"]


class FakeClock(Clock):
    """Each look at it takes 4 s by the clock and 1 s of processor time."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.looks = 0

    def now(self) -> Taken:
        self.looks += 1
        return Taken(4.0 * self.looks, 1.0 * self.looks)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CPU_FLOATS", 1000)
    monkeypatch.setattr(limits, "CPU_SIDE", 10)


def plan(**changes: Any) -> Plan:
    profiles = {"exact": 200, "draft": 8}
    small = Plan(seconds=0.5, profiles=profiles, tokens=16, steps=2, repeats=1)
    return replace(small, **changes)


def report(counts: Counts, times: Times, **changes: Any) -> Report:
    setup = {
        "model": "m", "dtype": "float32", "quantize": None, "device": "cpu", "threads": 1,
        "torch": "2",
    }  # fmt: skip
    return Report(setup, plan(seconds=2.0, **changes), counts, times, 200, True)


def known_times() -> tuple[Counts, Times]:
    """Round numbers; all processor times are half of those by the clock."""

    def took(wall: float) -> Taken:
        return Taken(wall, wall / 2)

    counts = Counts(
        frames=150, reference_frames=450, prompt_ids=55, frames_per_token=1.5, tokens=101,
        decoder_frames=150, passes=2, token_bytes=500, step_flops=4000,
    )  # fmt: skip
    times = Times(
        load=took(7), voice=took(3), first=took(2), token=took(0.25), exact=took(1),
        strided=took(0.5), vocoder=took(1), first_sounds=[took(6), took(6), took(26)],
        byte=took(0.0001), flop=took(0.0001), rows={2: took(0.125)}, naive_token=took(2.5),
        naive_step=took(4),
    )  # fmt: skip
    return counts, times


# clocks


def test_clock_and_its_summaries() -> None:
    clock = FakeClock()
    found = several(lambda: timed(clock, lambda: None), 3)
    assert found == [Taken(4, 1)] * 3
    assert clock.looks == 8  # one more measurement, to warm up
    assert len(several(lambda: timed(clock, lambda: None), 1)) == 1
    assert clock.looks == 10
    mixed = [Taken(3, 1), Taken(1, 5), Taken(2, 3)]
    assert median(mixed) == Taken(2, 3)
    assert least(mixed) == Taken(1, 1)
    twenty = [Taken(n, 0) for n in range(21)]
    assert late(twenty) == Taken(19, 0)
    assert late([Taken(3, 1)]) == Taken(3, 1)
    assert len(many(lambda: Taken(1, 1), 2, 5, 10.0)) == 5
    assert len(many(lambda: Taken(4, 1), 2, 5, 10.0)) == 3
    assert len(many(lambda: Taken(9, 1), 4, 5, 10.0)) == 4
    real = Clock(CPU)
    before = real.now()
    assert (real.now() - before).wall > 0


def test_limits_by_a_fake_clock() -> None:
    assert limits.byte_taken(FakeClock()) == Taken(4 / 4000, 1 / 4000)
    assert limits.flop_taken(FakeClock(), torch.float32) == Taken(4 / 2000, 1 / 2000)
    assert limits.flop_taken(FakeClock(), torch.float32, int8=True) == Taken(4 / 2000, 1 / 2000)


# what is counted


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("deep", [False, True])
def test_flops_of_a_step_are_those_of_the_kernels(
    tiny: Mars5TTS, guidance: float, deep: bool
) -> None:
    task = stages._task(tiny, plan(deep=deep, settings={"nar_guidance_w": guidance}))
    estimator, known = stages._refinement(tiny, task, 30)
    counts = stages._counts(tiny, task, known, 30, 1.0, 30)
    assert counts.decoder_frames == (30 + counts.reference_frames if deep else 30)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():  # it knows no other of a CPU
        estimator.ahead([5], known.unknown())(known.codes, 5)
    # What is not counted: the vector of no speaker, for guidance.
    assert counts.step_flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_bytes_of_a_token_are_those_of_the_weights() -> None:
    dims = ARDims(100, 32, 2, 2, 48, 1, 64)
    model = CodecLM(dims)
    weights = sum(p.nbytes for p in model.ar.parameters() if p.ndim == 2)
    assert limits.bytes_for_token(model, 0) == weights
    assert limits.bytes_for_token(model, 10) == weights + 10 * 2 * 2 * 32 * 4
    quantize_linears(model.ar)
    assert limits.bytes_for_token(model, 0) == weights // 4


def test_ids_are_timed_in_the_middle_of_the_utterance(tiny: Mars5TTS) -> None:
    task = stages._task(tiny, plan())
    middle = stages._middle(tiny, task, 116, 16)
    assert middle[: len(task.prompt.ids)] == task.prompt.ids
    assert len(middle) == len(task.prompt.ids) + 50
    assert stages._middle(tiny, task, 10, 16) == task.prompt.ids


# the stages


@pytest.mark.parametrize("changes", [{}, {"deep": True}, {"rows": [2]}])
def test_measures_every_stage(tiny: Mars5TTS, changes: dict[str, Any]) -> None:
    clock = Clock(tiny.device)
    counts, times = measure(tiny, Taken(1, 1), plan(compare=True, **changes), clock)
    found = {name: taken for name, taken in vars(times).items() if isinstance(taken, Taken)}
    assert len(found) == 11
    assert 1 <= len(times.first_sounds) <= stages.FIRST_SOUNDS
    assert all(taken.wall > 0 and taken.processor > 0 for taken in found.values())
    assert set(times.rows) == set(changes.get("rows", []))
    assert counts.frames == round(0.5 * 37.5)
    assert counts.peak_resident is None or counts.peak_resident > 2**20
    assert counts.peak_device is None


def test_fake_clock_gives_exact_times(tiny: Mars5TTS) -> None:
    _, times = measure(tiny, Taken(1, 1), plan(compare=True, rows=[2]), FakeClock())
    assert times.voice == times.first == times.vocoder == Taken(4, 1)
    assert times.first_sounds == [Taken(4, 1)] * 3  # which take more than 10 s by this clock
    assert times.exact == times.strided == Taken(2, 0.5)
    assert times.token == Taken(4 / 16, 1 / 16)
    assert times.rows == {2: Taken(4 / 32, 1 / 32)}
    assert times.naive_token == times.naive_step == Taken(2, 0.5)


def test_frames_per_token_follow_the_tokenizer(tiny: Mars5TTS) -> None:
    task = stages._task(tiny, plan(settings={"eos_penalty_factor": 100.0}))
    each = stages._frames_per_token(tiny, task, 20)
    assert 1.0 <= each <= 2.0  # a token of the tiny tokenizer is one frame or two
    counts, _ = measure(tiny, Taken(1, 1), plan(has_random_weights=True), FakeClock())
    assert (counts.frames_per_token, counts.tokens) == (1.0, counts.frames)


# the plain rules


def test_plain_ids_are_those_of_the_uncached_loop(tiny: Mars5TTS) -> None:
    cfg = replace(tiny.default_config, temperature=0.0, eos_penalty_factor=0.0)
    reference = torch.randint(1024, (1, 9, N_CODEBOOKS))
    prompt = [258, 5, 6, 259]
    plain = naive.plain_ids(tiny.ar, prompt, reference, tiny.vocabulary, cfg)
    request = stages.Request(prompt, tiny.ar.speaker_vector(reference))
    limited = replace(cfg, use_kv_cache=False, generate_max_len_override=len(prompt) + 6)
    drawn = stages.generate_many(tiny.ar, [request], tiny.vocabulary, limited, 1)
    expected = [token for part in drawn for token in part.ids]
    assert [next(plain) for _ in expected] == expected


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_plain_steps_make_the_codes_of_the_exact_law(tiny: Mars5TTS, guidance: float) -> None:
    """At a temperature that leaves no choice, so that the order of the draws does not matter."""
    settings = {"nar_guidance_w": guidance, "x_0_temp": 0.01, "q0_override_steps": 0}
    task = stages._task(tiny, plan(settings=settings))
    estimator, known = stages._refinement(tiny, task, 12)
    text = torch.tensor([task.prompt.ids[: task.prompt.n_text]])
    reference = task.voice.codes[None]
    # A schedule of one step: its draw is the network's estimate, whatever the start.
    plain = list(naive.plain_steps(tiny.nar, text, reference, known, task.cfg, 1))
    assert len(plain) == 1
    assert torch.equal(plain[0][known.mask], known.codes[known.mask])
    speaker = tiny.nar.speaker_vector(reference, torch.tensor([reference.shape[1]]))
    fresh = Estimator(
        tiny.nar, text, torch.tensor([text.shape[1]]), speaker, guidance, task.cfg.x_0_temp
    )
    best = fresh(known.codes, 0).argmax(-1)
    unknown = ~known.mask
    assert (plain[0][unknown] == best[unknown]).float().mean() > 0.9
    *_, fast = denoise(estimator, known, cosine_schedule(1), 1, 0)
    assert fast.shape == plain[0].shape


# what is derived


def test_figures_are_exact() -> None:
    found = report(*known_times(), compare=True)
    wall, processor = found.wall, found.processor
    assert wall["tokens_per_second"] == 4
    assert wall["tokens_per_second_by_rows"] == {2: 8}
    assert wall["bandwidth_share"] == pytest.approx(500 * 0.0001 / 0.25)
    assert wall["flops_share"] == pytest.approx({"exact": 0.4, "strided": 0.8})
    ar = 2 + 100 * 0.25
    assert wall["seconds"]["exact"] == {"AR": ar, "NAR": 200, "vocoder": 1}
    assert wall["real_time_factor"] == {"exact": (ar + 201) / 2, "draft": (ar + 8 * 0.5 + 1) / 2}
    slow = (101 * 2.5 + 200 * 4 + 1) / 2
    assert wall["naive"]["real_time_factor"] == {"exact": slow, "draft": (101 * 2.5 + 33) / 2}
    assert wall["naive"]["scaled_from"] == {"tokens": naive.TOKENS, "steps": naive.STEPS}
    exact, draft = (ar + 201) / 2, (ar + 8 * 0.5 + 1) / 2
    equal, all_steps = (wall["naive"][f"times_as_fast{end}"] for end in ("", "_as_all_steps"))
    assert equal == pytest.approx({"exact": slow / exact, "draft": (101 * 2.5 + 33) / 2 / draft})
    assert all_steps == pytest.approx({"exact": slow / exact, "draft": slow / draft})
    assert (wall["naive"]["token_times_as_fast"], wall["naive"]["step_times_as_fast"]) == (10, 4)
    assert processor is not None
    assert processor["real_time_factor"]["exact"] == wall["real_time_factor"]["exact"] / 2
    assert processor["naive"]["times_as_fast"] == wall["naive"]["times_as_fast"]
    assert processor["bandwidth_share"] == pytest.approx(wall["bandwidth_share"])


def test_table_names_the_steps_that_are_made() -> None:
    counts, times = known_times()
    assert "real-time factor, draft (8) " in report(counts, times).table()
    settled = report(replace(counts, settle_step=200), times).table()
    assert "real-time factor, exact (1) " in settled
    assert "real-time factor, draft (1) " in settled


def test_table_says_what_is_extrapolated_and_assumed() -> None:
    table = report(*known_times(), compare=True).table()
    assert "by processor time" in table
    assert "factors are extrapolated" in table
    assert "2 ids and 2 steps of the plain rules in float32, timed and scaled" in table
    assert "times as fast as naive, draft: both with 8 steps, naive scaled" in table
    assert "draft against naive with 200 steps" in table
    assert "exact against" not in table
    assert "(assumed)" not in table
    random = report(*known_times(), has_random_weights=True)
    assert "(assumed)" in random.table()
    assert random.wall["load_seconds"] is None
    gpu = replace(random, has_processor_times=False)
    assert gpu.processor is None
    assert "processor" not in gpu.table()


# the command


def test_command_writes_table_line_file_and_plot(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    target, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    written = ["--json", str(target), "--plot", str(plot)]
    assert main(["bench", str(tiny_folder), "--device", "cpu", *SMALL, *written]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found == json.loads(target.read_text())
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert set(found["wall"]["real_time_factor"]) == set(STEP_PROFILES)
    assert found["wall"]["load_seconds"] > 0
    assert found["setup"]["threads"] == torch.get_num_threads()
    assert any(line.startswith("AR: ids/s") for line in lines)
    assert main(["--quiet", "bench", str(tiny_folder), "--device", "cpu", *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] == found["plan"]  # nothing but the line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "8"], "--tokens"),
        (["--seconds", "nan"], "--seconds"),
        (["--seconds", "1000"], "--seconds"),
        (["--plot", "x.txt"], "--plot"),
        (["--set", "timestep=3"], "timesteps"),
        (["--steps", "200"], "--steps"),
        (["--device", "toaster"], "device"),
        (["--quantize", "int8", "--dtype", "float16"], "int8"),
    ],
)
def test_bad_arguments_are_refused(
    tiny_folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(tiny_folder), "--device", "cpu", *arguments]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nano", "--random", "full"],
        ["--random", "huge"],
        ["--profile", "quick"],
        ["--deep", "--shallow"],
        ["--compare", "clever"],
    ],
)
def test_contradictions_are_not_understood(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *arguments])
    assert exit_.value.code == 2


def test_plot_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="cannot write the plot"):
        report(*known_times()).plot(tmp_path / "none" / "plot.png")


# random systems


def test_random_nano_has_the_sizes_of_the_embedded_checkpoint() -> None:
    system = random_systems.random_system("nano", "cpu", quantize="int8")
    assert system.default_voice is None
    float32 = random_systems.random_system("nano", "cpu")
    parameters = [*float32.ar.parameters(), *float32.nar.parameters()]
    assert command._n_parameters(system) == sum(p.numel() for p in parameters) > 8_000_000
    codes = torch.randint(1024, (9, N_CODEBOOKS))
    assert system.engine.voices.of_codes(codes, None, {}).ar_speaker.isfinite().all()


def test_random_full_has_the_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its memory: the weights are made, but of one number each."""

    def light(_name: str, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros((), dtype=dtype).expand(shape)

    speech = SpeechTokenizer([(1, 1)], {"<|endofspeech|>": 1025})
    specials = {"<|startoftext|>": 258, "<|endoftext|>": 259, "<|padding|>": 260}
    text = TextTokenizer([(104, 101), (32, 116)], specials)
    monkeypatch.setattr(random_systems, "random_weight", light)
    monkeypatch.setattr(random_systems, "make_tokenizers", lambda: (text, speech))
    monkeypatch.setattr(random_systems, "lay_side_by_side", lambda _: None)
    system = random_systems.random_system("full", "cpu", torch.bfloat16)
    assert (system.ar.dims.n_layers, system.ar.dims.dim) == (26, 1536)
    assert system.codec.name == "encodec"
    assert system.nar.residual_decoder[0][1].weight.dtype == torch.float32
    assert system.ar.embed.weight.dtype == torch.bfloat16


def test_random_weights_are_small_and_finite() -> None:
    weight = random_systems.random_weight("w", (1500, 1000), torch.float16)
    assert weight.shape == (1500, 1000)
    assert 0.019 < float(weight.float().std()) < 0.021
    assert random_systems.random_weight("norm.weight", (4,), torch.float32).tolist() == [1.0] * 4
    assert random_systems.random_weight("x.bias", (4,), torch.float32).tolist() == [0.0] * 4


def test_the_table_of_all_commands_names_real_ones() -> None:
    """Each `mars5 bench` line of the script is understood."""
    from mars5.commands.arguments import build_parser

    script = Path(__file__).parent.parent / "benchmarks" / "tables.sh"
    assert os.access(script, os.X_OK)
    lines = [line.split() for line in script.read_text().splitlines()]
    commands = [words for words in lines if words[:1] == ["bench"]]
    assert commands
    for words in commands:
        build_parser().parse_args(["bench", *words[2:]])
