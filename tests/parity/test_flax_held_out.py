"""The loss on held-out pictures: what a person would compute by hand, the same on torch and flax, moved by the weights alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fakes.data_tasks import BUCKETS, make_data_task
from fakes.flax_runs import make_flax_trainer
from fakes.torch_runs import make_trainer
from sdjob.core.streams import stream
from sdjob.data.buckets import nearest_size
from sdjob.data.crops import center_crop
from sdjob.data.index import read_index
from sdjob.data.roles import roles_of
from sdjob.data.samples import SampleSource
from sdjob.diffusion.schedule import read_schedule
from sdjob.loop import StepMetrics
from sdjob.train_flax.held_out import measure_of
from sdjob.train_torch.batches import build_batches
from sdjob.train_torch.encode import encode_pictures
from sdjob.train_torch.held_out import measure_of as torch_measure_of

LEVELS, HELD_OUT = 3, 5
FLIPS = {"crop": "random", "flip": True, "caption_dropout": 0.5}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Rows of three sizes, none a multiple of the batch; and all that is drawn anew where pictures are trained on."""
    return make_data_task(
        tmp_path_factory.mktemp("task"),
        data={**BUCKETS, **FLIPS, "held_out": {"count": HELD_OUT}},
        validation={"loss_timesteps": LEVELS},
        train={"optimizer": {"learning_rate": 0.05}, "ema": {"decay": 0.5}, "loss": {"snr_gamma": 5.0, "noise_offset": 0.1}},
    )


@pytest.fixture(scope="module")
def trainer(task):
    """After some steps: the averaged weights are neither those of the start nor the others."""
    trainer = make_trainer(task)
    with build_batches(task, trainer=trainer) as batches:
        for step, batch in zip(range(3), batches, strict=False):
            trainer.step(batch, step=step, stop_wanted=False).read()
    return trainer


@pytest.fixture(scope="module")
def loss(task, trainer):
    return measured(task, trainer)


def measured(task, trainer, **train):
    job = task.job.model_copy(update={"train": task.job.train.model_copy(update=train)})
    measure = torch_measure_of(replace(task, job=job), trainer=trainer)
    assert measure is not None
    return measure()


def by_hand(task, trainer):
    """Picture by picture, level by level, with nothing of the batches."""
    index, models, schedule = read_index(task.index), trainer.runner.models, read_schedule(task.model)
    source, errors = SampleSource(index, task.folders, data=task.job.data, seed=0), []
    for number in roles_of(index, data=task.job.data).held_out:
        entry = index.entries[number]
        size = nearest_size(width=entry.width, height=entry.height, data=task.job.data)
        crop = center_crop(width=entry.width, height=entry.height, target_width=size.width, target_height=size.height)
        pixels = torch.from_numpy(source.pixels(entry, crop=crop, flipped=False))[None]
        states = models.text.encode(**trainer.tokenizers.tensors([entry.captions[0]]))["states_BTD"]
        moments, content = encode_pictures(models.vae, pixels), int(entry.sha256[:16], 16)
        for level in range(LEVELS):
            timestep = int((level + 0.5) * 1000 / LEVELS)
            shape = tuple(moments["mean_BCHW"].shape[1:])
            posterior, noise = (
                torch.from_numpy(stream(0, name, *keys).standard_normal(shape, dtype=np.float32))[None]
                for name, keys in (("held-out posterior", (content,)), ("held-out noise", (content, level)))
            )
            latents = moments["mean_BCHW"] + torch.exp(0.5 * moments["log_variance_BCHW"]) * posterior
            signal = float(schedule.alphas_cumprod[timestep]) ** 0.5
            noisy = signal * latents * models.latents.scaling_factor + (1 - signal**2) ** 0.5 * noise
            predicted = models.unet(noisy, torch.tensor([timestep]), states, return_dict=False)[0]
            errors.append(float(((predicted - noise) ** 2).mean()))
    assert len(errors) == LEVELS * HELD_OUT
    return sum(errors) / len(errors)


@torch.no_grad()
def test_it_is_the_mean_error_over_pictures_and_levels(task, trainer, loss):
    with trainer.averaged_weights():
        assert loss == pytest.approx(by_hand(task, trainer), rel=1e-5)
    assert loss != pytest.approx(by_hand(task, trainer), rel=1e-5), "of the averaged weights: they are what is published"


def test_the_weights_alone_move_it(task, trainer, loss):
    assert measured(task, trainer) == loss
    assert measured(task, trainer, seed=99) == loss
    assert measured(task, trainer, device_batch=4) == pytest.approx(loss, rel=1e-6)
    with build_batches(replace(task, start_step=3), trainer=trainer) as batches:
        trainer.step(next(batches), step=3, stop_wanted=False).read()
    assert measured(task, trainer) != loss


def test_flax_has_the_same_loss(task, trainer, tmp_path):
    metrics = StepMetrics(loss=0.0, grad_norm=0.0, learning_rate=0.0, stop=False)
    trainer.snapshot(step=4, metrics=metrics).write_into(tmp_path)
    measure = measure_of(task, trainer=make_flax_trainer(task, checkpoint=tmp_path))
    assert measure is not None
    assert measure() == pytest.approx(measured(task, trainer), rel=1e-4)
    assert measure() == measure()
