"""Learning rates are the scripts' own, step by step."""

from typing import Any

import pytest

from sdjob.convert.conversion import Circumstances, convert_words
from sdjob.core.errors import UsageError
from sdjob.diffusion.learning_rate import LearningRate
from sdjob.spec.job import JobSpec
from sdjob.spec.load import job_from_text

BASE = ("--pretrained_model_name_or_path=a/b", "--train_data_dir=p")


def job_of(*words: str, devices: int | None = None, script: str = "train_text_to_image.py") -> JobSpec:
    converted = convert_words([script, *BASE, *words], circumstances=Circumstances({}, lambda _: False, devices))
    return job_from_text(converted.job_file, source="test", environment={})


def rates_of(job: JobSpec) -> list[float]:
    schedule, steps = job.train.schedule, job.train.steps
    assert steps
    rate = LearningRate(
        job.train.optimizer.learning_rate, schedule.name, steps, schedule.warmup_steps, schedule.num_cycles, schedule.power
    )
    return [rate.at(step) for step in range(steps)]


def rates_of_the_script(name: str, *, steps: int, warmup: int, processes: int, rate: float) -> list[float]:
    """As the script sets diffusers' scheduler up, moved on as accelerate does: by the number of processes at each step."""
    import torch
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = get_scheduler(
        name, optimizer=optimizer, num_warmup_steps=warmup * processes, num_training_steps=steps * processes
    )
    rates: list[float] = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        for _ in range(processes if len(rates) < steps else 0):  # what comes after the last step nobody trains with
            scheduler.step()
    return rates


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("warmup", [0, 7, 39, 40, 41, 500])
@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"])
def test_every_step_has_the_scripts_rate(name: str, warmup: int, processes: int):
    words = [f"--lr_scheduler={name}", f"--lr_warmup_steps={warmup}", "--max_train_steps=40", "--learning_rate=3e-5"]
    ours = rates_of(job_of(*words, devices=processes))
    theirs = rates_of_the_script(name, steps=40, warmup=warmup, processes=processes, rate=3e-5)
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-20)


@pytest.mark.parametrize(("accumulation", "batch", "devices"), [(1, 1, 1), (4, 16, 1), (3, 7, 8)])
def test_scaled_rates_are_the_scripts_product(accumulation: int, batch: int, devices: int):
    words = ["--scale_lr", "--learning_rate=1.1e-6", f"--train_batch_size={batch}", "--max_train_steps=9"]
    job = job_of(*words, f"--gradient_accumulation_steps={accumulation}", devices=devices)
    assert job.train.optimizer.learning_rate == 1.1e-6 * accumulation * batch * devices
    flax = job_of(*words, devices=devices, script="train_text_to_image_flax.py")
    assert flax.train.optimizer.learning_rate == 1.1e-6 * (batch * devices)
    assert flax.train.global_batch == batch * devices


def test_the_batch_is_over_devices_and_accumulation():
    train = job_of("--train_batch_size=2", "--gradient_accumulation_steps=3", "--max_train_steps=9", devices=4).train
    assert (train.device_batch, train.global_batch) == (2, 24)


@pytest.mark.parametrize(
    "words", [["--lr_scheduler=linear", "--max_train_steps=1"], ["--lr_scheduler=piecewise_constant"], ["--lr_scheduler=Cosine"]]
)
def test_what_the_script_could_not_train_with_is_refused(words: list[str]):
    with pytest.raises(UsageError):
        job_of(*words)


def test_polynomial_needs_a_rate_above_its_last():
    words = ["--lr_scheduler=polynomial", "--max_train_steps=900"]
    with pytest.raises(UsageError, match="not above 1e-07"):
        job_of(*words, "--learning_rate=1e-7")
    assert job_of(*words, "--learning_rate=2e-7").train.schedule.name == "polynomial"


@pytest.mark.parametrize(
    ("pictures", "batch", "accumulation", "devices", "in_epoch"),
    [(1221, 4, 2, 2, 77), (10, 16, 1, 1, 1), (16, 4, 4, 1, 1), (17, 4, 4, 1, 2), (100, 3, 1, 7, 5)],
)
def test_epochs_are_counted_as_the_torch_scripts_do(pictures: int, batch: int, accumulation: int, devices: int, in_epoch: int):
    words = [f"--max_train_samples={pictures}", f"--train_batch_size={batch}", f"--gradient_accumulation_steps={accumulation}"]
    job = job_of(*words, "--num_train_epochs=3", "--validation_prompts=x", "--validation_epochs=2", devices=devices)
    assert (job.train.steps, job.train.epochs) == (3 * in_epoch, None)
    assert job.validation
    assert job.validation.every_steps == 2 * in_epoch


def test_flax_drops_an_epochs_last_batch():
    words: list[Any] = ["--max_train_samples=100", "--train_batch_size=3", "--num_train_epochs=2"]
    assert job_of(*words, devices=8, script="train_text_to_image_flax.py").train.steps == 2 * 4
