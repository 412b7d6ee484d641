"""DoRA as in arXiv 2402.09353, section 4: a weight's direction moves by low rank, an output's magnitude is trained by itself."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from fakes.checkpoints import write_checkpoint
from fakes.torch_runs import make_micro, make_task, make_trainer, randomize
from sdjob.core.errors import UsageError
from sdjob.diffusion.names import DORA_MAGNITUDE, module_of
from sdjob.job.weights import build_published
from sdjob.spec.train import LoraSpec
from sdjob.train_torch.lora import add_lora, lora_parameters

DORA = {"rank": 3, "alpha": 6.0, "dora": True, "targets": ["to_q", "to_out.0", "conv1", "conv_shortcut"]}
SCALE = 6.0 / 3


def base_unet(model):
    return UNet2DConditionModel.from_pretrained(model, subfolder="unet").eval()


def with_dora(model):
    unet = base_unet(model)
    add_lora(unet, spec=LoraSpec(**{**DORA, "targets": tuple(DORA["targets"])}), seed=0)
    return unet.eval()


@torch.no_grad()
def output(unet):
    generator = torch.Generator().manual_seed(3)
    noisy, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 16, 32, generator=generator)
    return unet(noisy, torch.tensor([7, 900]), states, return_dict=False)[0]


def norms(weight):
    """Of each output, in the form that multiplies the weight."""
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


def moved(weight, A, B):
    """W + s B A; A of a convolution has the kernel's size and B is 1 x 1."""
    return weight + SCALE * (B.flatten(1) @ A.flatten(1)).view(weight.shape)


def of_modules(unet):
    """(A, B, magnitudes) by module."""
    found: dict[str, dict[str, torch.nn.Parameter]] = {}
    for name, parameter in lora_parameters(unet).items():
        found.setdefault(module_of(name), {})[name.split(".lora_")[1]] = parameter
    return {module: (own["A.weight"], own["B.weight"], own["magnitude_vector"]) for module, own in found.items()}


def test_names_are_pefts_behind_unet(sd1):
    unet = with_dora(sd1)
    assert set(lora_parameters(unet)) == {f"unet.{name}" for name in get_peft_model_state_dict(unet, adapter_name="default")}


def test_it_starts_as_the_model_itself(sd1):
    unet, base = with_dora(sd1), base_unet(sd1)
    for module, (_, _, magnitude) in of_modules(unet).items():
        assert magnitude.detach().flatten() == pytest.approx(
            norms(base.get_submodule(module).weight.detach()).flatten(), rel=1e-6
        ), module
    assert output(unet) == pytest.approx(output(base), abs=1e-5)


def test_it_is_the_magnitude_times_the_moved_direction(sd1):
    unet, by_hand = with_dora(sd1), base_unet(sd1)
    randomize((p for name, p in lora_parameters(unet).items() if ".lora_B." in name), scale=0.3)
    magnitudes = [p for name, p in lora_parameters(unet).items() if name.endswith(DORA_MAGNITUDE)]
    for number, magnitude in enumerate(magnitudes):
        magnitude.data *= 1.0 + 0.1 * (number % 3)
    for module, (A, B, magnitude) in of_modules(unet).items():
        weight = by_hand.get_submodule(module).weight
        direction = moved(weight.data, A.detach(), B.detach())
        weight.data = magnitude.detach().view_as(norms(direction)) * direction / norms(direction)
    assert (output(unet) - output(base_unet(sd1))).abs().max() > 0.01
    assert output(unet) == pytest.approx(output(by_hand), abs=1e-5)


