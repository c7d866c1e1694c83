"""The CUDA paths on a pretended device: `fake_cuda` tells what of a GPU that covers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import converting, tiny_config, write_tiny_model
from fake_cuda import CudaError, CudaTensor, Machine, Stream, fake_cuda
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS
from mars5.ar.decode import Request, generate_many
from mars5.ar.graph import GraphedSteps, Spare
from mars5.capture import Replay
from mars5.errors import GenerationError
from mars5.nar.decode import Known, denoise
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.nar.graph import GraphedDecoder
from mars5.nar.settle import Settling

STEPS = 8  # of the schedule
SHORT = InferenceConfig(timesteps=3, generate_max_len_override=36, deep_clone=False)
SETTINGS = {
    "strided": SHORT,
    "exact": replace(SHORT, timesteps=STEPS),
    "deep": replace(SHORT, deep_clone=True, generate_max_len_override=110),
    "settling": replace(SHORT, nar_settle_step=4),
    "exact, settling": replace(SHORT, timesteps=STEPS, nar_settle_step=7),
    "one pass": replace(SHORT, nar_guidance_w=1),
    "uncached": replace(SHORT, use_kv_cache=False),
    "greedy": replace(SHORT, temperature=0),
    "filters": replace(SHORT, top_k=0, top_p=0.8, typical_p=0.7, rep_penalty_window=0),
}
CONVERTING = replace(
    SHORT, nar_settle_step=STEPS, voice_conversion=0.5, generate_max_len_override=90
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config()
    nar = replace(config.nar, diffusion_steps=STEPS)
    defaults = {**config.defaults, "timesteps": 3}
    path = tmp_path_factory.mktemp("short")
    return write_tiny_model(path, replace(config, nar=nar, defaults=defaults))


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a checkpoint that speaks with its own voice, and converts it."""
    config = tiny_config()
    nar = replace(config.nar, diffusion_steps=STEPS)
    path = tmp_path_factory.mktemp("own")
    return write_tiny_model(path, converting(replace(config, nar=nar)))


@pytest.fixture(scope="module")
def here(folder: Path) -> Mars5TTS:
    return system(folder, "cpu")


@pytest.fixture
def cuda() -> Iterator[Machine]:
    with fake_cuda() as machine:
        yield machine


def system(folder: Path, device: str = "cuda", dtype: torch.dtype | None = None) -> Mars5TTS:
    return Mars5TTS.from_pretrained(folder, device=device, dtype=dtype or torch.float32)


def speaker() -> Tensor:
    return torch.zeros(1, 32)


# ---------------------------------------------------------------- whole utterances


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in SETTINGS),
        ("deep", torch.float16),
    ],
)
def test_all_stages_stay_on_the_device(
    name: str,
    dtype: torch.dtype,
    here: Mars5TTS,
    folder: Path,
    speechlike: np.ndarray,
    cuda: Machine,
) -> None:
    """From the wave of a reference to the wave of the speech; also the numbers are the CPU's."""
    there = system(folder, dtype=dtype)
    assert there.device == torch.device("cuda:0")
    arguments = ("hello there", speechlike, "hello you", SETTINGS[name])
    wanted, found = (one.generate(*arguments, seed=1) for one in (here, there))
    assert type(found.audio) is type(found.codes) is Tensor
    assert found.audio.isfinite().all()
    if dtype == torch.float32:  # rounding may tip a choice, and what follows it
        assert (found.ar_codes[:10] == wanted.ar_codes[:10]).float().mean() > 0.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_conversion_stays_on_the_device(
    dtype: torch.dtype, own_folder: Path, speechlike: np.ndarray, cuda: Machine
) -> None:
    there = system(own_folder, dtype=dtype)
    found = there.generate("hello there", speechlike, None, CONVERTING, seed=1)
    assert type(found.audio) is type(found.codes) is Tensor
    assert found.audio.isfinite().all()
    if dtype == torch.float32:
        wanted = system(own_folder, "cpu").generate(
            "hello there", speechlike, None, CONVERTING, seed=1
        )
        n = min(len(found.codes), len(wanted.codes), 10)
        assert (found.codes[:n] == wanted.codes[:n]).float().mean() > 0.8


