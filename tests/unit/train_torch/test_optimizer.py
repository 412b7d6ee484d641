"""The optimizers against the best-known implementation of each, and their whole state through a checkpoint."""

import math

import pytest
import torch
import transformers
from diffusers import UNet2DConditionModel
from prodigyopt import Prodigy
from safetensors.torch import load_file

from fakes.torch_runs import make_micro, make_task, make_trainer
from sdjob.spec.train import OptimizerSpec
from sdjob.train_torch.adafactor import Adafactor, started
from sdjob.train_torch.optimizer import build_optimizer, slots_of
from sdjob.train_torch.state import TrainState, restore, snapshot

SHAPES = {"unet.proj": (6, 10), "unet.lora_A": (4, 10), "unet.bias": (6,), "unet.conv": (8, 5, 3, 3)}
STEPS = 6


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def set_gradients(given, *, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in given:
        # Of very unequal sizes: the clipping of updates and the factors both count.
        scale = 10.0 ** torch.randn(parameter.shape[:1], generator=generator).view(-1, *[1] * (parameter.ndim - 1))
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale


def advanced(optimizer, given, *, start=0, stop=STEPS, rate=0.02):
    for step in range(start, stop):
        set_gradients(given, step=step)
        for group in optimizer.param_groups:
            group["lr"] = rate / (step + 1)
        optimizer.step()


class TestAdafactor:
    def test_it_is_transformers_own_with_the_jobs_learning_rate(self):
        """Of a kernel too, once that is given to it as one matrix of outputs."""
        ours, theirs = parameters(), parameters()
        matrices = {
            n: torch.nn.Parameter(p.detach().flatten(1).clone() if p.ndim > 1 else p.detach().clone()) for n, p in theirs.items()
        }
        options = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
        advanced(Adafactor(ours.values(), lr=0.02, weight_decay=0.1), list(ours.values()))
        other = transformers.Adafactor(matrices.values(), lr=0.02, weight_decay=0.1, **options)
        for step in range(STEPS):
            set_gradients(list(theirs.values()), step=step)
            for name, matrix in matrices.items():
                matrix.grad = theirs[name].grad.view(matrix.shape)
            other.param_groups[0]["lr"] = 0.02 / (step + 1)
            other.step()
        for name, parameter in ours.items():
            moved = (parameter - parameters()[name]).norm()
            assert (parameter.view(matrices[name].shape) - matrices[name]).norm() <= 1e-6 * moved, name

    def test_it_keeps_a_thousandth_of_what_adamw_keeps(self):
        """Of Stable Diffusion 1.5's UNet, by shapes alone: 859.5 million parameters."""
        with torch.device("meta"):
            unet = UNet2DConditionModel(cross_attention_dim=768)
        sizes = [parameter.numel() for parameter in unet.parameters()]
        kept = sum(t.numel() for p in unet.parameters() for name, t in started(p).items() if name != "step")
        assert sum(sizes) == 859_520_964
        adamw = 2 * sum(sizes)
        assert kept / adamw < 0.0015
        assert 4 * kept < 10 * 2**20, "bytes; AdamW's are 6.4 GiB"

    def test_the_files_are_smaller_too(self, sd1, tmp_path):
        size = {name: saved_run(sd1, tmp_path / name, name=name).stat().st_size for name in ("adamw", "adafactor")}
        assert size["adafactor"] < size["adamw"] / 4


def saved_run(model, folder, *, name):
    """The optimizer's file after one step of a whole tiny UNet."""
    trainer = make_trainer(make_task(model, method="full", train={"optimizer": {"name": name}}))
    metrics = trainer.step([make_micro(trainer.task, step=0, rows=range(2))], step=0, stop_wanted=False).read()
    folder.mkdir()
    trainer.snapshot(step=1, metrics=metrics).write_into(folder)
    return folder / "optimizer.safetensors"


class TestProdigy:
    SPEC = OptimizerSpec(
        name="prodigy", learning_rate=1.0, weight_decay=0.1, prodigy={"d_coef": 2.0, "use_bias_correction": True}
    )

    def test_it_is_prodigyopts(self):
        ours, theirs = parameters(), parameters()
        advanced(build_optimizer(self.SPEC, ours), list(ours.values()), rate=1.0)
        other = Prodigy(theirs.values(), weight_decay=0.1, d_coef=2.0, use_bias_correction=True, safeguard_warmup=False)
        advanced(other, list(theirs.values()), rate=1.0)
        assert all(torch.equal(ours[name], theirs[name]) for name in SHAPES)

    def test_it_finds_a_step_size(self):
        """arXiv 2306.06101: from 1e-6 up to the distance to the solution, on a problem whose solution is known."""
        weights = {"unet.w": torch.nn.Parameter(torch.zeros(10))}
        optimizer = build_optimizer(OptimizerSpec(name="prodigy", learning_rate=1.0, weight_decay=0.0), weights)
        for _ in range(200):
            weights["unet.w"].grad = (weights["unet.w"].detach() - 3.0).clone()
            optimizer.step()
        assert optimizer.param_groups[0]["d"] > 1e-2
        assert weights["unet.w"].detach() == pytest.approx([3.0] * 10, abs=0.3)

    def test_nothing_is_printed(self, capsys):
        """`sdjob run` writes results to stdout, and nothing else."""
        build_optimizer(self.SPEC, parameters())
        assert capsys.readouterr().out == ""

    def test_the_rate_that_is_told_is_its_own(self, sd1):
        task = make_task(sd1, method="full", train={"optimizer": {"name": "prodigy", "learning_rate": 1.0}})
        trainer = make_trainer(task)
        same = [make_micro(task, step=0, rows=range(2))]  # gradients that agree with one another
        told = [trainer.step(same, step=step, stop_wanted=False).read().learning_rate for step in range(4)]
        assert told[0] == 1e-6
        assert told[3] > told[0]


@pytest.mark.bitsandbytes
@pytest.mark.filterwarnings("ignore")
def test_eight_bits_are_bitsandbytes_own():
    """Its kernels for CPUs are what can be run here; a job needs CUDA."""
    import bitsandbytes

    ours, theirs = large_parameters(), large_parameters()
    advanced(build_optimizer(OptimizerSpec(name="adamw8bit"), ours), list(ours.values()))
    advanced(bitsandbytes.optim.AdamW8bit(theirs.values(), weight_decay=0.01), list(theirs.values()))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def large_parameters():
    """bitsandbytes keeps moments of fewer than 4096 elements in 32 bits."""
    return {**parameters(), "unet.large": torch.nn.Parameter(torch.linspace(-1, 1, 64 * 128).view(64, 128))}


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy", pytest.param("adamw8bit", marks=pytest.mark.bitsandbytes)])
def test_a_resumed_optimizer_is_the_straight_one_bit_for_bit(tmp_path, name):
    """The weights, every tensor of the state with its type, and Prodigy's numbers."""
    spec = OptimizerSpec(name=name, learning_rate=1.0 if name == "prodigy" else 0.01)
    straight = state_of(spec)
    advanced(straight.optimizer, list(straight.parameters.values()), stop=3, rate=spec.learning_rate)
    snapshot(straight, scalars={}).write_into(tmp_path)
    resumed = state_of(spec, seed=5)
    restore(resumed, tmp_path)
    for state in (straight, resumed):
        advanced(state.optimizer, list(state.parameters.values()), start=3, stop=STEPS, rate=spec.learning_rate)
    for parameter, other in zip(straight.parameters.values(), resumed.parameters.values(), strict=True):
        assert torch.equal(parameter, other)
        kept, others = slots_of(straight.optimizer, parameter), slots_of(resumed.optimizer, other)
        assert kept.keys() == others.keys()
        for slot, tensor in kept.items():
            assert tensor.dtype == others[slot].dtype, slot
            assert torch.equal(tensor, others[slot]), slot
    if name == "adamw8bit":
        assert load_file(tmp_path / "optimizer.safetensors")["optimizer.m.unet.large"].dtype == torch.uint8
    if name == "prodigy":
        assert math.isfinite(resumed.optimizer.param_groups[0]["d_numerator"])


def state_of(spec, *, seed=0):
    given = dict(sorted(large_parameters().items()))
    if seed:
        for parameter in given.values():
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    return TrainState(given, build_optimizer(spec, given), ema=None, scaler=None)
