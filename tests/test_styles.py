"""Styles: what feeds which model, banks, and how words choose."""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.audio import write_audio
from mars5.engine import Task
from mars5.errors import ConfigError, Mars5Error, StyleError, VoiceError
from mars5.prompt import build_prompt
from mars5.style_words import compare, words_of
from mars5.styles import MANIFEST, SHIPPED, Style, StyleBank

TEXT = "Hello there."
DEEP = InferenceConfig(timesteps=2, generate_max_len_override=150, freq_penalty=0.0)
SHALLOW = replace(DEEP, deep_clone=False)


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(torch.from_numpy(speechlike), "The voice.")


@pytest.fixture(scope="module")
def style(tiny: Mars5TTS, speechlike: np.ndarray) -> Voice:
    return tiny.voice(torch.from_numpy(speechlike[::-1][:20_000].copy()), "A style clip.")


class Seen:
    """What the two models were given in one generation."""

    def __init__(self, system: Mars5TTS, voice: Voice, cfg: InferenceConfig) -> None:
        self.task: Task = system.engine.task(
            TEXT, voice, None, cfg, torch.Generator().manual_seed(3)
        )
        ids = self.task.prompt.ids[self.task.prompt.n_text :]
        # The new speech: three ids after the prompt, and the end.
        shift = system.vocabulary.n_text
        new = [system.speech_tokenizer.encode([code])[0] + shift for code in (5, 6, 7)]
        coarse = system.engine.coarse(self.task, [*new, system.vocabulary.end])
        _, known = system.engine.refinement(self.task, coarse)
        self.ar_speaker = self.task.ar_speaker
        self.ar_text = self.task.prompt.ids[: self.task.prompt.n_text]
        self.ar_codes = system.speech_tokenizer.decode([i - shift for i in ids])
        self.nar_speaker = self.task.voice.nar_speaker
        self.known = known


def text_ids(system: Mars5TTS, transcript: str | None) -> list[int]:
    prompt = build_prompt(TEXT, transcript, [], system.text_tokenizer, system.speech_tokenizer)
    return prompt.ids


def test_a_style_feeds_the_ar_alone_in_a_shallow_clone(
    tiny: Mars5TTS, voice: Voice, style: Voice
) -> None:
    seen = Seen(tiny, voice.with_style(style), SHALLOW)
    assert torch.equal(seen.ar_speaker, style.ar_speaker)
    assert torch.equal(seen.nar_speaker, voice.nar_speaker)
    assert seen.ar_codes == []
    assert seen.ar_text == text_ids(tiny, None)
    assert seen.known.codes[0, :, 0].tolist() == [5, 6, 7]


def test_in_a_deep_clone_the_ar_continues_the_style_and_the_nar_the_voice(
    tiny: Mars5TTS, voice: Voice, style: Voice
) -> None:
    seen = Seen(tiny, voice.with_style(style), DEEP)
    assert seen.ar_codes == style.codes[:, 0].tolist()
    assert seen.ar_text == text_ids(tiny, style.transcript)
    n = len(voice.codes)
    assert torch.equal(seen.known.codes[0, :n], voice.codes)
    assert seen.known.mask[0, :n].all()
    assert seen.known.codes[0, n:, 0].tolist() == [5, 6, 7]
    assert not seen.known.mask[0, n:, 1:].any()


