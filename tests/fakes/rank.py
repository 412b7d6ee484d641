"""One rank of a gang, for tests: trains a task from one step to another and writes down its gradients and states.

python -m fakes.rank TASK OUT START STOP [CHECKPOINT] [then TASK OUT ...]; RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as
torchrun sets them.
"""

import sys
from itertools import groupby
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from fakes.torch_runs import applied_gradients, make_micro, make_trainer, randomize
from sdjob.loop import StepMetrics
from sdjob.spec.task import TrainTask, read_task
from sdjob.train_torch import setup, step
from sdjob.train_torch.batches import rows_of_rank

THEN = "then"


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    step.BUCKET_NUMEL = 1000  # so that even a tiny model's gradients travel in several buckets
    for is_then, phase in groupby(arguments, key=THEN.__eq__):
        if not is_then:
            accelerator = train(*phase)
    setup.leave(accelerator)


def train(task_file: str, out: str, start: str, stop: str, checkpoint: str | None = None) -> Accelerator:
    task = read_task(Path(task_file))
    assert isinstance(task, TrainTask)
    trainer = make_trainer(task, checkpoint=Path(checkpoint) if checkpoint else None)
    runner, accelerator, train = trainer.runner, trainer.runner.accelerator, task.job.train
    if checkpoint is None:
        randomize(runner.state.parameters.values())
    ranks, device_batch = accelerator.num_processes, train.device_batch
    rows = rows_of_rank(accelerator.process_index, num_ranks=ranks, device_batch=device_batch, global_batch=train.global_batch)
    parts = [rows[first : first + device_batch] for first in range(0, len(rows), device_batch)]
    metrics = StepMetrics(loss=0.0, grad_norm=0.0, learning_rate=0.0, stop=False)
    for number in range(int(start), int(stop)):
        gradients = applied_gradients(runner, [make_micro(task, step=number, rows=part) for part in parts], step=number)
        save_file(gradients, Path(out) / f"gradients-{number}-{accelerator.process_index}.safetensors")
        if accelerator.is_main_process or runner.state.shards is not None:
            folder = Path(out) / f"state-{number + 1}"
            folder.mkdir(exist_ok=True)
            trainer.snapshot(step=number + 1, metrics=metrics).write_into(folder)
    accelerator.wait_for_everyone()
    return accelerator


if __name__ == "__main__":
    main(sys.argv[1:])
