"""The pure learning rate against diffusers' get_scheduler, step by step."""

import pytest
import torch
from diffusers.optimization import get_scheduler

from sdjob.diffusion.learning_rate import LearningRate

STEPS, WARMUP, BASE = 50, 7, 3e-4


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("constant", {}),
        ("constant_with_warmup", {}),
        ("linear", {}),
        ("cosine", {}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("polynomial", {"power": 2.0}),
        ("piecewise_constant", {"step_rules": "1:10,0.1:20,0.01:30,0.005"}),
    ],
)
def test_every_step_equals_diffusers(name, extra):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=WARMUP, num_training_steps=STEPS, **extra)
    ours = LearningRate(BASE, name, total_steps=STEPS, warmup_steps=WARMUP, **extra)
    for step in range(STEPS):
        assert ours.at(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15), step
        optimizer.step()
        theirs.step()


def test_unknown_name():
    with pytest.raises(ValueError, match="'sawtooth'"):
        LearningRate(BASE, "sawtooth", total_steps=10).at(5)
