"""A stream gives the whole, chunk by chunk, without seams, and stops when it is told to."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mars5 import InferenceConfig, Mars5TTS, engine
from mars5.engine import Coarse
from mars5.errors import ConfigError, GenerationError, MissingExtraError, TextError
from mars5.nar.decode import Known
from mars5.nar.model import ResidualTransformer
from mars5.seeds import Seeds
from mars5.streaming import edges, utterance
from mars5.streaming.asynchronous import read_ahead
from mars5.streaming.edges import FADE, Edges
from mars5.verify import Verify
from mars5.voice import Voice

SHALLOW = InferenceConfig(
    timesteps=2, generate_max_len_override=150, top_k=0, top_p=0.9, deep_clone=False
)
DEEP = replace(SHALLOW, deep_clone=True, generate_max_len_override=230)
ONE = "the hen then said hello to the other hen"
LONG = "The evening train was almost empty, so we sat by the window and talked about the weather."
TWO = f"{ONE}. Then the other one said hello there."


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(speechlike, "he said")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids that the AR has drawn, as they come."""
    drawn: list[int] = []
    generate_ids = engine.generate_ids

    def counted(*args: Any) -> Iterator[int]:
        for token in generate_ids(*args):
            drawn.append(token)
            yield token

    monkeypatch.setattr(engine, "generate_ids", counted)
    return drawn


# ---------------------------------------------------------------- the whole


@pytest.mark.parametrize(("text", "cfg"), [(ONE, SHALLOW), (ONE, DEEP), (TWO, SHALLOW)])
def test_all_chunks_are_the_whole(
    tiny: Mars5TTS, voice: Voice, text: str, cfg: InferenceConfig
) -> None:
    whole = tiny.generate(text, voice, cfg=cfg, seed=3)
    stream = tiny.stream(text, voice, cfg=cfg, seed=3)
    chunks = list(stream)
    speech = stream.speech
    assert torch.equal(speech.ar_codes, whole.ar_codes)
    assert speech.codes.shape == whole.codes.shape
    assert torch.equal(speech.codes[:, 0], whole.codes[:, 0])
    assert torch.equal(torch.cat([chunk.audio for chunk in chunks]), speech.audio)
    assert len(chunks) > len(whole.pieces)
    assert all(len(chunk.audio) for chunk in chunks)
    assert speech.audio.isfinite().all()
    assert [piece.text for piece in speech.pieces] == [piece.text for piece in whole.pieces]
    assert speech.finish_reason == whole.finish_reason
    ends = [chunk.piece for chunk in chunks if chunk.ends_piece]
    assert ends == list(range(len(whole.pieces)))
    again = tiny.stream(text, voice, cfg=cfg, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([chunk.audio for chunk in again]), speech.audio)


def test_no_sample_is_missing_or_there_twice(tiny: Mars5TTS, voice: Voice) -> None:
    stream = tiny.stream(ONE, voice, cfg=replace(SHALLOW, trim_db=200), seed=3)
    list(stream)
    audio, whole = stream.speech.audio, tiny.vocode(stream.speech.codes)[0]
    assert len(audio) == len(whole)
    same = (audio - whole).abs() < 1e-4
    assert same.float().mean() > 0.5  # all but what was heard before its right context was there
    assert same[-10_000:-FADE].float().mean() > 0.9  # behind all joins


