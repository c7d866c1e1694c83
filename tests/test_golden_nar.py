"""Agreement with the reference program: the NAR and its diffusion."""

from __future__ import annotations

from typing import Any

import golden_data as golden
import pytest
import torch
from golden_data import (
    NAR_CONFIG,
    assert_close,
    nar_dims,
    tensors,
)
from torch import Tensor

from mars5.layers import SinePositions, timestep_embedding
from mars5.nar import diffusion
from mars5.nar.decode import Estimator, Known, Resampling, denoise_exact, visiting_order
from mars5.nar.model import ResidualTransformer


def _nar_model() -> ResidualTransformer:
    model = ResidualTransformer(nar_dims(NAR_CONFIG["constructor"]))
    assert model.dims.ff_dim == NAR_CONFIG["dim_ff"]
    model.load_state_dict(tensors("nar/weights.safetensors"))
    return model.eval()


@pytest.mark.parametrize("case", golden.cases("nar/cases.json"), ids=golden.ids)
@torch.no_grad()
def test_nar_model(case: dict[str, Any]) -> None:
    data, name, model = tensors("nar/cases.safetensors"), case["case"], _nar_model()
    given = case.get("inputs", name)
    x = data[f"{given}.x"]
    if case["drop_cond"]:
        speaker = model.no_speaker_vector(len(x))
    else:
        speaker = model.speaker_vector(data[f"{given}.c_codes"], data[f"{given}.c_codes_length"])
    visible = ~data[f"{given}.x_padding_mask"]
    text, lengths = data[f"{given}.c_text"], data[f"{given}.c_texts_length"]
    logits = model(text, lengths, speaker, x, torch.tensor(case["t"]), visible)
    logits = logits.transpose(2, 3)  # recorded with the codebooks last
    if name in data:
        assert_close(logits, data[name])
    else:
        assert torch.equal(logits.argmax(2), data[f"{name}.argmax"])
        assert_close(logits.logsumexp(2), data[f"{name}.logsumexp"])
        assert_close(logits[:, :1], data[f"{name}.first_position"])
        assert_close(logits[:, -1:], data[f"{name}.last_position"])


@torch.no_grad()
def test_nar_speaker_vector() -> None:
    data = tensors("nar/cases.safetensors")
    found = _nar_model().speaker_vector(data["spk.c_codes"], data["spk.c_codes_length"])
    assert_close(found, data["spk.embedding"])


@pytest.mark.parametrize("case", golden.cases("nar/embeddings.json"), ids=golden.ids)
@torch.no_grad()
def test_embeddings(case: dict[str, Any]) -> None:
    data, name = tensors("nar/embeddings.safetensors"), case["case"]
    if "timesteps" in case:
        dtype = getattr(torch, case["dtype"])
        found = timestep_embedding(torch.tensor(case["timesteps"]), case["dim"], dtype)
        assert found.dtype == data[name].dtype
        assert_close(found.float(), data[name].float(), 2e-5)
        return
    positions = SinePositions()
    positions.alpha.fill_(case["alpha"])
    if "rows" in case:
        found = positions(torch.zeros(1, max(case["rows"]) + 1, case["dim"]))[0, case["rows"]]
        assert_close(found, data[f"{name}.rows"], 1e-4)
    else:
        assert_close(positions(data[f"{name}.x"]), data[f"{name}.y"])


def test_schedule_tables() -> None:
    data = tensors("diffusion/tables.safetensors")
    for steps in sorted({int(key.split(".")[0][1:]) for key in data}):
        schedule = diffusion.cosine_schedule(steps)
        for table, found in vars(schedule).items():
            # The cosine's last bit is another one from CPU to CPU; 1 - alpha is down to 1e-4.
            relative = 5e-5 if "1_min" in table else 1e-6
            assert_close(found, data[f"T{steps}.{table}"], relative)


@pytest.mark.parametrize("case", golden.cases("diffusion/functions.json"), ids=golden.ids)
def test_diffusion_functions(case: dict[str, Any]) -> None:
    data, name = tensors("diffusion/functions.safetensors"), case["case"]
    inputs = {
        key.removeprefix(f"{name}."): v for key, v in data.items() if key.startswith(f"{name}.")
    }
    behaviours = case["behaviours"]
    if "log_sample_categorical" in behaviours:
        uniform = inputs["uniform"]
        if "seed" in case:
            generator = torch.Generator().manual_seed(case["seed"])
            assert torch.equal(diffusion.uniforms(tuple(uniform.shape), generator), uniform)
        assert torch.equal(diffusion.sample(inputs["logprobs"], uniform), inputs["out"])
    elif name == "onehot_dim1":
        found = diffusion.log_onehot(inputs["x"], case["num_classes"]).transpose(1, 2)
        assert_close(found, inputs["out"], 1e-6)
    elif behaviours == ["q_sample"]:
        schedule = diffusion.cosine_schedule(case["T"])
        noised = diffusion.q_pred(inputs["log_x0"], int(inputs["t"]), schedule)
        uniform = diffusion.uniforms(
            tuple(noised.shape), torch.Generator().manual_seed(case["seed"])
        )
        assert torch.equal(diffusion.sample(noised, uniform), inputs["out"])
    elif "c" in case:
        _check_scaled(case, inputs)
    else:
        _check_kernels(case, inputs)


