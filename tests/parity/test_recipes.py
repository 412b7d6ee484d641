"""Every recipe that both backends have: the same training on both, and resumed on either the straight run bit for bit.

What a recipe computes is held against its paper or its best-known implementation beside the code: tests/unit/diffusion for the
loss, tests/unit/train_torch for optimizers and LoRA, tests/parity/test_flax_optimizer.py.
"""

import json
import math

import pytest
from safetensors.torch import load_file

from fakes.flax_runs import make_flax_batch, make_flax_trainer
from fakes.tiny_models import write_tiny_model
from fakes.torch_runs import make_micro, make_task, make_trainer
from sdjob.diffusion.schedule import zero_terminal_config

STEPS, MIDDLE = 6, 3
# Adam's first steps are nearly the sign of the gradient: a warm-up and a larger epsilon keep the comparison one of the backends.
COMMON = {"schedule": {"name": "constant_with_warmup", "warmup_steps": 4}, "precision": "fp32"}
ADAMW = {"learning_rate": 1e-3, "epsilon": 1e-6}
RECIPES = {
    # v-prediction by sd2: min-SNR's other form, and a last timestep without any signal.
    "lora-by-pattern": (
        "sd2",
        {
            "method": "lora",
            "optimizer": ADAMW,
            "lora": {
                "rank": 3,
                "alpha": 6.0,
                "targets": ["to_q", "to_out.0", "ff.net.2", "conv1", "conv_shortcut"],
                "rank_pattern": {"conv1": 2, "mid_block.*to_q": 5},
                "alpha_pattern": {"conv_shortcut": 1.0},
                "learning_rate_pattern": {"conv1": 5e-4, "ff.net.2": 0.0},
            },
            "loss": {"zero_terminal_snr": True, "snr_gamma": 5.0},
            "ema": {"decay": 0.6, "offload": True},
        },
    ),
    "full-by-adafactor": (
        "sd1",
        {
            "method": "full",
            "optimizer": {"name": "adafactor", "learning_rate": 1e-3, "weight_decay": 0.05},
            "loss": {"snr_gamma": 5.0, "noise_offset": 0.1, "input_perturbation": 0.1},
            "ema": {"decay": 0.6, "offload": True},
        },
    ),
}
MICROS = (range(2), range(2, 4))


@pytest.fixture(scope="module", params=RECIPES)
def task(request, tmp_path_factory):
    family, train = RECIPES[request.param]
    model = tmp_path_factory.mktemp("model")
    write_tiny_model(model, family=family)
    if train["loss"].get("zero_terminal_snr"):  # which the parent does where a job says so
        config = model / "scheduler" / "scheduler_config.json"
        config.write_text(json.dumps(zero_terminal_config(json.loads(config.read_text()), where="")))
    return make_task(model, method=train["method"], train=COMMON | {k: v for k, v in train.items() if k != "method"})


def torch_batch(task, step):
    return [make_micro(task, step=step, rows=rows) for rows in MICROS]


def flax_batch(task, step):
    return make_flax_batch(task, step=step, micros=MICROS)


BACKENDS = {"torch": (make_trainer, torch_batch), "flax": (make_flax_trainer, flax_batch)}


def run(backend, trainer, folder, *, start, stop):
    _, batch = BACKENDS[backend]
    metrics = [trainer.step(batch(trainer.task, step), step=step, stop_wanted=False).read() for step in range(start, stop)]
    folder.mkdir()
    trainer.snapshot(step=stop, metrics=metrics[-1]).write_into(folder)
    return metrics


@pytest.fixture(scope="module")
def runs(task, tmp_path_factory):
    """Both backends' checkpoints in the middle and at the end, with their metrics."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for backend, (make, _) in BACKENDS.items():
        trainer, folders = make(task), {stop: root / f"{backend} {stop}" for stop in (MIDDLE, STEPS)}
        metrics = run(backend, trainer, folders[MIDDLE], start=0, stop=MIDDLE)
        metrics += run(backend, trainer, folders[STEPS], start=MIDDLE, stop=STEPS)
        found[backend] = (folders, metrics)
    return found


def tensors_of(folder):
    return {name: values for file in sorted(folder.glob("*.safetensors")) for name, values in load_file(file).items()}


def norm(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors.values()))


def test_losses_agree(runs):
    for ours, theirs in zip(runs["flax"][1], runs["torch"][1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-3)


@pytest.mark.parametrize("kind", ["unet.", "ema.", "optimizer."])
def test_updates_agree(runs, kind):
    """Between the two checkpoints, over all tensors of a kind together."""
    early, late, ours = (
        {name: values for name, values in tensors_of(runs[backend][0][step]).items() if name.startswith(kind)}
        for backend, step in (("torch", MIDDLE), ("torch", STEPS), ("flax", STEPS))
    )
    assert ours.keys() == late.keys()
    update = {name: values - early[name] for name, values in late.items()}
    assert norm(update) > 0
    assert norm({name: ours[name] - values for name, values in late.items()}) <= 1e-3 * norm(update)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_resumed_run_is_the_straight_one_bit_for_bit(task, runs, tmp_path, backend):
    folders, straight = runs[backend]
    make, _ = BACKENDS[backend]
    resumed = make(task, checkpoint=folders[MIDDLE])
    assert run(backend, resumed, tmp_path / "again", start=MIDDLE, stop=STEPS) == straight[MIDDLE:]
    for file in sorted(path.name for path in folders[STEPS].iterdir()):
        assert (tmp_path / "again" / file).read_bytes() == (folders[STEPS] / file).read_bytes(), file


def test_averages_lie_on_the_host(task):
    """Of a CPU's two kinds of memory the one that stands for a host's."""
    runner = make_flax_trainer(task).runner
    runner.knobs(0.0, step=0, num_micro=1)  # as what compiles ahead of the first step asks for them
    assert {array.sharding.memory_kind for array in runner.state.averages.values()} == {"pinned_host"}
    runner.run(flax_batch(task, 0), step=0, stop_wanted=False)
    assert {array.sharding.memory_kind for array in runner.state.averages.values()} == {"pinned_host"}
    assert {array.sharding.memory_kind for array in runner.state.parameters.values()} == {"device"}