def test_joins_cannot_be_told_from_the_inside(
    tiny: Mars5TTS, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version of the wave is off by another constant: without a cross-fade it would jump."""
    samples = 640

    def span(features: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        t, n = torch.arange(start * samples, stop * samples), features.shape[2] // 2
        return (0.3 * torch.sin(2 * torch.pi * 200 * t / 24_000) + n % 7 / 20)[None]

    monkeypatch.setattr(tiny.vocoder, "span", span)
    stream = tiny.stream(ONE, voice, cfg=SHALLOW, seed=3)
    chunks = [chunk.audio for chunk in stream]
    assert len(chunks) > 2
    jumps = stream.speech.audio.diff().abs()
    joins = torch.tensor([len(chunk) for chunk in chunks]).cumsum(0)[:-1]
    bend = stream.speech.audio.diff(n=2).abs()
    assert jumps.max() < 0.3 * 2 * torch.pi * 200 / 24_000 + 0.3 / 1000 + 1e-3
    for join in joins.tolist():
        near = slice(join - 1500, join + 1500)
        assert jumps[near].max() <= jumps.max()
        assert bend[near].max() < 1.5 * bend[FADE : joins[0] - 3000].max()


def test_the_spectrum_shows_no_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 8 kHz, where a click is heard, the embedded checkpoint's joins are as all its codes."""
    nano = Mars5TTS.from_pretrained(device="cpu")
    monkeypatch.setattr(edges, "FLOOR_DB", -200.0)  # nothing is cut off at the ends
    cfg = replace(nano.default_config, trim_db=200)
    ratios = []
    for seed in range(3):
        stream = nano.stream(LONG, cfg=cfg, seed=seed)
        chunks = [chunk.audio for chunk in stream]
        found, whole = stream.speech.audio, nano.vocode(stream.speech.codes)[0]
        assert len(found) == len(whole)
        streamed, plain = (treble(wave) for wave in (found, whole))
        for join in torch.tensor([len(chunk) for chunk in chunks]).cumsum(0)[:-1].tolist():
            near = slice(join // 60 - 4, join // 60 + 4)  # 10 ms either way
            ratios.append(float(streamed[near].max() / (plain[near].max() + plain.median())))
    assert len(ratios) >= 9
    assert max(ratios) < 10  # of some without a cross-fade: thousands


def treble(wave: torch.Tensor) -> torch.Tensor:
    """The energy above 8 kHz in each 10 ms, every 60 samples."""
    window = torch.hann_window(240)
    spectrum = torch.stft(wave, 240, 60, window=window, return_complex=True)
    return spectrum[80:].abs().square().sum(0)


def test_the_first_sound_is_timed(tiny: Mars5TTS, voice: Voice) -> None:
    stream = tiny.stream(ONE, voice, cfg=SHALLOW, seed=3)
    with pytest.raises(GenerationError, match="iterate over it first"):
        _ = stream.speech
    assert stream.first_sound_seconds is None
    next(stream)
    first = stream.first_sound_seconds
    assert first is not None
    assert first > 0
    list(stream)
    assert stream.speech.first_sound_seconds == stream.first_sound_seconds == first


def test_the_speech_says_how_it_was_directed(tiny: Mars5TTS, voice: Voice) -> None:
    words = "warm and reassuring"
    stream = tiny.stream(ONE, voice, seed=1, profile="flash", instructions=words)
    next(stream)
    stream.close()  # before a piece is finished
    assert stream.speech.profile is not None
    assert stream.speech.profile.name == "flash"
    assert stream.speech.style is not None
    assert stream.speech.style.style.name == "warm"
    assert stream.speech.codes.shape[1] == 8


def test_pauses_are_silence_of_their_length(tiny: Mars5TTS, voice: Voice) -> None:
    stream = tiny.stream(f"{ONE} [pause 0.5s] {ONE}", voice, cfg=SHALLOW, seed=3)
    list(stream)
    first, second = stream.speech.pieces
    assert second.start - first.stop == 12_000
    assert not stream.speech.audio[first.stop : second.start].any()
    assert stream.speech.audio[first.start : first.stop].any()


def refined_from_all(self: Any, coarse: Coarse) -> torch.Tensor:
    """What `_Wave._refine` gives with no limit to what the NAR sees: the plain rule."""
    estimator, known = self._engine.refinement(self._task, coarse)
    start = sum(self._engine.reference_frames(self._task))
    codes, mask = known.codes.clone(), known.mask.clone()
    finished = slice(start, start + len(self.finished))
    codes[0, finished], mask[0, finished] = self.finished, True
    known = Known(codes, mask)
    *_, codes = self._engine.denoise(estimator, known, self._task.cfg, self._refinement)
    return codes[0, start:]


@pytest.mark.parametrize("cfg", [SHALLOW, DEEP])
def test_a_window_as_long_as_the_speech_is_no_window(
    tiny: Mars5TTS, voice: Voice, cfg: InferenceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoken() -> torch.Tensor:
        stream = tiny.stream(ONE, voice, cfg=cfg, seed=3)
        list(stream)
        return stream.speech.codes

    monkeypatch.setattr(utterance, "CHUNK_SECONDS", (0.53,))
    monkeypatch.setattr(utterance, "CONTEXT_SECONDS", 0.27)
    short = spoken()
    monkeypatch.setattr(utterance, "CONTEXT_SECONDS", len(short) / tiny.engine.codec.frame_rate)
    long = spoken()
    monkeypatch.setattr(utterance._Wave, "_refine", refined_from_all)
    assert torch.equal(long, spoken())
    assert not torch.equal(short, long)
    assert torch.equal(short[:, 0], long[:, 0])
    assert torch.equal(short[:15], long[:15])  # of the first chunk


@pytest.mark.parametrize("cfg", [SHALLOW, DEEP])
def test_the_work_for_a_chunk_does_not_grow(
    tiny: Mars5TTS, voice: Voice, cfg: InferenceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[int]] = []
    texts: list[int] = []
    vocoded: list[int] = []
    decode, conditions = ResidualTransformer.decode, ResidualTransformer.conditions
    synthesise = tiny.vocoder.synthesise

    def decoded(self: ResidualTransformer, x: torch.Tensor, *args: Any) -> torch.Tensor:
        shown.append(args[-1].tolist())
        assert x.shape[1] == len(shown[-1])
        return decode(self, x, *args)

    def conditioned(self: ResidualTransformer, *args: Any) -> Any:
        texts.append(len(args[0]))
        return conditions(self, *args)

    def synthesised(features: torch.Tensor) -> torch.Tensor:
        vocoded.append(features.shape[2] // tiny.vocoder.dims.stack)
        return synthesise(features)

    monkeypatch.setattr(ResidualTransformer, "decode", decoded)
    monkeypatch.setattr(ResidualTransformer, "conditions", conditioned)
    monkeypatch.setattr(tiny.vocoder, "synthesise", synthesised)
    monkeypatch.setattr(utterance, "CHUNK_SECONDS", (0.27,))  # 10 frames, and one at most more
    monkeypatch.setattr(utterance, "CONTEXT_SECONDS", 0.4)  # 15
    stream = tiny.stream(ONE, voice, cfg=cfg, seed=3)
    list(stream)
    reference = len(voice.codes) if cfg.deep_clone else 0
    n = len(stream.speech.codes)
    assert n > 60
    assert len(vocoded) > 5
    assert max(map(len, shown)) <= reference + 15 + 3 + 11
    assert max(vocoded) <= 11 + 3 + 2 + 2 * tiny.vocoder.context
    assert texts == [cfg.timesteps * (1 if cfg.nar_guidance_w == 1 else 2)]  # once for all chunks
    last = shown[-1]
    assert last[:reference] == list(range(reference))
    assert last[reference:] == list(range(last[reference], reference + n))
    assert last[reference] > reference


# ---------------------------------------------------------------- text that arrives


def test_speech_starts_when_the_first_sentence_is_complete(tiny: Mars5TTS, voice: Voice) -> None:
    read = []

    def parts() -> Iterator[str]:
        for part in (ONE, ". Then", " he said", " hello there to the hen", "."):
            read.append(part)
            yield part

    stream = tiny.stream(parts(), voice, cfg=SHALLOW, seed=3)
    assert read == []
    next(stream)
    assert len(read) == 2
    list(stream)
    whole = tiny.stream("".join(read), voice, cfg=SHALLOW, seed=3)
    list(whole)
    assert torch.equal(stream.speech.audio, whole.speech.audio)


def test_an_error_leaves_what_was_given(tiny: Mars5TTS, voice: Voice) -> None:
    stream = tiny.stream(iter([f"{ONE}. T", "\0"]), voice, cfg=SHALLOW, seed=3)
    given: list[torch.Tensor] = []
    with pytest.raises(TextError, match="control character"):
        given.extend(chunk.audio for chunk in stream)
    assert torch.equal(stream.speech.audio, torch.cat(given))
    assert [piece.text for piece in stream.speech.pieces] == [f"{ONE}."]
    assert next(stream, None) is None


@pytest.mark.parametrize("text", [None, 5, b"words", "", "a\0b", "some words " * 10_000])
def test_what_can_be_refused_is_refused_at_once(tiny: Mars5TTS, voice: Voice, text: Any) -> None:
    with pytest.raises(TextError):
        tiny.stream(text, voice)
    with pytest.raises(ConfigError, match="seed"):
        tiny.stream(ONE, voice, seed=-1)


def test_a_stream_cannot_be_verified(tiny: Mars5TTS, voice: Voice) -> None:
    for verify in (True, Verify()):
        with pytest.raises(ConfigError, match=r"narrate\(\.\.\., verify=True\)"):
            tiny.stream(ONE, voice, verify=verify)


# ---------------------------------------------------------------- stopping


def test_closing_ends_the_work(tiny: Mars5TTS, voice: Voice, steps: list[int]) -> None:
    with tiny.stream(ONE, voice, cfg=SHALLOW, seed=3) as stream:
        next(stream)
        done = len(steps)
    stream.close()
    assert next(stream, None) is None
    assert len(steps) == done
    assert done < 30
    wanted = tiny.generate(ONE, voice, cfg=SHALLOW, seed=3)
    assert torch.equal(wanted.ar_codes, tiny.generate(ONE, voice, cfg=SHALLOW, seed=3).ar_codes)


def test_closing_while_a_chunk_is_made_ends_it_at_the_next_step(
    tiny: Mars5TTS, voice: Voice, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_ids = engine.generate_ids  # which counts

    def closing(*args: Any) -> Iterator[int]:
        for token in generate_ids(*args):
            if len(steps) == 5:
                stream.close()  # as another thread would: the stream is at work
            yield token

    monkeypatch.setattr(engine, "generate_ids", closing)
    stream = tiny.stream(ONE, voice, cfg=SHALLOW, seed=3)
    assert next(stream, None) is None
    assert len(steps) == 5


# ---------------------------------------------------------------- read ahead


def test_read_ahead_gives_the_same_and_closes(tiny: Mars5TTS, voice: Voice) -> None:
    wanted = tiny.stream(TWO, voice, cfg=SHALLOW, seed=3)
    list(wanted)
    stream = tiny.stream(TWO, voice, cfg=SHALLOW, seed=3)
    chunks = [chunk.audio for chunk in read_ahead(stream)]
    assert torch.equal(torch.cat(chunks), wanted.speech.audio)
    assert next(stream, None) is None


def test_read_ahead_passes_errors_on_after_what_was_given(tiny: Mars5TTS, voice: Voice) -> None:
    stream = tiny.stream(iter([f"{ONE}. T", "\0"]), voice, cfg=SHALLOW, seed=3)
    given: list[torch.Tensor] = []
    with pytest.raises(TextError, match="control character"):
        given.extend(chunk.audio for chunk in read_ahead(stream))
    assert torch.equal(stream.speech.audio, torch.cat(given))


def test_who_stops_reading_ends_the_work(tiny: Mars5TTS, voice: Voice, steps: list[int]) -> None:
    closed = threading.Event()

    def parts() -> Iterator[str]:
        try:
            for _ in range(20):
                yield f"{ONE}. "
        finally:
            closed.set()

    chunks = read_ahead(tiny.stream(parts(), voice, cfg=SHALLOW, seed=3))
    next(chunks)
    chunks.close()
    assert closed.wait(20)
    done = len(steps)
    assert done < 400  # of about 2000
    time.sleep(0.2)
    assert len(steps) == done
    assert not [thread for thread in threading.enumerate() if thread.name == "mars5-stream"]


def test_the_next_chunk_waits_until_one_is_taken(tiny: Mars5TTS, voice: Voice) -> None:
    stream = tiny.stream(f"{TWO} {TWO}", voice, cfg=SHALLOW, seed=3)
    chunks = read_ahead(stream)
    first = next(chunks)
    last, deadline = -1, time.monotonic() + 20
    while last != (last := len(stream.speech.audio)) and time.monotonic() < deadline:
        time.sleep(1.0)
    assert len(first.audio) <= last
    assert last < len(first.audio) + sum(len(chunk.audio) for chunk in chunks) - 1
    assert len(stream.speech.pieces) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_an_interrupt_ends_the_wait_for_text() -> None:
    """Also the interpreter ends, which would join a thread of an executor."""
    code = """
import signal, time
from mars5.streaming.asynchronous import read_ahead

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job may ignore it

class Waiting:
    def __iter__(self):
        return self
    def __next__(self):
        print("waits", flush=True)
        time.sleep(1000)
    def close(self):
        pass

list(read_ahead(Waiting()))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"waits\n"
            process.send_signal(signal.SIGINT)
            assert b"KeyboardInterrupt" in process.communicate(timeout=20)[1]
        finally:
            process.kill()


# ---------------------------------------------------------------- async


def collect(make: Callable[[], AsyncIterator[Any]]) -> list[Any]:
    async def run() -> list[Any]:
        return [chunk async for chunk in make()]

    return asyncio.run(run())


def test_async_gives_the_same(tiny: Mars5TTS, voice: Voice) -> None:
    async def words() -> AsyncIterator[str]:
        for word in TWO.split():
            await asyncio.sleep(0)
            yield f"{word} "

    wanted = tiny.stream(TWO, voice, cfg=SHALLOW, seed=3)
    list(wanted)
    for text in (TWO, words()):
        chunks = collect(lambda text=text: tiny.astream(text, voice, cfg=SHALLOW, seed=3))
        assert torch.equal(torch.cat([chunk.audio for chunk in chunks]), wanted.speech.audio)
    with pytest.raises(TextError):
        collect(lambda: tiny.astream("", voice))


def test_cancelling_ends_the_work(tiny: Mars5TTS, voice: Voice, steps: list[int]) -> None:
    async def run() -> None:
        async def read() -> None:
            async for _ in tiny.astream(f"{TWO} {TWO}", voice, cfg=SHALLOW, seed=3):
                pass

        task = asyncio.create_task(read())
        while not steps:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert len(steps) < 150  # of about 400


def test_a_text_that_is_cancelled_is_not_at_its_end(tiny: Mars5TTS, voice: Voice) -> None:
    async def words() -> AsyncIterator[str]:
        yield f"{TWO} "
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        collect(lambda: tiny.astream(words(), voice, cfg=SHALLOW, seed=3))


def test_a_text_that_never_comes_does_not_hold_up_the_end(tiny: Mars5TTS, voice: Voice) -> None:
    async def never() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def run() -> None:
        chunks = tiny.astream(never(), voice, cfg=SHALLOW)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(chunks), 1.0)

    asyncio.run(run())


# ---------------------------------------------------------------- edges


def sounding(*lengths: int) -> torch.Tensor:
    """Silence, sound, silence, ... of these lengths."""
    parts = []
    for place, length in enumerate(lengths):
        tone = 0.3 * torch.sin(torch.arange(length) * 0.3)
        parts.append(tone if place % 2 else torch.full((length,), 1e-5))
    return torch.cat(parts)


@given(cuts=st.lists(st.integers(0, 30_000), max_size=8))
@settings(max_examples=40, deadline=None)
def test_edges_do_not_depend_on_the_parts(cuts: list[int]) -> None:
    wave = sounding(5000, 6000, 4000, 3000, 12_000)
    places = sorted({0, len(wave), *cuts})
    edges = Edges(27)
    parts = [edges.feed(wave[a:b]) for a, b in pairwise(places)]
    out = torch.cat([*parts, edges.finish()])
    start, stop = 8 * 512, 36 * 512 + 1024  # a block before the sound, and what is kept after
    assert len(out) == stop - start
    assert torch.equal(out[FADE:-FADE], wave[start:stop][FADE:-FADE])
    assert out[0].abs() < 1e-4


def test_edges_hold_silence_until_sound_follows() -> None:
    edges = Edges(27)
    assert len(edges.feed(sounding(20_000))) == 0
    assert len(edges.feed(sounding(0, 5000))) > 4000
    assert len(edges.feed(sounding(20_000))) < 2000
    assert len(edges.feed(sounding(0, 5000))) > 20_000


def test_edges_of_what_is_quiet_all_along() -> None:
    edges = Edges(27)
    assert len(edges.feed(2e-3 * sounding(10_000, 5000, 10_000))) == 0
    assert 5000 < len(edges.finish()) < 8000


# ---------------------------------------------------------------- seeds


def test_seeds_of_pieces() -> None:
    def drawn(generator: torch.Generator | None) -> int:
        return int(torch.randint(2**40, (), generator=generator))

    one, same = Seeds(5), Seeds(None, torch.Generator().manual_seed(5))
    numbers = [drawn(one.of_piece(piece)) for piece in range(4)]
    assert len(set(numbers)) == 4
    assert numbers[0] == drawn(torch.Generator().manual_seed(5))
    assert numbers == [drawn(same.of_piece(piece)) for piece in range(4)]
    assert drawn(torch.Generator().manual_seed(one.number(2))) == numbers[2]
    assert one.number(0) == 5
    assert drawn(one.of_piece(2, attempt=1)) != numbers[2]
    torch.manual_seed(5)
    assert drawn(Seeds().of_piece(1)) == numbers[1]


# ---------------------------------------------------------------- playing


def test_playing_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from mars5.streaming.playing import loudspeaker

    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"mars5\[play\]"), loudspeaker():
        pass
