"""Settings and dimensions: what is accepted, and what every refusal says."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest
from conftest import tiny_config

from mars5 import InferenceConfig
from mars5.config import _RANGES, ARDims, ModelConfig, NARDims, PromptConvention
from mars5.errors import CheckpointError, ConfigError

NUMBERS = [field.name for field in fields(InferenceConfig) if field.type != "bool"]
SWITCHES = [field.name for field in fields(InferenceConfig) if field.type == "bool"]


# ---------------------------------------------------------------- InferenceConfig


def test_every_number_has_a_range() -> None:
    assert set(NUMBERS) == set(_RANGES)
    assert SWITCHES == ["deep_clone", "use_kv_cache", "show_reference_once"]


@pytest.mark.parametrize("name", NUMBERS)
def test_ranges(name: str) -> None:
    low, high = _RANGES[name]
    for value in (low, high):
        assert getattr(InferenceConfig(**{name: value}), name) == value
    for value in (low - 1, high + 1, math.nan, math.inf, -math.inf, "1", None, True, [1]):
        with pytest.raises(ConfigError) as caught:
            InferenceConfig(**{name: value})
        message = str(caught.value)
        assert message.startswith(f"{name} must be a ")
        assert f"from {low} to {high}, got {value!r}" in message


@pytest.mark.parametrize("name", [f.name for f in fields(InferenceConfig) if f.type == "int"])
def test_whole_numbers(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a whole number"):
        InferenceConfig(**{name: 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SWITCHES)
def test_switches(name: str) -> None:
    for value in (1, 0, "yes", None):
        with pytest.raises(ConfigError, match=f"{name} must be True or False, got {value!r}"):
            InferenceConfig(**{name: value})  # type: ignore[arg-type]


def test_unknown_settings() -> None:
    for name, hint in {
        "temprature": "did you mean 'temperature'",
        "use_kv_cach": "did you mean 'use_kv_cache'",
        "zzz": "known: temperature, top_k",
    }.items():
        with pytest.raises(ConfigError, match=f"no setting {name!r}; {hint}"):
            InferenceConfig(**{name: 1})  # type: ignore[arg-type]


def test_not_even_the_loudest_frame_would_stay() -> None:
    with pytest.raises(ConfigError, match=r"trim_db must be a number from 0\.1 to 200\.0, got 0"):
        InferenceConfig(trim_db=0)


def test_step_profiles() -> None:
    cfg = InferenceConfig(temperature=0.5)
    for name, steps in {"exact": 200, "balanced": 32, "fast": 16, "draft": 8}.items():
        assert cfg.with_steps(name) == InferenceConfig(temperature=0.5, timesteps=steps)
    with pytest.raises(ConfigError, match=r"no step profile 'quick'; known: exact \(200\), bal"):
        cfg.with_steps("quick")


def test_settings_are_frozen_values() -> None:
    cfg = InferenceConfig(temperature=0.5)
    with pytest.raises(FrozenInstanceError):
        cfg.temperature = 1.0  # type: ignore[misc]
    assert copy.deepcopy(cfg) == pickle.loads(pickle.dumps(cfg)) == cfg != InferenceConfig()
    assert replace(cfg, temperature=0.7) == InferenceConfig()
    with pytest.raises(ConfigError, match="top_k"):
        replace(cfg, top_k=-1)


@pytest.mark.parametrize(
    ("override", "limit"), [(-1, 2000), (0, 2000), (1, 2000), (2, 2), (99, 99)]
)
def test_longest_generation(override: int, limit: int) -> None:
    assert InferenceConfig(generate_max_len_override=override).max_len == limit


# ---------------------------------------------------------------- checkpoints


def test_published_sizes() -> None:
    config = ModelConfig.published(1000, 5000)
    assert config.ar == ARDims(6000, 1536, 24, 26, 3584, 2, 4608, 3000)
    assert config.nar == NARDims(1001, 1025, 1024, 16, 8, 16, 3, 3072, 1024, 200)
    assert config.ar.head_dim == 64
    assert config.prompt == PromptConvention(True, True)
    assert config.codec == {"name": "encodec"}
    assert InferenceConfig(**config.defaults) == InferenceConfig()


def test_json_round_trip() -> None:
    for config in (tiny_config(), ModelConfig.published(10, 20)):
        assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    sizes_alone = {key: asdict(getattr(tiny_config(), key)) for key in ("ar", "nar")}
    assert ModelConfig.from_json(sizes_alone) == ModelConfig(tiny_config().ar, tiny_config().nar)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("ar", {"dim": 0}, r"ARDims\.dim must be a whole number from 1 to 1000000, got 0"),
        ("ar", {"dim": 10**7}, r"ARDims\.dim must be"),
        ("ar", {"n_layers": 2.0}, r"ARDims\.n_layers must be"),
        ("ar", {"n_layers": True}, r"ARDims\.n_layers must be"),
        ("ar", {"n_layers": "2"}, r"ARDims\.n_layers must be .*got '2'"),
        ("ar", {"n_heads": 3}, "must be divisible by n_heads = 3"),
        ("ar", {"dim": 36}, "divisible by .*8 codebooks"),
        ("ar", {"n_heads": 32}, "ARDims.dim / n_heads = 1 must be even"),
        ("ar", {"width": 3}, "config is damaged: .*'width'"),
        ("nar", {"n_heads": 5}, r"NARDims\.dim = 32 must be divisible by n_heads = 5"),
        ("nar", {"n_classes": 1024}, "n_classes must be 1025, .* got 1024"),
        ("nar", {"diffusion_steps": -1}, r"NARDims\.diffusion_steps must be"),
        ("prompt", {"drop_first": 1}, "drop_first must be true or false, got 1"),
        ("prompt", {"repeat_reference": "no"}, "repeat_reference must be true or false"),
        ("prompt", {"other": True}, "config is damaged"),
        ("defaults", {"top_p": 7}, "config is damaged: top_p must be"),
        ("defaults", {"tempo": 2}, "config is damaged: .*no setting 'tempo'"),
    ],
)
def test_damaged_configs(section: str, change: dict[str, Any], message: str) -> None:
    data = tiny_config().to_json()
    data[section] |= change
    with pytest.raises(CheckpointError, match=message) as caught:
        ModelConfig.from_json(data)
    assert str(caught.value).count("config is damaged") <= 1


@pytest.mark.parametrize(
    "data",
    [None, [], "config", {}, {"ar": {}}, {"ar": {}, "nar": {}}, {"ar": 1, "nar": 2},
     {"ar": [1], "nar": [2]}],
)  # fmt: skip
def test_configs_of_another_form(data: Any) -> None:
    with pytest.raises(CheckpointError, match="config"):
        ModelConfig.from_json(data)


@pytest.mark.parametrize("section", ["ar", "nar", "prompt", "codec", "defaults", "facts"])
@pytest.mark.parametrize("value", [5, "text", [1, 2], None])
def test_sections_of_another_form(section: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match="config"):
        ModelConfig.from_json({**tiny_config().to_json(), section: value})
