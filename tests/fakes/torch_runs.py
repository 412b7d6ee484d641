"""Torch trainers of the tiny model, built as the trainer's own main builds them, and micro-batches made up for them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from fakes.checkpoints import make_job
from sdjob.core.streams import stream
from sdjob.diffusion.draws import DrawPlan, draw
from sdjob.diffusion.family import read_base_model
from sdjob.diffusion.schedule import read_schedule
from sdjob.diffusion.text_encoders import TEXT_PARTS
from sdjob.spec.task import TrainTask
from sdjob.train_torch import setup
from sdjob.train_torch.setup import TorchTrainer
from sdjob.train_torch.step import MicroBatch, StepRunner

TOKENS = 16
LATENT_SHAPE = (4, 8, 8)
SIZE_PX = 64


def make_task(model: Path, *, method: str = "lora", scratch: Path = Path("/nowhere"), **parts: Any) -> TrainTask:
    """`train=dict(...)` and so on are parts of the job; precision fp32 and deterministic unless they say otherwise."""
    train = {"precision": "fp32", "deterministic": True, **parts.pop("train", {})}
    job = make_job(method, **{"model": {"source": str(model)}, "train": train, **parts})
    return TrainTask(
        job=job, model=model, pictures=scratch, index=scratch / "index.jsonl", scratch=scratch, total_steps=10,
        start_step=0, restore_from=None, init_from=None, device="cpu", threads=1,
    )  # fmt: skip


def make_trainer(task: TrainTask, *, checkpoint: Path | None = None, init_from: Path | None = None) -> TorchTrainer:
    AcceleratorState._reset_state()  # else the process is bound to the precision of its first trainer
    accelerator = setup.build_accelerator(task)
    models = setup.build_models(task, accelerator=accelerator)
    trainer = setup.build_trainer(task, accelerator=accelerator, models=models)
    trainer.load(checkpoint=checkpoint, init_from=init_from)
    return trainer


def make_micro(task: TrainTask, *, step: int, rows: Iterable[int]) -> MicroBatch:
    """Pictures and tokens are random functions of (step, row); the draws are the job's own."""
    rows, loss = list(rows), task.job.train.loss
    plan = DrawPlan(
        seed=task.job.train.seed, schedule=read_schedule(task.model), latent_shape=LATENT_SHAPE, snr_gamma=loss.snr_gamma,
        noise_offset=loss.noise_offset, input_perturbation=loss.input_perturbation,
    )  # fmt: skip
    drawn = draw(plan, step=step, indices=rows)
    pixels = [stream(1, "pixels", step, row).uniform(-1, 1, (3, SIZE_PX, SIZE_PX)).astype(np.float32) for row in rows]
    encoders = len(TEXT_PARTS[read_base_model(task.model).family])
    ids = [stream(1, "ids", step, row).integers(0, 500, (encoders, TOKENS)) for row in rows]
    told = [float(stream(1, "told", step, row).random() < 0.75) for row in rows]
    time_ids = [stream(1, "time ids", step, row).integers(0, 200, 6).astype(np.float32) for row in rows]
    tensors = {name: torch.from_numpy(values) for name, values in vars(drawn).items()}
    pictures = {"pixels_BCHW": torch.from_numpy(np.stack(pixels))}
    captions = {"ids_BET": torch.from_numpy(np.stack(ids)), "told_B": torch.tensor(told)}
    return MicroBatch(pictures, captions, torch.from_numpy(np.stack(time_ids)), **tensors)


def applied_gradients(runner: StepRunner, micros: list[MicroBatch], *, step: int = 0) -> dict[str, Tensor]:
    """Runs a step; the gradients as the optimizer got them: reduced and clipped."""
    seen: dict[str, Tensor] = {}

    def look(*_: object) -> None:
        seen.update({name: p.grad.clone() for name, p in runner.state.parameters.items() if p.grad is not None})

    hook = runner.state.optimizer.register_step_pre_hook(look)
    runner.run(micros, step=step, stop_wanted=False)
    hook.remove()
    return seen


def norm_of(tensors: Iterable[Tensor]) -> float:
    return float(torch.cat([t.detach().double().flatten() for t in tensors]).norm())


def randomize(parameters: Iterable[torch.nn.Parameter], *, seed: int = 0, scale: float = 0.05) -> None:
    """LoRA starts with B zero, where A has no gradient: random values make every parameter count."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