def _check_scaled(case: dict[str, Any], inputs: dict[str, Tensor]) -> None:
    schedule = diffusion.cosine_schedule(case["T"])
    log_x = diffusion.log_onehot(inputs["xt"], case["num_classes"])
    found = diffusion.q_pred_one_step_scaled(
        log_x, int(inputs["t"]), schedule, case["c"], case["jump_len"], log_x.ndim - 2
    )
    assert_close(found, inputs["out"])


def _check_kernels(case: dict[str, Any], inputs: dict[str, Tensor]) -> None:
    schedule, k = diffusion.cosine_schedule(case["T"]), case["num_classes"]
    dtype = getattr(torch, case.get("dtype", "float32"))
    for row, t in enumerate(inputs["t"].tolist()):
        log_xt = diffusion.log_onehot(inputs["xt"][row], k, dtype)
        kernels = {
            "log_onehot_xt": lambda log_xt=log_xt: log_xt,
            "q_pred_one_timestep": lambda log_xt=log_xt, t=t: diffusion.q_pred_one_step(
                log_xt, t, schedule
            ),
        }
        if "x0" in inputs:
            log_x0 = diffusion.log_onehot(inputs["x0"][row], k)
            predicted = inputs.get("log_x0_pred", inputs["x0"][..., None].float())[row]
            kernels |= {
                "log_onehot_x0": lambda log_x0=log_x0: log_x0,
                "q_pred": lambda log_x0=log_x0, t=t: diffusion.q_pred(log_x0, t, schedule),
                "q_posterior": lambda a=log_x0, b=log_xt, t=t: diffusion.posterior(
                    a, b, t, schedule
                ),
                "p_pred": lambda a=predicted, b=log_xt, t=t: diffusion.posterior(a, b, t, schedule),
            }
        compared = [key for key in kernels if key in inputs]
        assert compared
        for key in compared:
            found, wanted = kernels[key](), inputs[key][row]
            assert found.dtype == wanted.dtype
            assert_close(found.float(), wanted.float(), 1e-3 if dtype == torch.half else 1e-5)


@pytest.mark.parametrize("case", golden.cases("diffusion/schedules.json"))
def test_visiting_order(case: dict[str, Any]) -> None:
    found = visiting_order(case["T"], case["jump_len"], case["jump_n_sample"])
    assert found == case["times"]


@pytest.mark.parametrize("case", golden.cases("nar_sample/cases.json"), ids=golden.ids)
def test_nar_sampling(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = tensors("nar_sample/inputs.safetensors")
    inputs = {k: data[f"{case['inputs']}.{k}"] for k in (
        "c_text", "c_texts_length", "c_codes", "c_codes_length", "x", "x_padding_mask"
    )}  # fmt: skip
    settings, model = case["dsh"], _nar_model()
    reference = inputs["c_codes"] if settings["deep_clone"] else None
    known = Known.from_coarse(inputs["x"][..., 0], reference)
    visible = torch.ones(known.mask.shape[:2], dtype=torch.bool)
    visible[:, -inputs["x"].shape[1] :] = ~inputs["x_padding_mask"]
    with torch.no_grad():
        speaker = model.speaker_vector(inputs["c_codes"], inputs["c_codes_length"])
    estimator = Estimator(
        model,
        inputs["c_text"],
        inputs["c_texts_length"],
        speaker,
        settings["guidance_w"],
        settings["x_0_temp"],
        visible,
    )
    entered: list[tuple[Tensor, int]] = []
    original = Estimator.__call__
    monkeypatch.setattr(
        Estimator, "__call__", lambda self, x, t: (entered.append((x, t)), original(self, x, t))[1]
    )
    resampling = Resampling(
        settings["jump_len"],
        settings["jump_n_sample"],
        settings["enable_kevin_scaled_inference"],
        getattr(torch, case["dtype"]),
    )
    torch.manual_seed(case["seed"])
    override = settings["q0_override_steps"] if case["retain_quant0"] else case["T"]
    *_, codes = denoise_exact(
        estimator,
        known,
        diffusion.cosine_schedule(case["T"]),
        q0_override_steps=override,
        resampling=resampling,
        allow_padding=True,
    )
    wanted = tensors("nar_sample/outputs.safetensors")[case["case"]]
    assert torch.equal(codes[:, -wanted.shape[1] :], wanted)
    assert len(entered) == case["n_conditional_model_calls"]
    if case["traced"]:
        trace = tensors("nar_sample/trace.safetensors")
        assert [t for _, t in entered] == trace[f"{case['case']}.t"].tolist()
        found = torch.cat([x for x, _ in entered])
        assert torch.equal(found, trace[f"{case['case']}.x"].long())
