"""train.attention: which processor every attention has. What xformers computes shows on CUDA alone."""

import sys
from types import ModuleType

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, XFormersAttnProcessor

from fakes.torch_runs import make_task, make_trainer
from sdjob.core.errors import UnavailableError
from sdjob.train_torch import setup
from sdjob.train_torch.attention import set_xformers, try_xformers, use_xformers

CPU = torch.device("cpu")


def attentions(*models):
    return [module for model in models for module in model.modules() if isinstance(module, Attention)]


def processors(*models):
    return {type(attention.processor) for attention in attentions(*models)}


def models_of(task):
    return make_trainer(task).runner.models


@pytest.mark.parametrize("method", ["lora", "full"])
def test_sdpa_is_torchs_own_on_every_attention(sd1, method):
    models = models_of(make_task(sd1, method=method))
    assert processors(models.unet, models.vae) == {AttnProcessor2_0}


@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_xformers_is_set_on_every_attention(family, method, request):
    models = models_of(make_task(request.getfixturevalue(family), method=method))
    before = {name: id(parameter) for name, parameter in models.unet.named_parameters()}
    set_xformers(models.unet, models.vae)
    assert processors(models.unet, models.vae) == {XFormersAttnProcessor}
    assert len(attentions(models.unet)) > 4
    assert len(attentions(models.vae)) == 2  # the encoder's and the decoder's
    # Only the kernel between the layers changes: peft's adapters, or the weights, are the parameters that they were.
    assert {name: id(parameter) for name, parameter in models.unet.named_parameters()} == before


def test_pefts_layers_are_what_the_xformers_processor_calls(sd1):
    models = models_of(make_task(sd1))
    set_xformers(models.unet)
    for attention in attentions(models.unet):
        assert all(hasattr(layer, "lora_A") for layer in (attention.to_q, attention.to_k, attention.to_v))


def test_the_job_decides(sd1, monkeypatch):
    """Of the order only: models, adapters, then the kernel."""
    seen = []

    def see(*models, device, dtype):
        seen.append(
            ([type(model).__name__ for model in models], hasattr(attentions(models[0])[0].to_q, "lora_A"), device.type, dtype)
        )

    monkeypatch.setattr(setup, "use_xformers", see)
    models_of(make_task(sd1))
    assert seen == []
    models_of(make_task(sd1, train={"attention": "xformers", "deterministic": False, "precision": "bf16"}))
    unet, vae = (["UNet2DConditionModel"], True), (["AutoencoderKL"], False)
    assert seen == [(*unet, "cpu", torch.bfloat16), (*vae, "cpu", torch.bfloat16)]


@pytest.fixture
def ops(monkeypatch):
    """An xformers that is installed; a test gives it the function that would compute."""
    package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    package.ops = ops
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return ops


def test_absent_is_69(sd1):
    models = models_of(make_task(sd1))
    with pytest.raises(UnavailableError, match="xformers does not work here") as caught:
        use_xformers(models.unet, models.vae, device=CPU, dtype=torch.float32)
    assert f"pip install xformers torch=={torch.__version__.partition('+')[0]}`" in str(caught.value)
    assert caught.value.where == "train.attention"
    assert processors(models.unet) == {AttnProcessor2_0}


@pytest.mark.parametrize("error", [NotImplementedError("no operator found"), RuntimeError("CUDA error: no kernel image")])
def test_no_kernel_for_this_device_is_69(ops, error):
    def memory_efficient_attention(*_):
        raise error

    ops.memory_efficient_attention = memory_efficient_attention
    with pytest.raises(UnavailableError, match=str(error)):
        try_xformers(CPU, dtype=torch.bfloat16)


def test_a_kernel_without_a_backward_pass_is_69(ops):
    ops.memory_efficient_attention = lambda q, _k, _v: q.detach()
    with pytest.raises(UnavailableError, match="does not require grad"):
        try_xformers(CPU, dtype=torch.float32)


def test_out_of_memory_stays_what_it_is(ops):
    def memory_efficient_attention(*_):
        raise torch.OutOfMemoryError("2 GiB")

    ops.memory_efficient_attention = memory_efficient_attention
    with pytest.raises(torch.OutOfMemoryError):
        try_xformers(CPU, dtype=torch.float32)
