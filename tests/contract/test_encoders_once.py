"""Encoders that run once, on either backend: what is looked at beside the training has what encoding at every time would give."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fakes import flax_parity  # noqa: F401 - binds jax to the CPU
from fakes.encoding_once import EncodingsOf, encoded, shards_of, training_task
from fakes.flax_runs import make_flax_trainer
from fakes.tiny_models import write_tiny_model
from fakes.torch_runs import make_trainer
from sdjob.spec.data import HeldOutSpec
from sdjob.train_flax import held_out as flax_held_out
from sdjob.train_flax.once import encodings_of as flax_encodings_of
from sdjob.train_torch import held_out as torch_held_out
from sdjob.train_torch.once import encodings_of as torch_encodings_of


@dataclass(frozen=True)
class Backend:
    trainer: Callable[..., Any]
    encodings_of: EncodingsOf
    measure_of: Callable[..., Callable[[], float] | None]
    vae: Callable[[Any], Any]
    """Of a trainer."""


BACKENDS = {
    "torch": Backend(make_trainer, torch_encodings_of, torch_held_out.measure_of, lambda trainer: trainer.runner.models.vae),
    "flax": Backend(make_flax_trainer, flax_encodings_of, flax_held_out.measure_of, lambda trainer: trainer.runner.plan.vae),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    return folder


@pytest.fixture(params=BACKENDS)
def backend(request):
    return BACKENDS[request.param]


def test_the_held_out_loss(backend, model, tmp_path):
    task = training_task(model, tmp_path)
    data = task.job.data.model_copy(update={"held_out": HeldOutSpec(count=3)})
    task = replace(task, job=task.job.model_copy(update={"data": data}))
    cached, encodings, _ = encoded(task, backend.encodings_of, shards=shards_of(task, machine=tmp_path / "machine"))
    plain = backend.measure_of(task, trainer=backend.trainer(task))
    kept = backend.measure_of(cached, trainer=backend.trainer(cached), encodings=encodings)
    assert plain is not None
    assert kept is not None
    assert kept() == pytest.approx(plain(), rel=1e-5)


def test_validation_has_the_encoders_for_the_while(backend, model, tmp_path):
    task = training_task(model, tmp_path, validation={"prompts": ["a red circle"], "images": 1, "inference_steps": 2})
    cached, _, _ = encoded(task, backend.encodings_of, shards=shards_of(task, machine=tmp_path / "machine"))
    drawn = []
    for number, each in enumerate((task, cached)):
        folder = tmp_path / str(number)
        folder.mkdir()
        trainer = backend.trainer(each)
        trainer.validate(folder)
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert drawn[0] == drawn[1] != {}
    assert backend.vae(trainer) is None
