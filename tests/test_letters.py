"""Text in a script that a checkpoint was not trained on draws one warning for each call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_tokenizers

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.letters import unknown_letters
from mars5.text import prepare
from mars5.tokenizers import TextTokenizer

CFG = InferenceConfig(timesteps=2, generate_max_len_override=110, deep_clone=False, freq_penalty=0)
TEXT = "the hen said 你好 to the other hen. And 你好 was said by the other hen to this one."


@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_english_enough(normalise: bool) -> None:
    text = (
        "Zoë, François, Łukasz Dvořák, Đặng, Straße, Ærø and İstanbul — “naïve” 5 µm 100 °C 😀👩‍💻 "
        "№ 5, H₂O², 3 €, ½, 1º, 2ª, ﬁne K … ™ \u02bbokina \uff21 e\u0301"
    )
    tokenizer, _ = tiny_tokenizers()
    for piece in prepare(text, normalise=normalise):
        assert unknown_letters(tokenizer, piece.text) == ""


def test_greek_letters_are_known_once_they_are_written_out() -> None:
    tokenizer, _ = tiny_tokenizers()
    text = "5 kΩ, 5 μm, Δt, 2π and the β of a word: φως"
    (piece,) = prepare(text)
    assert unknown_letters(tokenizer, piece.text) == "φως"
    (piece,) = prepare(text, normalise=False)
    assert unknown_letters(tokenizer, piece.text) == "ΩμΔπβφως"


def test_letters_without_a_token() -> None:
    tokenizer, _ = tiny_tokenizers()
    for text in ("你好", "привет", "αβ", "שלום", "नमत", "한국", "ひら"):
        assert unknown_letters(tokenizer, f"he said {text}, {text[::-1]}!") == text


def test_a_checkpoint_with_tokens_for_them_knows_them() -> None:
    first, second = "ж".encode()
    specials = {"<|startoftext|>": 257, "<|endoftext|>": 258, "<|padding|>": 259}
    tokenizer = TextTokenizer([(first, second)], specials)
    assert unknown_letters(tokenizer, "жук") == "ук"


def test_one_warning_for_each_call(
    tiny: Mars5TTS, speechlike: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    voice = tiny.voice(speechlike)
    given = {"cfg": CFG, "seed": 1}
    calls = {
        "generate": lambda: tiny.generate(TEXT, voice, **given),
        "stream": lambda: list(tiny.stream(TEXT, voice, **given)),
        "stream of parts": lambda: list(tiny.stream(iter([TEXT]), voice, **given)),
        "narrate": lambda: list(tiny.narrate(TEXT, voice, **given)),
        "speak_file": lambda: tiny.speak_file(TEXT, tmp_path / "a.wav", voice, **given),
        "tts_batch": lambda: tiny.tts_batch([TEXT, TEXT], voice, cfg=CFG, seeds=1),
        "edit": lambda: edit(tiny, voice),
    }
    for name, call in calls.items():
        caplog.clear()
        call()
        warned = [text for text in caplog.messages if "was not trained on the letters 你好" in text]
        assert len(warned) == 1, name


def edit(tiny: Mars5TTS, voice: Voice) -> None:
    times = [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)]
    tiny.edit(voice, "one two three", "one 你好 three", CFG, times=times, seed=1)
