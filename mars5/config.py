"""What a caller wishes (`InferenceConfig`) and what a checkpoint states (`ModelConfig`).

Axis letters used in every docstring of this package:

    B batch      S joint-id sequence   N text ids        D model width
    T frames     L NAR decoder frames  R reference frames
    Q codebooks  K code classes        V vocabulary      H heads
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from mars5.errors import CheckpointError, ConfigError

SAMPLE_RATE = 24_000
N_CODEBOOKS = 8
CODEBOOK_SIZE = 1024
PAD_CODE = CODEBOOK_SIZE  # the class after the last code
N_CLASSES = CODEBOOK_SIZE + 1

MAX_BATCH = 1024  # texts at a time
SEEDS = 2**63  # seeds lie below: torch's generators take no others
MIN_TEMPERATURE = 0.01  # below, logits overflow; 0 means greedy

# Named numbers of diffusion steps, from the published law to the quickest that is still speech.
STEP_PROFILES: dict[str, int] = {"exact": 200, "balanced": 32, "fast": 16, "draft": 8}

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_k": (0, 1_000_000),
    "top_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "freq_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "rep_penalty_window": (0, 100_000),
    "eos_penalty_decay": (0.0, 3.0),
    "eos_penalty_factor": (-100.0, 100.0),
    "eos_estimated_gen_length_factor": (0.0, 100.0),
    "timesteps": (1, 200),
    "x_0_temp": (0.01, 10.0),
    "q0_override_steps": (0, 200),
    "nar_settle_step": (0, 200),
    "voice_conversion": (0.0, 1.0),
    "nar_guidance_w": (-20.0, 20.0),
    "max_prompt_dur": (0.1, 60.0),
    "generate_max_len_override": (-1, 100_000),
    "trim_db": (0.1, 200.0),  # at 0 not even the loudest frame would stay
    "beam_width": (1, 1),
    "ref_audio_pad": (0.0, 5.0),
    "speed": (0.5, 2.0),
}


@dataclass(frozen=True)
class InferenceConfig:
    """Settings of one call; names and defaults are those of the published system.

    Attributes:
        temperature: divisor of the AR logits; 0 is greedy decoding.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens up to this probability mass; 1 keeps all.
        typical_p: mass of locally typical sampling; above 0.999 it is off.
        freq_penalty: subtracted from a logit for each occurrence in the window.
        presence_penalty: subtracted once if the token occurs in the window.
        rep_penalty_window: generated tokens looked back at; 0 means all.
        eos_penalty_decay: exponent of the penalty on an early end.
        eos_penalty_factor: weight of the penalty on an early end.
        eos_estimated_gen_length_factor: tokens expected per character of text.
        timesteps: diffusion steps visited; at the model's own number the exact law runs.
        x_0_temp: divisor of the NAR's logits.
        q0_override_steps: above this step the coarse codes are shown to the NAR without noise.
        nar_settle_step: at the first visited step below this one the codes are drawn no more: they
            become those nearest to the expected sound (`mars5.nar.settle`), and the walk is over.
            Clearer words from a small model, in fewer steps; 0 draws them all, the published law.
        voice_conversion: for a checkpoint with a delivery of its own, as the embedded one: above 0
            both models speak with its voice, and the speech is brought so far to the pitch and the
            timbre of the reference (`mars5.conversion`), at 1 entirely. At 0, and for blends,
            which have no recording, the NAR is given the voice instead.
        nar_guidance_w: classifier-free guidance weight; 1 turns the second pass off.
        max_prompt_dur: seconds; a longer reference draws a warning.
        generate_max_len_override: most ids in all, prompt included; at most 1 means 2000.
        deep_clone: continue the reference; needs its transcript.
        use_kv_cache: reuse keys and values; never changes the result within the window.
        trim_db: silence at the ends below this level under the peak is cut; 200 leaves all.
        beam_width: only 1.
        ref_audio_pad: seconds of silence put before the reference.
        show_reference_once: in a deep clone by a checkpoint that was made to see the reference
            twice, as the published one is (`PromptConvention.repeat_reference`), show it to the NAR
            once: R + N frames instead of 2R + N, faster, and no longer the published law.
        speed: of the speech, at the same pitch (`mars5.tempo`): 1.2 is a fifth faster. Pauses
            between sentences stay as they are.

    Raises:
        ConfigError: a field is unknown, of the wrong type, or out of its range.
    """

    temperature: float = 0.7
    top_k: int = 200
    top_p: float = 0.2
    typical_p: float = 1.0
    freq_penalty: float = 3
    presence_penalty: float = 0.4
    rep_penalty_window: int = 80
    eos_penalty_decay: float = 0.5
    eos_penalty_factor: float = 1
    eos_estimated_gen_length_factor: float = 1.0
    timesteps: int = 200
    x_0_temp: float = 0.7
    q0_override_steps: int = 20
    nar_settle_step: int = 0
    voice_conversion: float = 0.0
    nar_guidance_w: float = 3
    max_prompt_dur: float = 12
    generate_max_len_override: int = -1
    deep_clone: bool = True
    use_kv_cache: bool = True
    trim_db: float = 27
    beam_width: int = 1
    ref_audio_pad: float = 0
    show_reference_once: bool = False
    speed: float = 1.0

    def __new__(cls, *_args: Any, **settings: Any) -> InferenceConfig:
        known = list(cls.__dataclass_fields__)
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise ConfigError(f"InferenceConfig has no setting {name!r}; {hint}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type == "bool":
                if not isinstance(value, bool):
                    raise ConfigError(f"{item.name} must be True or False, got {value!r}")
            else:
                _check_number(item.name, value, whole=item.type == "int")

    def with_steps(self, profile: str) -> InferenceConfig:
        """These settings with the `timesteps` of a profile: exact, balanced, fast or draft.

        Codes that settle early (`nar_settle_step`) do so in each of them.

        Raises:
            ConfigError: no profile of that name.
        """
        if profile not in STEP_PROFILES:
            known = ", ".join(f"{name} ({steps})" for name, steps in STEP_PROFILES.items())
            raise ConfigError(f"there is no step profile {profile!r}; known: {known}")
        return replace(self, timesteps=STEP_PROFILES[profile])

    def for_reference(self, transcribed: bool) -> InferenceConfig:
        """These settings, with a deep clone only where the reference's transcript is known."""
        return replace(self, deep_clone=self.deep_clone and transcribed)

    @property
    def max_len(self) -> int:
        """Most ids of one generation, the prompt included."""
        return self.generate_max_len_override if self.generate_max_len_override > 1 else 2000