def test_gradients_leave_the_norm_alone(sd1):
    """Section 4.3: the norm of the moved weight counts as a constant."""
    unet = with_dora(sd1)
    randomize((p for name, p in lora_parameters(unet).items() if ".lora_B." in name), scale=0.3)
    module, (A, B, magnitude) = next((m, own) for m, own in of_modules(unet).items() if m.endswith("to_q"))
    layer = unet.get_submodule(module)
    inputs = torch.randn(5, A.shape[1], generator=torch.Generator().manual_seed(1))
    layer(inputs).square().sum().backward()
    copies = [p.detach().clone().requires_grad_() for p in (A, B, magnitude)]
    direction = moved(layer.get_base_layer().weight.detach(), *copies[:2])
    weight = copies[2][:, None] * direction / norms(direction).detach()
    (inputs @ weight.T).square().sum().backward()
    for ours, wanted in zip((A, B, magnitude), copies, strict=True):
        assert (ours.grad - wanted.grad).norm() <= 1e-5 * wanted.grad.norm()


def test_magnitudes_are_trained_and_resumed_bit_for_bit(sd1, tmp_path):
    task = make_task(sd1, train={"lora": DORA, "optimizer": {"learning_rate": 1e-3}, "ema": {"decay": 0.9}})
    straight = make_trainer(task)
    middle = saved(straight, tmp_path / "2", start=0, stop=2)
    end = saved(straight, tmp_path / "4", start=2, stop=4)
    again = saved(make_trainer(task, checkpoint=middle), tmp_path / "again", start=2, stop=4)
    for file in ("weights.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"):
        assert (again / file).read_bytes() == (end / file).read_bytes(), file
    first, last = load_file(middle / "weights.safetensors"), load_file(end / "weights.safetensors")
    changed = [name for name in last if name.endswith(DORA_MAGNITUDE) and not torch.equal(first[name], last[name])]
    assert len(changed) == len(of_modules(straight.runner.models.unet))


def saved(trainer, folder, *, start, stop):
    for step in range(start, stop):
        metrics = trainer.step([make_micro(trainer.task, step=step, rows=range(2))], step=step, stop_wanted=False).read()
    folder.mkdir()
    trainer.snapshot(step=stop, metrics=metrics).write_into(folder)
    return folder


def published(model, folder):
    """(the weights, the file that was published of them)"""
    task = make_task(model, train={"lora": DORA})
    parameters = make_trainer(task).runner.state.parameters
    randomize((p for name, p in parameters.items() if ".lora_B." in name), scale=0.3, seed=9)
    arrays = {name: p.detach().numpy().copy() for name, p in parameters.items()}
    write_checkpoint(folder / "checkpoint", weights=arrays)
    files = build_published(folder / "checkpoint", job=task.job, model_dir=model, out=folder / "out")
    assert files == ["pytorch_lora_weights.safetensors"]
    return arrays, folder / "out" / files[0]


def test_what_is_published_draws_the_same_in_diffusers_and_starts_another_run(sd1, tmp_path):
    arrays, file = published(sd1, tmp_path)
    trained = with_dora(sd1)
    for name, parameter in lora_parameters(trained).items():
        parameter.data = torch.from_numpy(arrays[name]).view_as(parameter)
    loaded = base_unet(sd1)
    loaded.load_lora_adapter(file.parent, weight_name=file.name, prefix="unet", use_safetensors=True)
    assert (output(trained) - output(base_unet(sd1))).abs().max() > 0.01
    assert output(loaded) == pytest.approx(output(trained), abs=1e-6)
    started = make_trainer(make_task(sd1, train={"lora": DORA}), init_from=file).runner.state.parameters
    assert all(torch.equal(started[name].detach(), torch.from_numpy(values)) for name, values in arrays.items())


def test_no_other_program_is_given_what_it_would_draw_otherwise(sd1, tmp_path):
    _, file = published(sd1, tmp_path)
    job = make_task(sd1, train={"lora": DORA}).job
    with pytest.raises(UsageError, match="drawn otherwise than it was trained"):
        build_published(tmp_path / "checkpoint", job=job, model_dir=sd1, out=tmp_path / "kohya", format="kohya")
    plain = {name: value for name, value in DORA.items() if name != "dora"}
    with pytest.raises(UsageError, match=r"is a DoRA, and train\.lora\.dora is false"):
        make_trainer(make_task(sd1, train={"lora": plain}), init_from=file)
