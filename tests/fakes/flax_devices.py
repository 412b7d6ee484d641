"""Run as a program: trains the tiny model on as many virtual CPU devices as XLA_FLAGS gives, and writes the checkpoint.

python flax_devices.py MODEL METHOD OUT
"""

import sys
from pathlib import Path

from fakes.flax_runs import make_flax_batch, make_flax_trainer
from fakes.torch_runs import make_task
from sdjob.train_flax import mesh

STEPS = 4
TRAIN = {
    "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6, "max_grad_norm": 0.01},
    "schedule": {"name": "constant_with_warmup", "warmup_steps": 3},
}


def main(model: str, method: str, out: str) -> None:
    mesh.SMALLEST_SPREAD = 1024  # the tiny model has no tensor of 64 Ki elements
    trainer = make_flax_trainer(make_task(Path(model), method=method, train=TRAIN))
    for step in range(STEPS):
        batch = make_flax_batch(trainer.task, step=step, micros=[range(4), range(4, 8)])
        metrics = trainer.step(batch, step=step, stop_wanted=False).read()
    Path(out).mkdir()
    trainer.snapshot(step=STEPS, metrics=metrics).write_into(Path(out))
    spread = [not values.sharding.is_fully_replicated for values in trainer.runner.state.second.values()]
    print(f"spread {sum(spread)} of {len(spread)}")  # noqa: T201 - a program


if __name__ == "__main__":
    main(*sys.argv[1:])