def check_settings(cfg: InferenceConfig | None) -> None:
    """Refuse as settings of a call what is neither settings nor None.

    Raises:
        ConfigError: it is something else.
    """
    if cfg is not None and not isinstance(cfg, InferenceConfig):
        raise ConfigError(
            f"cfg must be an InferenceConfig, got {type(cfg).__name__}: write "
            "InferenceConfig(name=value, ...)"
        )


def _check_number(name: str, value: Any, whole: bool) -> None:
    low, high = _RANGES[name]
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(f"{name} must be {kind} from {low} to {high}, got {value!r}")
    if not low <= value <= high:  # also refuses NaN
        raise ConfigError(f"{name} must be {kind} from {low} to {high}, got {value!r}")
    if name == "temperature" and 0 < value < MIN_TEMPERATURE:
        raise ConfigError(f"temperature must be 0 or at least {MIN_TEMPERATURE}, got {value!r}")


@dataclass(frozen=True)
class ARDims:
    """Sizes of the autoregressive model; defaults are the published ones."""

    n_vocab: int
    dim: int = 1536
    n_heads: int = 24
    n_layers: int = 26
    ff_dim: int = 3584
    n_spk_layers: int = 2
    spk_ff_dim: int = 4608
    sliding_window: int = 3000

    def __post_init__(self) -> None:
        _check_dims(self)

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads


@dataclass(frozen=True)
class NARDims:
    """Sizes of the non-autoregressive model; the defaults are the published ones."""

    n_text_vocab: int
    n_classes: int = N_CLASSES
    dim: int = 1024
    n_heads: int = 16
    n_enc_layers: int = 8
    n_dec_layers: int = 16
    n_spk_layers: int = 3
    ff_dim: int = 3072
    t_emb_dim: int = 1024
    diffusion_steps: int = 200

    def __post_init__(self) -> None:
        _check_dims(self)


