"""Profiles: presets, what "auto" chooses, and the page that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from mars5 import InferenceConfig, Mars5TTS, Voice
from mars5.commands.minibench import Speed, measure, recommend
from mars5.config import STEP_PROFILES
from mars5.engine import Engine
from mars5.errors import ConfigError
from mars5.profiles import (
    NAMES,
    PROFILES,
    PUBLISHED,
    SHORT_TEXT,
    choose_profile,
    decision_table,
    named_profile,
    preset_table,
    resolve_profile,
)

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def voice(tiny: Mars5TTS, speechlike: object) -> Voice:
    return tiny.voice((speechlike, 24_000), "The voice.")  # type: ignore[arg-type]


def test_the_page_has_the_tables_of_the_code() -> None:
    for name, table in (("presets", preset_table()), ("decisions", decision_table())):
        written = re.search(rf"<!-- {name}: .*? -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)
        assert written is not None
        assert written[1] == table


def test_the_page_has_code_that_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "profiles.md", "exec"), {})


def test_the_decision_table_agrees_with_every_case() -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in decision_table().split("\n")
    ]
    yes = {True: "yes", False: "no"}
    size = {True: f"over {SHORT_TEXT}", False: f"up to {SHORT_TEXT}"}
    for device, style, live, transcript, long in product(
        ["cpu", "cuda", "mps"], *[[True, False]] * 4
    ):
        chosen = choose_profile(
            device,
            characters=SHORT_TEXT + long,
            transcript=transcript,
            live=live,
            directed=style,
        )
        facts = ["cpu" if device == "cpu" else "cuda or mps"]
        facts += [yes[style], yes[live], yes[transcript], size[long]]
        fitting = [
            row[-1]
            for row in rows[2:]
            if all(cell in ("any", fact) for cell, fact in zip(row, facts, strict=False))
        ]
        assert fitting == [f"`{chosen.name}`"]
        assert chosen.reason.startswith("chosen: ")


def test_a_profile_replaces_its_own_settings_only(tiny: Mars5TTS) -> None:
    cfg = PROFILES["flash"].config(tiny.config)
    assert cfg == replace(tiny.default_config, timesteps=STEP_PROFILES["draft"], deep_clone=False)
    assert PROFILES["nano"].config(tiny.config) == tiny.default_config


def test_a_profile_asks_for_no_more_steps_than_there_are(tiny: Mars5TTS) -> None:
    short = replace(tiny.config, nar=replace(tiny.config.nar, diffusion_steps=50))
    assert PROFILES["pro"].config(short).timesteps == 50


def test_names() -> None:
    assert NAMES == ("flash", "pro", "instruct", "nano", "auto")
    with pytest.raises(ConfigError, match="no profile 'fast'; known: flash, pro"):
        named_profile("fast")
    assert resolve_profile("auto", "cpu").model == "nano"
    assert resolve_profile("auto", "cuda").model == PUBLISHED


def test_a_loaded_profile_serves_calls_without_settings(tiny_folder: Path, voice: Voice) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu", profile="flash")
    speech = system.generate("Hello.", voice, seed=1)
    assert speech.profile is not None
    assert speech.profile.name == "flash"
    assert len(speech.ar_codes) == len(speech.codes)  # no deep clone
    cfg = replace(system.default_config, timesteps=2)
    assert system.generate("Hello.", voice, cfg=cfg, seed=1).profile is None
    auto = system.generate("Hello.", voice, seed=1, profile="auto").profile
    assert auto is not None
    assert auto.name == "nano"


def test_batches_and_narrations_tell_their_profile(tiny_folder: Path, voice: Voice) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu", profile="flash")
    texts = ["Hello.", "Hello. [pause 1s] Hello."]
    passages = system.narrate(texts[1], voice, seed=1)
    spoken = [*system.tts_batch(texts, voice, seeds=1), *(one.speech for one in passages)]
    assert [one.profile for one in spoken] == [PROFILES["flash"]] * 4
    cfg = replace(system.default_config, timesteps=2)
    (speech,) = system.tts_batch(texts[:1], voice, seeds=1, cfg=cfg)
    assert speech.profile is None


def test_a_profile_is_what_its_settings_are(tiny: Mars5TTS, voice: Voice) -> None:
    one = tiny.generate("Hello.", voice, seed=1, profile="flash")
    other = tiny.generate("Hello.", voice, cfg=PROFILES["flash"].config(tiny.config), seed=1)
    assert one.codes.tolist() == other.codes.tolist()


def test_contradictions_and_unknown_names_are_refused(
    tiny: Mars5TTS, tiny_folder: Path, voice: Voice
) -> None:
    with pytest.raises(ConfigError, match="not both"):
        tiny.generate("Hello.", voice, cfg=InferenceConfig(), profile="flash")
    with pytest.raises(ConfigError, match="no profile"):
        tiny.generate("Hello.", voice, profile="fast")
    with pytest.raises(ConfigError, match="no profile"):
        Mars5TTS.from_pretrained(tiny_folder, device="cpu", profile="fast")


# the doctor's benchmark


def speed(device: str, ar: float, nar: float) -> Speed:
    return Speed(device, ar, nar, 37.5, 1, 6_365_697, 8_757_259)


def test_real_time_factor_counts_frames_steps_and_passes() -> None:
    assert Speed("cpu", 0.01, 0.001, 50, 2, 1, 1).real_time_factor(5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("measured", "name"),
    [
        (speed("cpu", 1e-3, 1e-4), "nano"),
        (speed("cuda", 1e-3, 1e-6), "pro"),
        (speed("cuda", 1e-3, 1e-4), "flash"),
        (speed("cuda", 1e-1, 1e-4), "nano"),
    ],
)
def test_recommendation_is_the_closest_in_real_time(measured: Speed, name: str) -> None:
    profile = recommend(measured)
    assert profile.name == name
    assert "published size" in profile.reason


def test_a_cpu_pays_for_the_weights_and_a_gpu_does_not_get_quicker() -> None:
    cpu, gpu = speed("cpu", 1e-3, 1e-4).published(), speed("cuda", 1e-3, 1e-4).published()
    assert cpu.ar_frame == pytest.approx(0.12, rel=0.01)
    assert gpu.ar_frame == 1e-3
    assert gpu.frame_rate == 75


def test_measure_fills_everything(tiny: Mars5TTS) -> None:
    found = measure(tiny.engine)
    assert found.ar_frame > 0
    assert found.nar_frame > 0
    assert found.ar_parameters == sum(p.numel() for p in tiny.ar.parameters())
    assert found.passes == 2


def test_measure_counts_the_steps_that_it_makes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a checkpoint whose codes settle at once."""
    engine = Mars5TTS.from_pretrained(tiny_folder, device="cpu").engine
    settles = {**engine.config.defaults, "nar_settle_step": 200}
    engine.config = replace(engine.config, defaults=settles)
    made: list[int] = []
    whole = Engine.denoise

    def counted(self: Engine, *given: Any) -> Iterator[torch.Tensor]:
        made.append(0)
        for codes in whole(self, *given):
            made[-1] += 1
            yield codes

    monkeypatch.setattr(Engine, "denoise", counted)
    measure(engine)
    assert set(made) == {2}
