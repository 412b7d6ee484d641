"""A layer with its LoRA as one function: peft's own layer to rounding, and peft's own layer wherever it is not a plain one."""

import pytest
import torch
from peft.tuners.lora.layer import Linear

from fakes.torch_runs import applied_gradients, make_micro, make_task, make_trainer, norm_of, randomize
from sdjob.train_torch.lora_layer import Adapted, AdaptedLinear

SCALED = {"lora": {"rank": 3, "alpha": 5}}


def trainer_of(model, **train):
    trainer = make_trainer(make_task(model, train=train))
    randomize(trainer.runner.state.parameters.values())
    return trainer


def pefts_own(trainer):
    for module in trainer.runner.models.unet.modules():
        if type(module) is AdaptedLinear:
            module.__class__ = Linear
    return trainer


def gradients_of(trainer):
    return applied_gradients(trainer.runner, [make_micro(trainer.task, step=0, rows=range(2))])


def kinds_of(trainer):
    return {type(module) for module in trainer.runner.models.unet.modules() if isinstance(module, Linear)}


@pytest.mark.parametrize("train", [SCALED, SCALED | {"gradient_checkpointing": True}], ids=["plain", "checkpointing"])
def test_gradients_are_those_of_pefts_layer(sd1, train):
    trainer = trainer_of(sd1, **train)
    assert kinds_of(trainer) == {AdaptedLinear}
    ours, theirs = gradients_of(trainer), gradients_of(pefts_own(trainer_of(sd1, **train)))
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert norm_of([gradient]) > 0
        assert norm_of([ours[name] - gradient]) <= 1e-5 * norm_of([gradient]), name


def test_the_function_has_the_gradients_of_what_it_computes():
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 5).double()
    x, A, B = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((7, 6), (2, 6), (5, 2)))

    def function(x, A, B):
        return Adapted.apply(x, layer.weight.detach(), layer.bias.detach(), A, B, 1.5)

    assert torch.allclose(function(x, A, B), layer(x) + 1.5 * (x @ A.t() @ B.t()))
    assert torch.autograd.gradcheck(function, (x, A, B))


def test_a_layer_that_is_switched_off_is_the_base_layer(sd1):
    layer = next(module for module in trainer_of(sd1).runner.models.unet.modules() if type(module) is AdaptedLinear)
    x = torch.randn(2, 3, layer.in_features)
    assert not torch.equal(layer(x), layer.base_layer(x))
    layer.enable_adapters(enabled=False)
    assert torch.equal(layer(x), layer.base_layer(x))


@pytest.mark.parametrize(
    "train", [{"lora": {"dropout": 0.1}}, {"lora": {"dora": True}}, {"precision": "bf16"}], ids=["dropout", "DoRA", "bf16"]
)
def test_other_layers_stay_pefts(sd1, train):
    assert kinds_of(trainer_of(sd1, **train)) == {Linear}