def _check_dims(dims: ARDims | NARDims) -> None:
    for name, value in asdict(dims).items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
            raise CheckpointError(
                f"{type(dims).__name__}.{name} must be a whole number from 1 to 1000000, "
                f"got {value!r}: the checkpoint's config is damaged"
            )
    if dims.dim % dims.n_heads or dims.dim % N_CODEBOOKS:
        raise CheckpointError(
            f"{type(dims).__name__}.dim = {dims.dim} must be divisible by n_heads = "
            f"{dims.n_heads} and by the {N_CODEBOOKS} codebooks"
        )
    if isinstance(dims, ARDims) and dims.head_dim % 2:
        raise CheckpointError(
            f"ARDims.dim / n_heads = {dims.head_dim} must be even: rotary positions turn pairs"
        )


@dataclass(frozen=True)
class PromptConvention:
    """How a checkpoint lays out its prompt.

    Attributes:
        drop_first: the published weights lose the first speech entry after the text
            (docs/architecture.md, Prompt); checkpoints trained without that off-by-one say `False`.
        repeat_reference: in a deep clone the published NAR sees the reference twice, once known in
            full and once as the coarse codes the AR continued; `False` shows it once.
        own_delivery: the AR is given the speaker vector of the checkpoint's own voice, also in deep
            clones: for one that has met too few speakers to be understood with those of others. A
            style is added to that voice. The NAR is given it, too, and what they say is converted
            to the reference's voice, unless `InferenceConfig.voice_conversion` is 0.
    """

    drop_first: bool = True
    repeat_reference: bool = True
    own_delivery: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool):
                raise CheckpointError(
                    f"PromptConvention.{name} must be true or false, got {value!r}: the "
                    "checkpoint's config is damaged"
                )


@dataclass(frozen=True)
class ModelConfig:
    """What a checkpoint's `config` metadata states beyond its weights.

    Attributes:
        ar, nar: sizes of the two models.
        prompt: layout of the prompt.
        codec: description of the codec that made the codes; `{"name": "encodec"}` is published.
        defaults: `InferenceConfig` settings recommended by the checkpoint's makers.
        facts: free text about the checkpoint: name, licence, training.
    """

    ar: ARDims
    nar: NARDims
    prompt: PromptConvention = PromptConvention()
    codec: dict[str, Any] = field(default_factory=lambda: {"name": "encodec"})
    defaults: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def published(cls, n_text: int, n_speech: int) -> ModelConfig:
        """The full-size configuration for tokenizers of these sizes."""
        return cls(ARDims(n_text + n_speech), NARDims(n_text + 1))

    @classmethod
    def from_json(cls, data: Any) -> ModelConfig:
        """Read what `to_json` wrote; raises `CheckpointError` for anything else."""
        if not isinstance(data, dict) or not {"ar", "nar"} <= data.keys():
            raise CheckpointError("the checkpoint's config must be an object with 'ar' and 'nar'")
        try:
            InferenceConfig(**data.get("defaults", {}))  # refuses what it cannot honour
            config = cls(
                ARDims(**data["ar"]),
                NARDims(**data["nar"]),
                PromptConvention(**data.get("prompt", {})),
                dict(data.get("codec", {"name": "encodec"})),
                dict(data.get("defaults", {})),
                dict(data.get("facts", {})),
            )
        except CheckpointError:
            raise
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's config is damaged: {error}") from error
        if config.nar.n_classes != N_CLASSES:
            raise CheckpointError(
                f"NARDims.n_classes must be {N_CLASSES}, the codes and their padding, got "
                f"{config.nar.n_classes}: the checkpoint's config is damaged"
            )
        steps = config.defaults.get("timesteps", 1)
        if steps > config.nar.diffusion_steps:
            raise CheckpointError(
                f"the checkpoint's config recommends {steps} timesteps, its NAR has "
                f"{config.nar.diffusion_steps}"
            )
        return config

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