def test_the_nar_reads_the_transcript_of_the_voice(
    tiny: Mars5TTS, voice: Voice, style: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    monkeypatch.setattr(
        "mars5.engine.Estimator", lambda _, ids, *__, **___: read.append(ids.tolist())
    )
    task = tiny.engine.task(TEXT, voice.with_style(style), None, DEEP, None)
    tiny.engine.estimator(task)
    assert read == [[text_ids(tiny, voice.transcript)]]


def test_a_reference_that_is_repeated_stays_the_voice(
    tiny_folder: Path, tiny: Mars5TTS, voice: Voice, style: Voice
) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu")
    convention = replace(system.config.prompt, repeat_reference=True)
    system.engine.config = replace(system.config, prompt=convention)
    seen = Seen(system, voice.with_style(style), DEEP)
    l0 = voice.codes[:, 0].tolist()
    assert seen.known.codes[0, :, 0].tolist() == [*l0, *l0, 5, 6, 7]
    assert sum(system.engine.reference_frames(seen.task)) == 2 * len(l0)


@pytest.mark.parametrize("which", ["voice", "style"])
def test_each_model_continues_only_what_has_a_transcript(
    which: str, tiny: Mars5TTS, voice: Voice, style: Voice
) -> None:
    parts = {"voice": voice, "style": style}
    parts[which] = replace(parts[which], transcript=None)
    seen = Seen(tiny, parts["voice"].with_style(parts["style"]), DEEP)
    n = len(seen.known.codes[0]) - 3
    assert n == (0 if which == "voice" else len(voice.codes))
    assert len(seen.ar_codes) == (0 if which == "style" else len(style.codes))


def test_strength_zero_is_the_voice_and_one_half_is_where_the_prompt_changes(
    voice: Voice, style: Voice
) -> None:
    assert voice.with_style(style, 0) is voice
    weak, strong = voice.with_style(style, 0.49), voice.with_style(style, 0.5)
    assert weak.delivery is weak
    assert strong.delivery is style
    assert torch.equal(weak.codes, voice.codes)


def test_a_mixture_lies_between_and_keeps_its_length(voice: Voice, style: Voice) -> None:
    mixed = voice.with_style(style, 0.3).ar_speaker
    blend = Voice.blend([(voice, 0.7), (style, 0.3)])
    torch.testing.assert_close(mixed, blend.ar_speaker)
    length = 0.7 * voice.ar_speaker.norm() + 0.3 * style.ar_speaker.norm()
    torch.testing.assert_close(mixed.norm(), length)


def test_a_difference_is_added_and_the_voice_goes_on_as_itself(
    tiny: Mars5TTS, voice: Voice, style: Voice, speechlike: np.ndarray
) -> None:
    plain = tiny.voice(torch.from_numpy(speechlike[9_000:]), "A plain clip.")
    styled = voice.with_style(style, 0.7, plain=plain)
    sum_ = voice.ar_speaker + 0.7 * (style.ar_speaker - plain.ar_speaker)
    torch.testing.assert_close(styled.ar_speaker / styled.ar_speaker.norm(), sum_ / sum_.norm())
    assert styled.delivery is styled
    assert Seen(tiny, styled, DEEP).ar_codes == voice.codes[:, 0].tolist()
    same = voice.with_style(style, 1, plain=style).ar_speaker
    torch.testing.assert_close(same, voice.ar_speaker)


def test_a_difference_that_leaves_nothing_is_refused(voice: Voice, style: Voice) -> None:
    long = replace(style, ar_speaker=3 * voice.ar_speaker)
    with pytest.raises(VoiceError, match="cancel out in ar_speaker"):
        voice.with_style(style, 1, plain=long)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan"), True, "half"])
def test_strengths_that_are_refused(strength: Any, voice: Voice, style: Voice) -> None:
    with pytest.raises(ConfigError, match="style_strength must be a number from 0 to 1"):
        voice.with_style(style, strength)


def test_a_voice_with_a_style_is_not_saved_blended_styled_or_taken_elsewhere(
    tiny: Mars5TTS, voice: Voice, style: Voice, tmp_path: Path
) -> None:
    styled = voice.with_style(style, 0.4)
    for refused in (
        lambda: styled.save(tmp_path / "a.voice"),
        lambda: Voice.blend([(styled, 1)]),
        lambda: styled.with_style(style),
        lambda: voice.with_style(styled),
        lambda: tiny.generate(TEXT, replace(styled, checkpoint="another")),
        lambda: voice.with_style(replace(style, checkpoint="another")),
    ):
        with pytest.raises(VoiceError):
            refused()


@pytest.mark.parametrize("cfg", [SHALLOW, DEEP])
def test_generate_with_a_style_is_generate_with_the_directed_voice(
    cfg: InferenceConfig, tiny: Mars5TTS, voice: Voice, style: Voice
) -> None:
    one = tiny.generate(TEXT, voice, cfg=cfg, seed=4, style=style, style_strength=0.8)
    voice_with = tiny.directed(voice, style=style, style_strength=0.8)
    other = tiny.generate(TEXT, voice_with, cfg=cfg, seed=4)
    assert torch.equal(one.codes, other.codes)
    codes, audio = tiny.tts(TEXT, voice, cfg=cfg, seed=4, style=style, style_strength=0.8)
    assert torch.equal(codes, one.ar_codes)
    assert torch.equal(audio, one.audio)
    (batched,) = tiny.tts_batch([TEXT], voice_with, cfg=cfg, seeds=4)
    assert torch.equal(batched.codes, one.codes)


def test_generate_without_strength_is_generate_without_style(
    tiny: Mars5TTS, voice: Voice, style: Voice
) -> None:
    one = tiny.generate(TEXT, voice, cfg=DEEP, seed=4, style=style, style_strength=0)
    assert torch.equal(one.codes, tiny.generate(TEXT, voice, cfg=DEEP, seed=4).codes)


@pytest.mark.parametrize(
    "given",
    [{"style": "a.wav", "instructions": "warm"}, {"style_strength": 0.5}],
)
def test_contradictions_are_refused(given: dict[str, Any], tiny: Mars5TTS, voice: Voice) -> None:
    with pytest.raises(ConfigError, match="style"):
        tiny.generate(TEXT, voice, cfg=SHALLOW, **given)


# banks


def row(name: str = "one", **fields: Any) -> dict[str, Any]:
    return {"name": name, "file": f"{name}.wav", "caption": "warm", "licence": "mine", **fields}


def write_bank(folder: Path, *rows: Any) -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (folder / MANIFEST).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("instructions", "name"),
    [
        ("warm and reassuring", "warm"),
        ("Speak slowly, please, and sadly.", "sad"),
        ("fast and excited", "excited"),
        ("like a news anchor", "announcer"),
        ("not fast, gentle", "soothing"),
        ("calm, like a bedtime story", "soothing"),
        ("bored", "monotone"),
        ("a deep, dramatic voice", "solemn"),
    ],
)
def test_the_shipped_bank_has_what_people_ask_for(
    instructions: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mars5"):
        choice = StyleBank.shipped().choose(instructions)
    assert choice.style.name == name
    assert choice.style.caption in choice.reason
    assert f"style {name}: " in caplog.text


@pytest.mark.parametrize("instructions", ["banana", "xyzzy plugh", "please speak"])
def test_unknown_instructions_list_what_there_is(instructions: str) -> None:
    with pytest.raises(StyleError) as caught:
        StyleBank.shipped().choose(instructions)
    assert isinstance(caught.value, Mars5Error)
    for style in StyleBank.shipped().styles:
        assert f"{style.name} ({style.caption})" in str(caught.value)


def test_the_shipped_bank_is_small_whole_and_free(tiny: Mars5TTS) -> None:
    styles = StyleBank.shipped().styles
    assert len(styles) == 13
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 200_000
    for style in styles:
        assert style.plain is not None
        assert "CMU" in style.licence
        assert style.path.is_file()
    prepared = tiny.directed(tiny.voice(styles[0].path), style=styles[0]).style
    assert prepared is not None
    assert prepared.transcript == styles[0].text


def test_instructions_choose_and_the_result_tells(
    tiny: Mars5TTS, voice: Voice, tmp_path: Path, speechlike: np.ndarray
) -> None:
    write_audio(tmp_path / "one.wav", torch.from_numpy(speechlike))
    bank = StyleBank(SHIPPED, write_bank(tmp_path, row(caption="pirate, rough and loud")))
    choice = bank.choose("a rough pirate")
    assert choice.style.path == tmp_path / "one.wav"
    speech = tiny.generate(TEXT, voice, cfg=SHALLOW, seed=1, style=choice)
    assert speech.style is choice
    system = tiny
    try:
        system.style_bank = bank
        same = system.generate(TEXT, voice, cfg=SHALLOW, seed=1, instructions="a rough pirate")
    finally:
        system.style_bank = None
    assert same.style == choice
    assert torch.equal(same.codes, speech.codes)
    assert tiny.generate(TEXT, voice, cfg=SHALLOW, seed=1).style is None


def test_speech_of_a_directed_voice_tells_its_style(tiny: Mars5TTS, voice: Voice) -> None:
    warm = tiny.directed(voice, instructions="warm")
    assert warm.style_choice is not None
    assert warm.style_choice.style.name == "warm"
    alone, batched = tiny.tts_batch(
        [TEXT, f"{TEXT}. [pause 1s] {TEXT}"], warm, cfg=SHALLOW, seeds=1
    )
    stream = tiny.stream(TEXT, warm, cfg=SHALLOW, seed=1)
    list(stream)
    (passage,) = tiny.narrate(TEXT, warm, cfg=SHALLOW, seed=1)
    generated = tiny.generate(TEXT, warm, cfg=SHALLOW, seed=1)
    for speech in (alone, batched, stream.speech, passage.speech, generated):
        assert speech.style == warm.style_choice
    like = tiny.directed(voice, style=voice)  # nothing was chosen
    assert tiny.generate(TEXT, like, cfg=SHALLOW, seed=1).style is None


def test_a_manifest_names_the_plain_reading(tmp_path: Path) -> None:
    bank = StyleBank(write_bank(tmp_path, row(plain="two"), row("two", caption="flat")))
    one, two = bank.styles
    assert one.plain == two
    assert two.plain is None


def test_a_style_may_be_a_voice_file(tiny: Mars5TTS, voice: Voice, tmp_path: Path) -> None:
    voice.save(tmp_path / "one.voice")
    (style,) = StyleBank(write_bank(tmp_path, row(file="one.voice"))).styles
    assert torch.equal(tiny.directed(voice, style=style).delivery.codes, voice.codes)


def test_a_later_folder_replaces_a_style_of_the_same_name(tmp_path: Path) -> None:
    write_bank(tmp_path, row("warm", caption="mine"))
    styles = {style.name: style for style in StyleBank(SHIPPED, tmp_path).styles}
    assert len(styles) == 13
    assert styles["warm"] == Style("warm", tmp_path / "warm.wav", "mine", "mine")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has 0 styles"),
        (["{"], "line 1 is no JSON object"),
        (["", "[]"], "line 2 is no JSON object"),
        ([row(caption="")], "caption must be text"),
        ([row(text=3)], "text must be text"),
        ([{"name": "one"}], "file must be text"),
        ([row(mood="x")], "unknown field 'mood'"),
        ([row(), row()], "'one' twice"),
        ([row(plain="two")], "plain is 'two', no style of it"),
        ([row(file="../one.wav")], "must lie in the bank's folder"),
        ([row(file="/one.wav")], "must lie in the bank's folder"),
    ],
)
def test_manifests_that_are_refused(rows: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(StyleError, match=words):
        StyleBank(write_bank(tmp_path, *rows))


def test_a_bank_needs_a_folder_with_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(StyleError, match="cannot read the style bank"):
        StyleBank(tmp_path)
    with pytest.raises(StyleError, match="needs a folder"):
        StyleBank()


def test_the_page_has_code_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parent.parent
    page = (root / "docs" / "styles.md").read_text(encoding="utf-8")
    shutil.copytree(root / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "styles.md", "exec"), {})
    rows = re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0].splitlines()
    assert len(StyleBank(write_bank(tmp_path, *rows)).styles) == 2


