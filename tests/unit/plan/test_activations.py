"""What layers are said to keep, and the work they are said to be, against torch's own count, without numbers."""

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from sdjob.plan import families
from sdjob.plan.activations import Numbers
from sdjob.plan.backward import Pass, held_by_layer
from sdjob.plan.memory import text_trained, trained_params
from sdjob.plan.network import Grid, Layer, unet
from sdjob.plan.work import Adapters, step_work
from sdjob.train_torch.meter import Meter
from unit.plan.jobs import make_job, model_of

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
SIDE = 32
CONFIGS = {
    "sd1": families.UNET_SD1 | {"layers_per_block": 1},
    "sd2": families.UNET_SD2 | {"layers_per_block": 1},
    "sdxl": families.UNET_SDXL | {"layers_per_block": 1, "transformer_layers_per_block": [1, 1, 2]},
}


@pytest.fixture(autouse=True)
def without_numbers():
    with torch.device("meta"):
        yield


class Fused(torch.autograd.Function):
    """Attention as kernels do it, which keep no scores; on the meta device torch's own would."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result)
        return result


def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    return Fused.apply(query, key, value)


CASES = [
    pytest.param(name, method, checkpointing, id=f"{name}-{method}{'-checkpointing' * checkpointing}")
    for name in CONFIGS
    for method in ("lora", "full")
    for checkpointing in (False, True)
]


def model(config: dict[str, Any], *, method: str, checkpointing: bool) -> UNet2DConditionModel:
    made = UNet2DConditionModel.from_config(config | {"attention_head_dim": 64})
    if method == "lora":
        made.requires_grad_(False)
        made.add_adapter(LoraConfig(r=4, target_modules=list(TARGETS)))
    if checkpointing:
        made.enable_gradient_checkpointing()
    return made.train()


def predicted(made: UNet2DConditionModel) -> torch.Tensor:
    added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
    text = torch.zeros(1, 77, made.config["cross_attention_dim"])
    return made(torch.zeros(1, 4, SIDE, SIDE), torch.tensor([1]), text, added_cond_kwargs=added).sample


def trained_in(made: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)


def layers_of(config: dict[str, Any]) -> list[Layer]:
    return list(unet(config, latents=Grid(SIDE, SIDE)))


def adapters_of(method: str) -> Adapters | None:
    return Adapters(4, TARGETS) if method == "lora" else None


@pytest.mark.parametrize(("name", "method", "checkpointing"), CASES)
def test_what_is_kept(name, method, checkpointing, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    config = CONFIGS[name]
    with Meter() as meter:
        made = model(config, method=method, checkpointing=checkpointing)
        meter.name("weights", made.parameters())
        meter.name("weights", made.buffers())
        result = predicted(made)
    truth = meter.parts_now["activations"]
    assert result.grad_fn is not None
    held = held_by_layer(layers_of(config), run=run(method))
    counted = sum(one.entry if checkpointing and one.block else one.kept for one in held)
    assert counted == pytest.approx(truth, rel=0.1)


def run(method: str) -> Pass:
    return Pass(
        method=method, adapters=adapters_of(method), pictures=1, numbers=Numbers(4, 4), copies_weights=False, checkpointing=False,
        accumulates=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "method", "checkpointing"), CASES)
def test_the_work_of_a_step(name, method, checkpointing):
    config = CONFIGS[name]
    made = model(config, method=method, checkpointing=checkpointing)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = predicted(made).mean()
        forward = counter.get_total_flops()
        loss.backward()
    work = step_work(layers_of(config), method=method, adapters=adapters_of(method), checkpointing=checkpointing)
    assert work.forward == forward
    assert work.total == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_loras_numbers():
    config = CONFIGS["sd1"]
    made = model(config, method="lora", checkpointing=False)
    assert Adapters(4, TARGETS).params(layers_of(config)) == trained_in(made)


RANKS = {r"down_blocks\.0\..*\.to_q": 16, "attn2.to_k": 1, "to_q": 2, "conv1": 3}  # the first that matches counts


@pytest.mark.parametrize("dora", [False, True])
def test_a_loras_numbers_where_modules_have_ranks_of_their_own(dora):
    config, targets = CONFIGS["sd1"], (*TARGETS, "conv1")
    made = UNet2DConditionModel.from_config(config | {"attention_head_dim": 64})
    made.requires_grad_(False)
    made.add_adapter(LoraConfig(r=4, target_modules=list(targets), rank_pattern=RANKS, use_dora=dora))
    train = make_job(train={"lora": {"rank": 4, "targets": targets, "rank_pattern": RANKS, "dora": dora}}).train
    assert trained_params(layers_of(config), train=train) == trained_in(made)


def test_a_text_encoders_lora_has_ranks_of_its_own_too():
    job = make_job(
        train={"text_encoder": "lora", "lora": {"rank": 4, "rank_pattern": {r"text_model\.encoder\.layers\.0\..*": 8}}}
    )
    made = CLIPTextModel(CLIPTextConfig(**families.SD1.text_encoders[0]))
    made.requires_grad_(False)
    ranks = {r"layers\.0\..*": 8}  # in memory there is no text_model before it
    made.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"], rank_pattern=ranks))
    assert text_trained(job, model=model_of(job)) == trained_in(made)


def test_a_larger_rank_is_more_work():
    layers = layers_of(CONFIGS["sd1"])
    plain, one, all_of_them = (
        step_work(layers, method="lora", adapters=Adapters(4, TARGETS, ranks), checkpointing=False).forward
        for ranks in ((), (("down_blocks.0.*to_q", 8),), (("to_.*", 8),))
    )
    frozen = sum(layer.flops for layer in layers)
    assert plain < one < all_of_them
    assert all_of_them - frozen == 2 * (plain - frozen)


def test_a_target_is_the_end_of_a_name_behind_a_dot():
    """peft's rule: `v` is no module's name though `to_v` ends so."""
    kinds = Counter(layer.name.rpartition(".")[2] for layer in Adapters(4, ("v", "to_q")).chosen(layers_of(CONFIGS["sd1"])))
    assert set(kinds) == {"to_q"}
