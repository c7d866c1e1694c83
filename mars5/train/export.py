"""Step 8: write a checkpoint folder in the published format from what the trainings left."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mars5.checkpoint import write_checkpoint
from mars5.config import N_CODEBOOKS
from mars5.conversion import OwnVoice
from mars5.conversion.pitch import Register, register
from mars5.conversion.transposer import Transposer
from mars5.engine import Engine
from mars5.errors import TrainError
from mars5.hub import CODEC_FILE, VOICE_FILE
from mars5.train.recipe import TRANSPOSER, Workshop
from mars5.train.teachers import Speaker, as_wave, speak
from mars5.train.transposer import said_again
from mars5.tts import Mars5TTS

VERSION = 9
# What the default voice says: a teacher's recording, made anew at export and kept as codes only.
VOICE_TEACHER = Speaker("flite", "rms")
VOICE_TEXT = "The evening train was almost empty, so we sat by the window and talked quietly."
# What it says for its statistics, which conversions start from.
OWN_TEXTS = (
    "The quick brown fox jumped over the lazy dog, and both of them went home.",
    "We saw a beige car with a huge dent in its side, just behind the village church.",
    "My father thought that the weather would change before the end of the month.",
    "A boy in a yellow shirt was throwing pebbles at the old wooden bridge.",
    "She usually measures everything twice, and cuts it only once.",
    "There were eight chairs around the table, but nobody wanted to sit down.",
    "You should put the books back on the shelf when you have looked at them.",
    "Long ago a king lived in that castle with his three daughters.",
    "The engine made a strange noise, so they pulled over and called for help.",
    "I would rather have a cup of hot chocolate than another glass of juice.",
    "Few people know how to catch fish with their bare hands.",
    "Please leave your shoes by the door and hang your coat over there.",
)

DEFAULTS: dict[str, Any] = {
    "temperature": 0.7,
    "top_k": 0,
    "top_p": 0.6,
    "freq_penalty": 0.0,
    "presence_penalty": 0.0,
    "eos_penalty_factor": 0.0,
    "timesteps": 16,
    "x_0_temp": 0.2,
    "q0_override_steps": 0,
    "nar_settle_step": 200,  # at once: its draws of the finer books cost words
    "voice_conversion": 1.0,
    "nar_guidance_w": 1.0,
    "deep_clone": False,
    "generate_max_len_override": 700,
    "trim_db": 45,
}


def export(workshop: Workshop, target: Path) -> Path:
    """Write the checkpoint of a workshop's latest training states to the folder `target`.

    Raises:
        TrainError: a training has not left its state yet, the teacher is not installed, or says
            nothing that is voiced.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as made:
        _export(workshop, Path(made))
        for path in Path(made).iterdir():
            path.replace(target / path.name)
    return target


def _export(workshop: Workshop, target: Path) -> None:
    """Write the files; until the last of them is there the own voice is a stand-in."""
    text, speech = workshop.tokenizers()
    models: dict[str, torch.nn.Module] = {
        "ar": workshop.new_ar(), "nar": workshop.new_nar(), "vocoder": workshop.new_vocoder()
    }  # fmt: skip
    if (workshop.folder / "transposer.pt").exists():
        models["transposer"] = Transposer(TRANSPOSER)
    training: dict[str, Any] = workshop.facts().get("training", {})
    for name, model in models.items():
        state = _state(workshop.folder / f"{name}.pt", name)
        model.load_state_dict(state["model"])
        if state["step"] or name not in training:  # adopted weights keep their story
            training[name] = _story(state, sum(p.numel() for p in model.parameters()))
    config = replace(
        workshop.described(text, speech, "transposer" in models),
        defaults=DEFAULTS if "transposer" in models else DEFAULTS | {"voice_conversion": 0.0},
        facts={
            "name": "nano",
            "version": VERSION,
            "licence": "AGPL-3.0-only",
            "training": training,
            "data": "synthetic speech of flite (slt, rms, awb, kal16) and of Kokoro-82M",
        },
    )
    for name in ("ar", "nar"):
        weights = {k: v.half() for k, v in models[name].state_dict().items()}
        write_checkpoint(target / f"mars5_{name}.safetensors", weights, text, speech, config)
    parts = _codec_parts(models | {"codec": workshop.codec()})
    if "transposer" in models:
        parts |= _own_parts(OwnVoice(torch.zeros(1, N_CODEBOOKS).long(), Register(100.0, 0.0)))
    save_file(parts, target / CODEC_FILE)
    _save_default_voice(target)
    if "transposer" in models:
        engine = Mars5TTS.from_pretrained(target, device="cpu").engine  # now with that voice
        save_file(parts | _own_parts(_own_voice(engine)), target / CODEC_FILE)


def _codec_parts(models: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    """The tensors of the codec's file."""
    return {
        f"{part}.{name}": tensor.half().contiguous()
        for part in ("codec", "vocoder", "transposer") if part in models
        for name, tensor in models[part].state_dict().items()
        if (part, name) != ("vocoder", "table")  # the codec's books, as vectors
    }  # fmt: skip


def _own_parts(own: OwnVoice) -> dict[str, Tensor]:
    return {f"own.{name}": tensor for name, tensor in own.weights().items()}


def _own_voice(engine: Engine) -> OwnVoice:
    """What the exported NAR makes of its teacher's coarse codes, and where that teacher lies.

    Raises:
        TrainError: nothing of it is voiced.
    """
    waves = [as_wave(speak(text, VOICE_TEACHER)[0]) for text in OWN_TEXTS]
    found = register(torch.cat(waves))
    if found is None:
        raise TrainError(f"nothing is voiced in what {VOICE_TEACHER} says")
    codes = [said_again(engine, text, w) for text, w in zip(OWN_TEXTS, waves, strict=True)]
    return OwnVoice(torch.cat(codes), found)


def _story(state: dict[str, Any], parameters: int) -> dict[str, Any]:
    """What a training state tells of how it came about."""
    return {
        "minutes": round(state["seconds"] / 60, 1),
        "steps": state["step"],
        "seen": state["seen"],
        "parameters": parameters,
    }


def _save_default_voice(target: Path) -> None:
    """The voice is computed by the exported models, as any user's would be."""
    pcm, _ = speak(VOICE_TEXT, VOICE_TEACHER)
    system = Mars5TTS.from_pretrained(target, device="cpu")
    facts = {"source": str(VOICE_TEACHER), "licence": "CMU (permissive)"}
    system.voice(as_wave(pcm), VOICE_TEXT, provenance=facts).save(target / VOICE_FILE)


def _state(path: Path, step: str) -> dict[str, Any]:
    if not path.exists():
        raise TrainError(f"no {path}: run `python -m mars5.train {step}` first")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
