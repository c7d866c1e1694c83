"""Words replaced inside a recording: the AR writes them, the NAR fills the gap, the rest stays.

    transcripts -> changed words -> frames of the gap -> AR: coarse codes -> NAR: all codebooks

Outside the gaps the codes are those of the recording. A checkpoint that speaks with its own voice
says the new words by themselves, and they are converted to the recording's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mars5.audio import AudioInput, load_reference, trim_interval
from mars5.config import N_CODEBOOKS, SAMPLE_RATE, InferenceConfig
from mars5.engine import Coarse, Engine, Task
from mars5.errors import ConfigError, GenerationError, TextError, VoiceError
from mars5.eval.alignment import align
from mars5.eval.clips import to_judges
from mars5.eval.ears import Recogniser
from mars5.letters import warn_of_letters
from mars5.nar.decode import Known
from mars5.prompt import speech_codes
from mars5.seeds import Seeds
from mars5.text import check_speakable, rewriter
from mars5.text.controls import unescape
from mars5.transcripts import Change, Times, changes, check_end, check_times, gap, heard_times
from mars5.verify import Hearing, Verify, recogniser, verified
from mars5.voice import Voice
from mars5.voice_maker import warn_of_length

ASR = "base"  # finds words better than "tiny.en"
_MAX_PACE = 3.0  # new words may take so many times as long as at the pace of the recording,
_EXTRA_SECONDS = 1.0  # and so much more
_AROUND = 8  # words said on either side of new ones, that these be said as in a sentence
_LEAST_SECONDS_PER_LETTER = 0.02  # nobody speaks three times as fast as people do


@dataclass(frozen=True)
class EditedSpan:
    """One change.

    Attributes:
        old, new: the words before and after, as the transcripts have them, but for the backslash
            of an escaped tag; "" for an insertion or a deletion. What is written out together ("$5
            million") changes together.
        removed: (start, stop) frames of the recording's codes that went.
        frames: (start, stop) frames of the edited codes that came.
    """

    old: str
    new: str
    removed: tuple[int, int]
    frames: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Edited:
    """A recording in which words were changed.

    Attributes:
        audio: (T,) float32 at 24 kHz on the CPU: the sound of all codes, nothing trimmed.
        codes: (n, Q) int64; outside of the `frames` of the spans those of the recording. Those of
            converted words are the nearest to what is heard, as in `Speech`.
        spans: what changed, in order.
        finish_reason: "length" if the AR reached its limit before it ended the speech of some new
            words, else "stop".
        frame_rate: frames of codes per second.
        heard: what a recogniser understood, if that was asked for (`verify`).
    """

    audio: Tensor
    codes: Tensor
    spans: tuple[EditedSpan, ...]
    finish_reason: str
    frame_rate: float
    sample_rate: int = SAMPLE_RATE
    heard: tuple[Hearing, ...] = ()


def edit(
    engine: Engine,
    recording: AudioInput | Voice,
    transcript: str,
    new_transcript: str,
    cfg: InferenceConfig | None,
    times: Times | None,
    check: Verify | None,
    seed: int | None,
    generator: torch.Generator | None,
    lexicon: Mapping[str, str] | None,
    normalise: bool,
) -> Edited:
    """What `Mars5TTS.edit` gives; `generator` is that of the seed, if there is one."""
    rewrite = rewriter(lexicon, normalise)
    check_speakable(transcript, "transcript")
    check_speakable(new_transcript, "new_transcript")
    changed = changes(transcript, new_transcript, rewrite)
    transcript, new_transcript = unescape(transcript), unescape(new_transcript)
    old, new = transcript.split(), new_transcript.split()
    _check_spoken(changed, new, rewrite)
    if times is None:
        recogniser(ASR)  # what is missing is told before the work
    else:
        check_times(times, transcript)
    if cfg is not None and cfg.speed != 1:
        raise ConfigError(
            f"speed is {cfg.speed}, but an edit keeps the pace of its recording: leave speed at 1"
        )
    cfg = replace(cfg or engine.default_config, deep_clone=False, ref_audio_pad=0)
    voice, wave = _loaded(engine, recording, cfg)
    text = rewrite(" ".join(new))
    warn_of_letters(engine.text_tokenizer, [text])
    task = engine.task(text, voice, None, cfg, generator)
    ears = None
    if times is None:
        ears = recogniser(ASR)
        times = heard_times(ears, wave, transcript)
    check_end(times, len(voice.codes) / engine.codec.frame_rate)
    job = _Job(engine, task, old, new, rewrite, times, ears)
    if check is None:
        return job.run(changed)

    def speak(seed: int) -> Edited:
        source = torch.Generator().manual_seed(seed)
        return replace(job, task=replace(task, generator=source)).run(changed)

    return verified(speak, text, check, Seeds(seed, generator).number(0))


def _check_spoken(changed: list[Change], new: list[str], rewrite: Callable[[str], str]) -> None:
    """Refuse new words of which nothing is left when they are written out."""
    for change in changed:
        words = " ".join(new[change.j1 : change.j2])
        if words and not rewrite(words).strip():
            raise TextError(
                f"nothing is said for the new words {words!r}, by the lexicon or as they are "
                "written out: leave them out"
            )


def _loaded(
    engine: Engine, recording: AudioInput | Voice, cfg: InferenceConfig
) -> tuple[Voice, Tensor]:
    """The recording as codes, with speaker vectors, and as a wave (T,) at 24 kHz."""
    if not isinstance(recording, Voice):
        wave = load_reference(recording)
        warn_of_length("recording", wave, cfg, "cut it up")
        return engine.voices.of_wave(wave, cfg), wave
    if recording.is_blend:
        raise VoiceError("the voice is a blend, which has no recording that could be edited")
    voice = engine.voices.of(recording, None, cfg)
    return voice, engine.vocode(voice.codes)[0]


@dataclass
class _Job:
    """One edit.

    Attributes:
        task: the whole new transcript, written out, as a shallow clone of the recording.
        old, new: words of the transcripts, as they were given.
        rewrite: writes words out as they are said.
        times: of the old ones.
        ears: finds the end of new words, if there.
    """

    engine: Engine
    task: Task
    old: list[str]
    new: list[str]
    rewrite: Callable[[str], str]
    times: Times
    ears: Recogniser | None
    finish_reason: str = field(default="stop", init=False)

    def run(self, changed: list[Change]) -> Edited:
        recording, rate = self.task.voice.codes, self.engine.codec.frame_rate
        codes, mask = recording[:0], recording[:0] > 0
        spans, sounds, done = [], {}, 0
        for change in changed:
            start, stop = (min(round(at * rate), len(recording)) for at in gap(change, self.times))
            codes, mask = _extended(codes, mask, recording[done:start])
            first, done = len(codes), stop
            if change.j1 < change.j2:
                fresh, sound = self._new_codes(change, codes[:, 0])
                codes, mask = _extended(codes, mask, fresh)
                if sound is None:
                    mask[first:, 1:] = False
                else:
                    sounds[first] = sound
            old, new = self.old[change.i1 : change.i2], self.new[change.j1 : change.j2]
            frames = (first, len(codes))
            spans.append(EditedSpan(" ".join(old), " ".join(new), (start, stop), frames))
        codes, mask = _extended(codes, mask, recording[done:])
        if not mask.all():
            codes = self._filled(codes, mask)
        audio = self._audio(codes, sounds)
        return Edited(audio, codes, tuple(spans), self.finish_reason, rate)

    @torch.no_grad()
    def _audio(self, codes: Tensor, sounds: dict[int, Tensor]) -> Tensor:
        """(T,) of all codes, with the features of what was converted by its first frame."""
        features = self.engine.vocoder.features(codes[None].to(self.engine.device))
        for first, sound in sounds.items():
            start = first * self.engine.vocoder.dims.stack
            features[..., start : start + sound.shape[2]] = sound
        return self.engine.rendered(features)[0].clone()

    def _new_codes(self, change: Change, before: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes (n, Q) of the new words and their features; without, the codes are coarse ones."""
        engine, task = self.engine, self.task
        fresh = self._fresh(change, before)
        if not task.is_converted:
            return fresh[:, None].expand(-1, N_CODEBOOKS), None
        words = self._said(change.j1, change.j2)
        alone = engine.task(words, task.voice, None, task.cfg, task.generator)
        refined = engine.refined(alone, Coarse(fresh.tolist(), "stop"))
        sound, codes = engine.sound(alone, refined)
        return codes.cpu().clone(), sound

    def _fresh(self, change: Change, before: Tensor) -> Tensor:
        """Coarse codes (n,) of the new words.

        With ears the AR also says words around them, as it has learnt, and the new ones are cut
        out. It goes on from the coarse codes `before` them, or begins afresh where it cannot.
        """
        first, stop = change.j1, change.j2
        if self.ears is not None:
            stop = min(len(self.new), change.j2 + _AROUND)
            if not self.engine.goes_on_from(self.task.voice):
                first, before = max(0, change.j1 - _AROUND), before[:0]
        new = self._said(change.j1, change.j2)
        parts = [self._said(first, change.j1), new, self._said(change.j2, stop)]
        text = " ".join(part for part in parts if part)
        fresh = self._written(self._said(0, first), before, text)
        if len(fresh) and self.ears is not None:
            start = len(parts[0].split())
            wave = to_judges(self._sound(before, fresh).numpy(), SAMPLE_RATE)
            heard = align(self.ears, wave, text)[start : start + len(new.split())]
            rate = self.engine.codec.frame_rate
            begin = round(heard[0].start * rate) if start else 0
            fresh = fresh[begin : round(heard[-1].end * rate)]
        return self._checked(before, fresh, new)

    def _checked(self, before: Tensor, fresh: Tensor, new: str) -> Tensor:
        """Fresh codes without silence at their ends, if they can be all of the words `new`."""
        spoken = self._without_silence(before, fresh) if len(fresh) else fresh
        if len(spoken) < _LEAST_SECONDS_PER_LETTER * len(new) * self.engine.codec.frame_rate:
            seconds = len(spoken) / self.engine.codec.frame_rate
            raise GenerationError(
                f"the model gave {seconds:.2f} s of speech for the new words {new!r}, too little "
                "to say them: try another seed"
            )
        return spoken

    def _said(self, start: int, stop: int) -> str:
        """The words `start` to `stop` of the new transcript as they are said."""
        return self.rewrite(" ".join(self.new[start:stop]))

    def _written(self, said: str, before: Tensor, text: str) -> Tensor:
        """Coarse codes (n,) of `text`, by the AR, after those `before`, which say `said`."""
        engine, voice, source = self.engine, self.task.voice, self.task.generator
        if said and len(before):
            task = engine.continuation(text, voice, before, said, self.task.cfg, source)
        else:
            task = engine.task(text, voice, None, self.task.cfg, source)
        cfg = task.cfg
        most = min(cfg.max_len, len(task.prompt.ids) + self._most_frames(text))
        task = replace(task, cfg=replace(cfg, generate_max_len_override=most))
        coarse = engine.coarse(task, list(engine.draw(task)))
        if coarse.finish_reason != "stop":
            self.finish_reason = coarse.finish_reason
        text_ids, drop_first = engine.vocabulary.n_text, engine.config.prompt.drop_first
        given = speech_codes(task.prompt, [], text_ids, engine.speech_tokenizer, drop_first)
        return torch.tensor(coarse.codes[len(given) :], dtype=torch.int64)

    def _most_frames(self, text: str) -> int:
        """More than the words can take, at the pace of the recording: the end of a babble."""
        letters = len(self.rewrite(" ".join(self.old)))
        seconds_per_letter = (self.times[-1][1] - self.times[0][0]) / max(1, letters)
        seconds = _EXTRA_SECONDS + _MAX_PACE * seconds_per_letter * len(text)
        return math.ceil(seconds * self.engine.codec.frame_rate)

    def _without_silence(self, before: Tensor, fresh: Tensor) -> Tensor:
        """Fresh codes without the silence at their ends: a last word is followed by some."""
        wave = self._sound(before, fresh)
        samples = len(wave) // len(fresh)
        start, end = trim_interval(wave, self.task.cfg.trim_db)
        spoken = fresh[start // samples : -(-end // samples)]
        return spoken if len(spoken) else fresh

    def _sound(self, before: Tensor, fresh: Tensor) -> Tensor:
        """(T,) of the fresh coarse codes, as they sound after those before."""
        wave = self.engine.vocode(torch.cat([before, fresh]))[0]
        return wave[len(wave) // (len(before) + len(fresh)) * len(before) :]

    def _filled(self, codes: Tensor, mask: Tensor) -> Tensor:
        """All codes (n, Q), by the NAR, which sees those on both sides of what is not known."""
        device = self.engine.device
        known = Known(codes[None].to(device), mask[None].to(device))
        estimator = self.engine.estimator(self.task)
        *_, filled = self.engine.denoise(estimator, known, self.task.cfg, self.task.generator)
        return filled[0].cpu().clone()


def _extended(codes: Tensor, mask: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (n, Q) and what of them is known, with `more` behind them, which is."""
    known = torch.ones_like(more, dtype=torch.bool)
    return torch.cat([codes, more]), torch.cat([mask, known])