# likeness


def test_words_lose_their_ending_and_negations_turn_one_word() -> None:
    assert words_of("Say it WARMLY, not too fast, and low.") == [
        ("warm", 1),
        ("fast", -1),
        ("low", 1),
    ]


def test_likeness_by_words_notions_and_rarity() -> None:
    captions = ["warm and slow", "warm and fast", "gloomy and slow"]
    warm, fast, gloomy = (likeness.score for likeness in compare("sad", captions))
    assert warm == fast == 0 < gloomy < 1
    assert compare("warm slow", captions)[0].score == pytest.approx(1)
    assert compare("warm", captions)[1].words == ("warm",)
    diluted = compare("warm helicopter", captions)[0].score
    assert 0 < diluted < compare("warm", captions)[0].score
    rare, common = compare("gloomy slow", captions)[2], compare("warm slow", captions)[2]
    assert rare.score > common.score


def test_a_checkpoint_may_keep_its_own_delivery(
    tiny: Mars5TTS, voice: Voice, style: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    convention = replace(tiny.config.prompt, own_delivery=True)
    monkeypatch.setattr(tiny.engine, "config", replace(tiny.config, prompt=convention))
    monkeypatch.setattr(tiny.engine.voices, "default", style)
    shallow = tiny.engine.task(TEXT, voice, None, SHALLOW, None)
    assert torch.equal(shallow.ar_speaker, style.ar_speaker)
    assert shallow.voice is voice
    deep = tiny.engine.task(TEXT, voice, None, DEEP, None)
    assert torch.equal(deep.ar_speaker, style.ar_speaker)
    assert deep.prompt.ids == shallow.prompt.ids  # the own voice is not continued
    assert tiny.engine.continued_frames(deep) == 0
    assert tiny.engine.reference_frames(deep)[0] == len(voice.codes)
    styled = tiny.engine.task(TEXT, voice.with_style(voice), None, DEEP, None)
    assert tiny.engine.continued_frames(styled) == len(voice.codes)  # but the style's clip is
    directed = tiny.engine.task(TEXT, voice.with_style(voice), None, SHALLOW, None)
    assert torch.equal(directed.ar_speaker, voice.ar_speaker)  # as asked for
    plain = tiny.voice(torch.ones(30_000).cumsum(0).sin(), "Plain.")
    added = tiny.engine.task(TEXT, voice.with_style(voice, plain=plain), None, SHALLOW, None)
    wanted = style.with_style(voice, plain=plain).ar_speaker
    assert torch.equal(added.ar_speaker, wanted)  # what sets it apart, on the own delivery