@pytest.mark.parametrize("graphed", [True, False])
def test_streams_batches_and_edits_stay_on_the_device(
    graphed: bool,
    own_folder: Path,
    speechlike: np.ndarray,
    cuda: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not graphed:  # as if the speech were long
        monkeypatch.setattr("mars5.nar.graph.MAX_FRAMES", 0)
    there = system(own_folder)
    cfg = replace(CONVERTING, generate_max_len_override=200)
    voice = there.voice(speechlike, "hello you")
    with there.stream("hello there. And you?", voice, cfg=cfg, seed=1) as stream:
        assert len(list(stream)) > 2
    items = there.tts_batch(["hello", "you there", "he"], voice, cfg=cfg, seeds=1, batch_size=2)
    assert all(item.audio.isfinite().all() for item in items)
    edited = there.edit(voice, "a b", "a c", cfg, times=[(0.1, 0.6), (0.7, 1.4)], seed=1)
    assert type(edited.codes) is Tensor
    assert type(there.vocode(edited.codes)) is Tensor


def test_a_device_that_is_not_the_current_one(
    folder: Path, speechlike: np.ndarray, cuda: Machine
) -> None:
    """What is made without a number lands on device 0; graphs are captured on the model's own."""
    first, second = (system(folder, f"cuda:{index}") for index in range(2))
    a, b = (one.generate("hello", speechlike, None, SHORT, seed=1) for one in (first, second))
    assert torch.equal(a.codes, b.codes)
    assert cuda.place() == torch.device("cuda:0")


# ---------------------------------------------------------------- waits


def waits(machine: Machine, work: Callable[[], object]) -> int:
    before = len(machine.waits)
    work()
    return len(machine.waits) - before


def test_the_ar_is_looked_at_once_for_several_steps(folder: Path, cuda: Machine) -> None:
    there = system(folder)
    steps = GraphedSteps(there.ar, there.engine.vocabulary, SHORT, 2)
    steps.admit(0, [1, 2, 3], speaker(), 5)
    noise = torch.ones(1, 2, there.ar.dims.n_vocab)
    looks = {n: waits(cuda, lambda n=n: steps.run(noise.repeat(n, 1, 1))) for n in (1, 8)}
    assert looks[1] == looks[8] == 2
    assert cuda.uploads[-2:] == [True, True]  # from pinned memory


@pytest.mark.parametrize("exact", [False, True])
def test_no_step_of_the_nar_is_waited_for(exact: bool, folder: Path, cuda: Machine) -> None:
    there = system(folder)

    def walk(steps: int) -> tuple[int, int]:
        schedule = cosine_schedule(steps if exact else 20).to("cuda")
        visited = len(schedule) if exact else steps
        known = Known.from_coarse(torch.arange(20, device="cuda")[None])
        found = denoise(nar_estimator(there), known, schedule, visited, 3)
        before = len(cuda.uploads)
        return waits(cuda, lambda: list(found)), len(cuda.uploads) - before

    (few, few_uploads), (many, many_uploads) = walk(3), walk(9)
    assert few == many < 12
    # The uniforms of the exact law are drawn on the device, those of the other on the CPU.
    assert many_uploads - few_uploads == (0 if exact else 6)
    assert exact or cuda.uploads[-6:] == [True] * 6  # from pinned memory


# ---------------------------------------------------------------- graphs of the AR


def drawn(there: Mars5TTS, cfg: InferenceConfig, rows: int, spare: Spare) -> list[list[int]]:
    generators = [torch.Generator().manual_seed(i) for i in range(5)]
    requests = [Request(range(3 + i), speaker(), 20, g) for i, g in enumerate(generators)]
    ids: list[list[int]] = [[] for _ in requests]
    for found in generate_many(there.ar, requests, there.engine.vocabulary, cfg, rows, spare):
        ids[found.index] += found.ids
    return ids


@pytest.mark.parametrize("rows", [1, 3])
def test_graphs_draw_what_eager_steps_draw(
    rows: int, here: Mars5TTS, folder: Path, cuda: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across a change of bucket, with rows refilled, twice with the same graphs."""
    monkeypatch.setattr("mars5.ar.graph.BUCKET", 8)
    there, spare = system(folder), Spare()
    cfg = replace(SHORT, top_p=0.9, freq_penalty=0.5, generate_max_len_override=28)
    wanted = drawn(here, cfg, rows, Spare())
    assert len({len(ids) for ids in wanted}) > 1
    assert drawn(there, cfg, rows, spare) == wanted
    kept = spare.take(there.ar, there.engine.vocabulary, cfg, rows)
    assert isinstance(kept, GraphedSteps)
    assert len(kept._graphs) > 1
    spare.give(kept)
    captures = len(cuda.log)
    assert drawn(there, cfg, rows, spare) == wanted
    assert len(cuda.log) == captures  # they were used again


def test_a_capture_leaves_the_state_as_it_was(folder: Path, cuda: Machine) -> None:
    """Only the keys and values of the position that follows may change: that is written again."""
    there = system(folder)
    steps = GraphedSteps(there.ar, there.engine.vocabulary, SHORT, 2)
    steps.admit(0, range(7), speaker(), 5)
    state = [steps.tokens, steps.in_use, steps.finite, steps.rows.lengths, *steps.sampler.state]
    before, memory = [tensor.clone() for tensor in state], steps.rows.memory.clone()
    steps._captured(16)
    assert all(torch.equal(old, new) for old, new in zip(before, state, strict=True))
    changed = (steps.rows.memory != memory).any(-1).any(3).any(0).any(0)
    assert changed.nonzero().tolist() == [[0, 7], [1, 0]]


def test_steps_are_kept_for_their_arguments_and_their_stream(folder: Path, cuda: Machine) -> None:
    there, spare = system(folder), Spare()
    arguments = there.ar, there.engine.vocabulary, SHORT, 1
    steps = spare.take(*arguments)
    spare.give(steps)
    assert spare.take(*arguments) is steps
    spare.give(steps)
    with torch.cuda.stream(Stream()):
        assert spare.take(*arguments) is not steps
    spare.give(steps)
    assert spare.take(*arguments[:3], 2) is not steps
    assert spare.take(*arguments) is not steps  # it was let go


def test_a_system_that_has_spoken_can_be_copied(folder: Path, cuda: Machine) -> None:
    there, spare = system(folder), Spare()
    wanted = drawn(there, SHORT, 1, spare)
    again = copy.deepcopy(spare)
    assert drawn(there, SHORT, 1, again) == wanted


@pytest.mark.parametrize("rows", [1, 2])
def test_what_was_not_finite_spoils_no_later_sequence(
    rows: int, folder: Path, cuda: Machine
) -> None:
    there, spare = system(folder), Spare()
    wanted = drawn(there, SHORT, rows, spare)
    poison = torch.full((1, 32), torch.inf)
    requests = [Request(range(20), poison), Request(range(3), speaker())]
    found = list(generate_many(there.ar, requests, there.engine.vocabulary, SHORT, rows, spare))
    assert [f.index for f in found if isinstance(f.error, GenerationError)] == [0]
    assert drawn(there, SHORT, rows, spare) == wanted


def test_what_is_not_finite_behind_the_end_does_not_matter(
    folder: Path, cuda: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight ids are drawn ahead of a look at them."""
    there = system(folder)
    end = there.engine.vocabulary.end
    ids, finite = [[7], [end], [9], [9]], [[True], [True], [False], [False]]
    monkeypatch.setattr(GraphedSteps, "run", lambda *_: (ids, finite))
    request = Request([1, 2], speaker(), None, torch.Generator().manual_seed(1))
    (found,) = generate_many(there.ar, [request], there.engine.vocabulary, SHORT, 1, Spare())
    assert (found.ids, found.done, found.error) == ([7, end], True, None)


# ---------------------------------------------------------------- graphs of the NAR


def nar_estimator(there: Mars5TTS, n_text: int = 6) -> Estimator:
    nar = there.nar
    text = torch.arange(n_text, device="cuda")[None]
    lengths = torch.tensor([n_text], device="cuda")
    one = nar.no_speaker_vector(1) + 1
    return Estimator(nar, text, lengths, one, 3.0, 0.7, decode=GraphedDecoder(nar))


@pytest.mark.parametrize("visited", [3, STEPS])
def test_graphs_of_the_nar_equal_its_plain_steps(visited: int, folder: Path, cuda: Machine) -> None:
    there = system(folder)
    books = torch.randn(8, 1024, 6, generator=torch.Generator().manual_seed(2)).to("cuda")
    one, schedule = nar_estimator(there), cosine_schedule(STEPS).to("cuda")

    def both(*arguments: Any) -> Tensor:
        wanted, found = there.nar.decode(*arguments), one.decode(*arguments)  # type: ignore[misc]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        return wanted

    for frames in (20, 70, 30):  # the first and the last share a graph
        known = Known.from_coarse(torch.arange(frames, device="cuda")[None])
        walk = replace(one, decode=both), known, schedule, visited, 3
        *_, codes = denoise(*walk, settling=Settling(3, books))
        assert int(codes.max()) < 1024
    assert sum("capture" in line for line in cuda.log) == 2


def test_what_a_graph_gave_outlives_its_next_run(folder: Path, cuda: Machine) -> None:
    one = nar_estimator(system(folder))
    known = Known.from_coarse(torch.arange(20, device="cuda")[None])
    given, grid = one.conditions([2])[0], known.unknown().repeated(2, 1)
    raw = one.decode(known.codes.repeat(2, 1, 1), given, None, grid, None)  # type: ignore[misc]
    before = raw.clone()
    one.ahead([3], known.unknown())(known.codes + 1, 3)
    assert torch.equal(raw, before)


def test_a_text_that_was_not_finite_spoils_no_later_one(folder: Path, cuda: Machine) -> None:
    there = system(folder)
    schedule, known = (
        cosine_schedule(STEPS).to("cuda"),
        Known.from_coarse(torch.arange(20, device="cuda")[None]),
    )
    good = nar_estimator(there)
    bad = replace(nar_estimator(there, 20), decode=good.decode)
    bad = replace(bad, speaker=torch.full_like(bad.speaker, torch.nan))
    with pytest.raises(GenerationError, match="not finite"):
        list(denoise(bad, known, schedule, 2, 3))
    *_, codes = denoise(good, known, schedule, 2, 3)
    assert int(codes.max()) < 1024


def test_streams_have_their_own_graphs(folder: Path, cuda: Machine) -> None:
    """Two at work at the same time would overwrite what the other reads."""
    there = system(folder)
    one, schedule = nar_estimator(there), cosine_schedule(STEPS).to("cuda")
    known = Known.from_coarse(torch.arange(20, device="cuda")[None])
    for stream in (None, Stream(), None):
        with torch.cuda.stream(stream or cuda.current_stream()):
            list(denoise(one, known, schedule, 2, 3))
    assert sum("capture" in line for line in cuda.log) == 2


# ---------------------------------------------------------------- captures


def test_a_capture_has_its_own_stream_and_is_waited_for(cuda: Machine) -> None:
    x = torch.ones(3, device="cuda")
    first = Replay(lambda: x * 2, x.device)
    Replay(lambda: x * 3, x.device, first)
    one = ["1 waits for 0", "capture on 1, thread_local", "0 waits for 1"]
    assert cuda.log == one + one  # a neighbour's memory can be used on its stream only
    assert first._graph.pool() is not Replay(lambda: x, x.device)._graph.pool()


def test_what_cannot_be_captured_leaves_the_streams_in_order(cuda: Machine) -> None:
    x, runs = torch.ones(3, device="cuda"), 0

    def run() -> Tensor:
        nonlocal runs
        runs += 1
        return x * x.sum().item() if runs == 3 else x

    with pytest.raises(CudaError, match="waits"):
        Replay(run, x.device)
    assert cuda.log[-1] == "0 waits for 1"
    assert cuda.current_stream().cuda_stream == 0
    assert Replay(lambda: x + 1, x.device)().tolist() == [2, 2, 2]


def test_threads_capture_one_after_the_other(cuda: Machine) -> None:
    x = torch.ones(3, device="cuda")
    replays: list[Replay[Tensor]] = []
    other = threading.Thread(target=lambda: replays.append(Replay(lambda: x * 2, x.device)))
    runs = 0

    def run() -> Tensor:
        nonlocal runs
        runs += 1
        if runs == 3:  # while it is captured
            other.start()
            other.join(0.1)
        return x * 3

    assert Replay(run, x.device)().tolist() == [3, 3, 3]
    other.join()
    assert replays[0]().tolist() == [2, 2, 2]


# ---------------------------------------------------------------- the pretended device itself


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "two devices": lambda x: x + torch.ones(3),
    "a mask of the CPU": lambda x: torch.where(torch.ones(3) > 0, x, x),
    "an index of the CPU": lambda x: x[torch.tensor([0])],
    "another number": lambda x: x + torch.ones(3, device="cuda:1"),
    "a generator of the CPU": lambda x: torch.rand(3, generator=torch.Generator(), device="cuda"),
}
NOT_CAPTURED: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "truth": lambda x: bool(x.any()),
    "a copy to the CPU": lambda x: x.cpu(),
    "a copy from the CPU": lambda x: torch.ones(3).to(x.device),
    "a list": lambda x: torch.tensor([1], device="cuda"),
    "an assignment": lambda x: x.__setitem__(slice(2), torch.ones(2)),
    "a mask as an index": lambda x: x[x > 0],
    "an assignment by a mask": lambda x: x.__setitem__(x > 0, 2 * x),
    "places": lambda x: x.nonzero(),
    "a draw": lambda x: torch.rand(3, device="cuda"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str, cuda: Machine) -> None:
    x = torch.ones(3, device="cuda")
    with pytest.raises(CudaError):
        REFUSED[name](x)


@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_refuses_within_a_graph(name: str, cuda: Machine) -> None:
    x, wanted = torch.ones(3, device="cuda"), NOT_CAPTURED[name]
    wanted(x)
    with pytest.raises(CudaError, match="within a graph"):
        Replay(lambda: wanted(x), x.device)


def test_refuses_what_another_device_does_within_a_graph(cuda: Machine) -> None:
    x = torch.ones(3, device="cuda:1")
    with pytest.raises(CudaError, match="not captured"):
        Replay(lambda: x + 1, torch.device("cuda:0"))


@torch.inference_mode()
def test_a_graph_works_when_it_is_replayed(cuda: Machine) -> None:
    x, y = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=Stream()):
        y += x
        doubled = y * 2
    assert isinstance(doubled, CudaTensor)
    assert y.tolist() == [0, 0, 0]
    assert doubled.isnan().all()
    graph.replay()
    x += 1
    graph.replay()
    assert y.tolist() == [3, 3, 3]
    assert doubled.tolist() == [6, 6, 6]
