"""Run as a program: trains the tiny model on as many virtual CPU devices as XLA_FLAGS gives, and writes the checkpoint.

python flax_devices.py MODEL METHOD OUT
"""

import json
import sys
from pathlib import Path

import jax

from fakes.flax_runs import make_flax_batch, make_flax_trainer
from fakes.torch_runs import make_task
from sdjob.train_flax import mesh

STEPS = 4
TRAIN = {
    "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6, "max_grad_norm": 0.01},
    "schedule": {"name": "constant_with_warmup", "warmup_steps": 3},
}


def main(model: str, method: str, out: str) -> None:
    mesh.SMALLEST_SPREAD = 64  # the tiny model has no tensor of 64 Ki elements
    trainer = make_flax_trainer(make_task(Path(model), method=method, train=TRAIN))
    laid = jax.tree.map(lambda tensor: tensor.sharding, trainer.runner.state)
    for step in range(STEPS):
        batch = make_flax_batch(trainer.task, step=step, micros=[range(8), range(8, 16)])
        metrics = trainer.step(batch, step=step, stop_wanted=False).read()
    Path(out).mkdir()
    trainer.snapshot(step=STEPS, metrics=metrics).write_into(Path(out))
    tensors = jax.tree.leaves(trainer.runner.state)
    on_one = sum(tensor.addressable_shards[0].data.nbytes for tensor in tensors)
    stays = laid == jax.tree.map(lambda tensor: tensor.sharding, trainer.runner.state)
    said = {"state_bytes": sum(tensor.nbytes for tensor in tensors), "device_bytes": on_one, "stays": stays}
    print(json.dumps(said))  # noqa: T201 - a program


if __name__ == "__main__":
    main(*sys.argv[1:])
