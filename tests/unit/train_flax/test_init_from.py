"""`train.init_from` on flax: published LoRAs in both forms, a UNet's folder, and what is refused in the torch trainer's words."""

import numpy as np
import pytest
from diffusers import UNet2DConditionModel

from fakes.checkpoints import write_checkpoint
from fakes.flax_runs import make_flax_trainer
from fakes.tiny_sdxl import write_family
from fakes.torch_runs import make_task, make_trainer, randomize
from sdjob.core.errors import UsageError
from sdjob.job.weights import build_published
from sdjob.spec.train import LoraSpec
from sdjob.train_flax.conditioning import read_drawing_encoders
from sdjob.train_flax.lora import adaptable_layers, adapters_of, attach_lora
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import read_unet
from sdjob.train_flax.models.layers import Compute

TARGETS = (*LoraSpec().targets, "conv1")
FORMS = {"diffusers": "pytorch_lora_weights.safetensors", "kohya": "tiny.kohya.safetensors"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("sd1", "sd2", "sdxl"):
        write_family(folder / family, family=family)
    return folder


PATTERNS = {"rank_pattern": {"conv1": 2}, "alpha_pattern": {"to_k": 1.0}}


def lora_task(model, *, rank=4, alpha=4.0, targets=TARGETS, text_encoder="frozen", **patterns):
    lora = {"rank": rank, "alpha": alpha, "targets": list(targets), **patterns}
    return make_task(model, train={"lora": lora, "text_encoder": text_encoder, "ema": {"decay": 0.9}})


def published(model, folder, **lora):
    """What was trained, in torch's layout; the folder of its files."""
    task = lora_task(model, **lora)
    parameters = make_trainer(task).runner.state.parameters
    randomize(parameters.values(), seed=9)
    arrays = {name: parameter.detach().numpy().copy() for name, parameter in parameters.items()}
    write_checkpoint(folder / "checkpoint", weights=arrays)
    build_published(folder / "checkpoint", job=task.job, model_dir=model, out=folder / "out")
    return arrays, folder / "out"


def in_torchs_layout(trainer, tensors):
    return {name: names.to_torch(path, np.asarray(tensors[name])) for name, path in trainer.runner.plan.paths}


@pytest.mark.parametrize("lora", [{}, {"alpha": 8.0, **PATTERNS}], ids=["plain", "patterns"])
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_and_the_average_begins_there(models, tmp_path, form, lora):
    wanted, folder = published(models / "sd1", tmp_path, **lora)
    trainer = make_flax_trainer(lora_task(models / "sd1", **lora), init_from=folder / FORMS[form])
    for tensors in (trainer.runner.state.parameters, trainer.runner.state.averages):
        started = in_torchs_layout(trainer, tensors)
        assert started.keys() == wanted.keys()
        for name, values in wanted.items():
            assert np.array_equal(started[name], values), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_text_encoders_too(models, tmp_path, family, form):
    wanted, folder = published(models / family, tmp_path, text_encoder="lora")
    trainer = make_flax_trainer(lora_task(models / family, text_encoder="lora"), init_from=folder / FORMS[form])
    started = in_torchs_layout(trainer, trainer.runner.state.parameters)
    assert started.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.array_equal(started[name], values), name


def test_to_draw_with_it_is_attached_to_all_of_its_parts(models, tmp_path):
    model = models / "sdxl"
    wanted, folder = published(model, tmp_path, alpha=8.0, text_encoder="lora")
    parts = {"unet": read_unet(model / "unet"), **read_drawing_encoders(model, compute=Compute()).parts}
    attach_lora(parts, folder / FORMS["diffusers"])
    found = {name: names.to_torch(path, np.asarray(own.get_value())) for name, (path, own) in adapters_of(parts).items()}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.array_equal(found[name], values), name
    scales = {
        layer.lora_scale for part in parts.values() for layer in adaptable_layers(part).values() if layer.lora_A is not None
    }
    assert scales == {2.0}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rank": 8, "alpha": 8.0}, r"has shape \(8, \d+.*but train\.lora\.rank asks for \(4, \d+"),
        ({"targets": ("to_q",)}, "missing, 0 too many"),
        ({"targets": (*TARGETS, "proj_in")}, "0 missing"),
        ({"alpha": 8.0}, r"alpha 8 at rank 4.*alpha is 4.*own"),
        ({"text_encoder": "lora"}, r"train\.text_encoder name.* 0 missing, [1-9].*text_encoder to lora"),
        ({"alpha_pattern": {"to_k": 1.0}}, r"alpha 1 at rank 4.*alpha is 4"),
    ],
)
def test_another_lora_than_the_jobs(models, tmp_path, form, lora, words):
    _, folder = published(models / "sd1", tmp_path, **lora)
    with pytest.raises(UsageError, match=words) as caught:
        make_flax_trainer(lora_task(models / "sd1"), init_from=folder / FORMS[form])
    assert caught.value.where == "train.init_from"


def test_full_from_a_unets_folder(models, tmp_path):
    other = UNet2DConditionModel.from_pretrained(models / "sd1" / "unet")
    randomize(other.parameters(), seed=4)
    other.save_pretrained(tmp_path / "unet")
    trainer = make_flax_trainer(make_task(models / "sd1", method="full"), init_from=tmp_path / "unet")
    started = in_torchs_layout(trainer, trainer.runner.state.parameters)
    assert started.keys() == {f"unet.{name}" for name, _ in other.named_parameters()}
    for name, values in other.named_parameters():
        assert np.array_equal(started[f"unet.{name}"], values.detach().numpy()), name


def test_full_from_another_architecture(models):
    with pytest.raises(UsageError, match="another architecture") as caught:
        make_flax_trainer(make_task(models / "sd1", method="full"), init_from=models / "sd2" / "unet")
    assert caught.value.where == "train.init_from"
