"""Both backends' optimizers are one: the same steps to rounding, one state that either resumes."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fakes.flax_parity  # noqa: F401 - jax on the CPU, compiled fast
from sdjob.spec.train import OptimizerSpec
from sdjob.train_flax import state as flax_states
from sdjob.train_flax.models import names
from sdjob.train_flax.optimizer import optimizer_of
from sdjob.train_flax.step import Knobs, updated
from sdjob.train_torch import state as torch_states
from sdjob.train_torch.optimizer import build_optimizer, set_rate

PATHS = {
    "unet.conv.lora_A.weight": ("conv", "lora_A"),
    "unet.conv.lora_B.weight": ("conv", "lora_B"),
    "unet.conv.weight": ("conv", "kernel"),
    "unet.norm.weight": ("norm", "scale"),
    "unet.proj.bias": ("proj", "bias"),
    "unet.proj.weight": ("proj", "kernel"),
    "unet.tokens.weight": ("tokens", "embedding"),
}
SHAPES = dict(zip(PATHS, [(3, 5, 3, 3), (8, 3, 1, 1), (8, 5, 3, 3), (6,), (6,), (6, 10), (12, 6)], strict=True))
SPECS = {
    "adafactor": OptimizerSpec(name="adafactor", weight_decay=0.1),
    "adamw": OptimizerSpec(name="adamw", weight_decay=0.1, epsilon=1e-6),
}
# Learning rates by pattern come to such factors.
FACTORS = {**dict.fromkeys(PATHS, 1.0), "unet.proj.weight": 0.25, "unet.proj.bias": 0.25, "unet.norm.weight": 0.0}
STEPS, MIDDLE = 6, 3


def tensors(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(step):
    """Some larger than others by far, so that updates are clipped and factors count."""
    rng = np.random.default_rng(100 + step)
    return {name: values * np.float32(10.0 ** rng.normal()) for name, values in tensors(50 + step).items()}


def rate_at(step):
    return 0.05 / (step + 1)


class Torch:
    def __init__(self, spec):
        given = {name: torch.nn.Parameter(torch.from_numpy(values)) for name, values in tensors(0).items()}
        self.state = torch_states.TrainState(given, build_optimizer(spec, given, factors=FACTORS), ema=None, scaler=None)

    def step(self, number):
        for name, gradient in gradients(number).items():
            self.state.parameters[name].grad = torch.from_numpy(gradient)
        set_rate(self.state.optimizer, rate_at(number))
        self.state.optimizer.step()

    def save(self, folder):
        torch_states.snapshot(self.state, scalars={}).write_into(folder)

    def restore(self, folder):
        torch_states.restore(self.state, folder)


class Flax:
    def __init__(self, spec):
        optimizer = optimizer_of(spec)
        given = {name: jnp.asarray(names.from_torch(PATHS[name], values)) for name, values in tensors(0).items()}
        self.plan = SimpleNamespace(optimizer=optimizer, paths=tuple(PATHS.items()), rates=tuple(FACTORS.items()))
        self.state = flax_states.start_state(given, ema=False, optimizer=optimizer, paths=PATHS)
        self.count = 0

    def step(self, number):
        self.count += 1
        given = {name: jnp.asarray(names.from_torch(PATHS[name], values)) for name, values in gradients(number).items()}
        numbers = self.plan.optimizer.numbers(self.count)
        knobs = Knobs(learning_rate=np.float32(rate_at(number)), optimizer=numbers, ema_share=0.0, dropout_seeds_M=None)
        self.state = updated(self.state, given, knobs, plan=self.plan)

    def save(self, folder):
        flax_states.snapshot(self.state, paths=PATHS, count=self.count, scalars={}).write_into(folder)

    def restore(self, folder):
        found = flax_states.restore(self.state, folder, paths=PATHS)
        self.state, self.count = found.state, found.count


KINDS = {"torch": Torch, "flax": Flax}


def run(one, *, start=0, stop=STEPS):
    for number in range(start, stop):
        one.step(number)
    return one


def saved(one, folder):
    folder.mkdir()
    one.save(folder)
    return {
        name: values for file in ("weights", "optimizer") for name, values in load_file(folder / f"{file}.safetensors").items()
    }


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    start = tensors(0)
    for name, values in theirs.items():
        assert ours[name].shape == values.shape, name
        from_ = torch.from_numpy(start[name]) if name in start else 0.0
        assert (ours[name] - values).norm() <= 2e-6 * (values - from_).norm(), name


@pytest.mark.parametrize("name", SPECS)
def test_both_take_the_same_steps(name, tmp_path):
    ends = {kind: saved(run(make(SPECS[name])), tmp_path / kind) for kind, make in KINDS.items()}
    assert_same(ends["flax"], ends["torch"])


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("name", SPECS)
def test_either_resumes_the_others_state(name, first, tmp_path):
    """The straight run on torch is the measure."""
    second = next(kind for kind in KINDS if kind != first)
    saved(run(KINDS[first](SPECS[name]), stop=MIDDLE), tmp_path / "middle")
    relay = KINDS[second](SPECS[name])
    relay.restore(tmp_path / "middle")
    end = saved(run(relay, start=MIDDLE), tmp_path / "end")
    assert_same(end, saved(run(Torch(SPECS[name])), tmp_path / "straight"))


def test_what_is_factored_is_kept_by_row_and_column(tmp_path):
    """By torch's axes, whoever writes."""
    for kind, make in KINDS.items():
        shapes = {name: tuple(t.shape) for name, t in saved(run(make(SPECS["adafactor"]), stop=1), tmp_path / kind).items()}
        assert shapes["optimizer.row.unet.conv.weight"] == (8,)
        assert shapes["optimizer.col.unet.conv.weight"] == (5, 3, 3)
        assert shapes["optimizer.row.unet.proj.weight"] == (6,)
        assert shapes["optimizer.col.unet.proj.weight"] == (10,)
        assert shapes["optimizer.row.unet.tokens.weight"] == (12,)
        assert shapes["optimizer.v.unet.proj.bias"] == (6,)
        assert not any(name.startswith("optimizer.m.") for name in shapes)
