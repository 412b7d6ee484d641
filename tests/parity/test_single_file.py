"""A model in one file is the model of the folder that it was made from: by diffusers' own reader, and by ours."""

import io
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from fakes.one_file import write_one_file
from fakes.tiny_models import write_tiny_model
from fakes.tiny_sdxl import write_tiny_sdxl
from sdjob.core.errors import DataError, MissingError, UsageError
from sdjob.core.log import Log
from sdjob.job import fetch
from sdjob.job.fetch import Here
from sdjob.job.one_file import OneFile, one_file_at, unpacked
from sdjob.job.stage import stage_model
from sdjob.spec.places import parse_place

PIPELINES = {"sd1": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("sd1", "sd2"):
        write_tiny_model(folder / family, family=family)
    write_tiny_sdxl(folder / "sdxl")
    return folder


@pytest.fixture
def here(tmp_path):
    return Here(
        tmp_path / "scratch", check_stop=lambda: None, clock=FakeClock(), log=Log(mode="text", stream=io.StringIO(), secrets=())
    )


def given(file, *, config):
    return OneFile(parse_place(str(file.parent), base=file.parent), file.name, parse_place(str(config), base=file.parent))


def states(pipeline):
    return {
        f"{part}.{name}": tensor
        for part, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
        for name, tensor in module.state_dict().items()
    }


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("family", PIPELINES)
def test_it_has_the_folders_weights(models, tmp_path, here, family):
    file = write_one_file(models / family, tmp_path / "model.safetensors", family=family)
    folder = states(PIPELINES[family].from_pretrained(models / family))
    theirs = PIPELINES[family].from_single_file(file, config=str(models / family), local_files_only=True)
    assert_equal(states(theirs), folder)
    made = unpacked(given(file, config=models / family), here=here).folder
    assert_equal(states(PIPELINES[family].from_pretrained(made)), folder)
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert load_file(made / name).keys() == load_file(models / family / name).keys()


def test_half_precision_stays_what_it_is(models, tmp_path, here):
    file = write_one_file(models / "sd1", tmp_path / "half.safetensors", family="sd1", dtype=torch.bfloat16)
    made = unpacked(given(file, config=models / "sd1"), here=here).folder
    whole = load_file(models / "sd1" / "unet" / "diffusion_pytorch_model.safetensors")
    half = load_file(made / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in whole.items())


def test_openclips_last_layer_is_left_out(models, tmp_path, here):
    """As diffusers' folders of SD 2.x have it."""
    file = write_one_file(models / "sd2", tmp_path / "model.safetensors", family="sd2")
    tensors = load_file(file)
    last = {name.replace("resblocks.0", "resblocks.1"): tensor + 1 for name, tensor in tensors.items() if "resblocks.0" in name}
    save_file(tensors | last, file)
    made = unpacked(given(file, config=models / "sd2"), here=here).folder
    assert_equal(
        states(StableDiffusionPipeline.from_pretrained(made)), states(StableDiffusionPipeline.from_pretrained(models / "sd2"))
    )


def test_it_is_taken_apart_once(models, tmp_path, here):
    """And anew where scratch lost some of it, or held what a killed process left."""
    file = write_one_file(models / "sd1", tmp_path / "model.safetensors", family="sd1")
    first = unpacked(given(file, config=models / "sd1"), here=here)
    inode = (first.folder / "unet").stat().st_ino
    assert unpacked(given(file, config=models / "sd1"), here=here) == first
    assert (first.folder / "unet").stat().st_ino == inode
    (first.folder / "vae" / "config.json").write_text("{}")
    (half := first.folder.with_name(f"{first.folder.name}.new-left")).mkdir()
    assert unpacked(given(file, config=models / "sd1"), here=here) == first
    assert (first.folder / "vae" / "config.json").read_bytes() == (models / "sd1" / "vae" / "config.json").read_bytes()
    assert not half.exists()


def test_another_configuration_is_refused(models, tmp_path, here):
    file = write_one_file(models / "sd1", tmp_path / "model.safetensors", family="sd1")
    tensors = load_file(file)
    gone = "model.diffusion_model.output_blocks.3."
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(gone)}, file)
    with pytest.raises(DataError, match=r"not of one model: they do not both have unet/up_blocks\.1\.resnets\.1") as caught:
        unpacked(given(file, config=models / "sd1"), here=here)
    assert "model.config" in caught.value.next_step


def test_what_is_no_model_is_refused(models, tmp_path, here):
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_mid_block.alpha": torch.tensor(1.0)}, lora)
    with pytest.raises(DataError, match="holds no whole Stable Diffusion"):
        unpacked(given(lora, config=models / "sd1"), here=here)
    with pytest.raises(MissingError, match=r"gone\.safetensors does not exist"):
        unpacked(given(tmp_path / "gone.safetensors", config=models / "sd1"), here=here)
    (tmp_path / "torn.safetensors").write_bytes(lora.read_bytes()[:-1])
    with pytest.raises(DataError, match="1 bytes shorter"):
        unpacked(given(tmp_path / "torn.safetensors", config=models / "sd1"), here=here)


def test_sd2_needs_a_configuration(models, tmp_path, here):
    file = write_one_file(models / "sd2", tmp_path / "model.safetensors", family="sd2")
    with pytest.raises(UsageError, match="the noise or the velocity") as caught:
        unpacked(one_file_at(parse_place(str(file), base=tmp_path)), here=here)
    assert caught.value.where == "model.config"


def test_the_index_names_what_is_there(models, tmp_path, here):
    config = shutil.copytree(models / "sd1", tmp_path / "config")
    index = (config / "model_index.json").read_text()
    checker = '"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]'
    head, _, tail = index.partition('"safety_checker": [')
    (config / "model_index.json").write_text(head + checker + tail[tail.index("]") + 1 :])
    for weights in config.rglob("*.safetensors"):  # which a configuration can do without
        weights.unlink()
    file = write_one_file(models / "sd1", tmp_path / "model.safetensors", family="sd1")
    made = unpacked(given(file, config=config), here=here).folder
    assert StableDiffusionPipeline.from_pretrained(made).safety_checker is None


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "model", [{"source": "s3://bucket/models/a.safetensors"}, {"source": "hf://me/a", "file": "a.safetensors"}]
)
def test_a_distant_one_takes_what_everybody_has_from_the_hub(models, tmp_path, here, monkeypatch, model):
    file = write_one_file(models / "sd1", tmp_path / "a.safetensors", family="sd1")
    given_store = MemoryStore({"a.safetensors": file.read_bytes(), "b.safetensors": b"another"})
    base = MemoryStore(files_of(models / "sd1"))
    stores = {
        "s3://bucket/models": given_store,
        "hf://models/me/a@main": given_store,
        "hf://models/stable-diffusion-v1-5/stable-diffusion-v1-5@main": base,
    }
    monkeypatch.setattr(fetch, "open_store", lambda place: stores[place.uri])
    staged = stage_model(make_job(model=model), here=here)
    local = unpacked(given(file, config=models / "sd1"), here=here)
    assert staged.folder == local.folder
    assert staged.hashes == {name: local.hashes[name] for name in staged.hashes}
    assert {f"{part}/config.json" for part in ("unet", "vae", "text_encoder")} < staged.hashes.keys()
    assert not any(call.key.endswith(".safetensors") for call in base.calls if call.method in {"read", "read_to"})


def test_a_job_trains_on_it_as_on_its_folder(models, tmp_path, here):
    """The same hashes of the same weights, whatever the file is called."""
    job = {name: tmp_path / f"{name}.safetensors" for name in ("one", "other")}
    staged = {}
    for name, file in job.items():
        write_one_file(models / "sd1", file, family="sd1")
        staged[name] = stage_model(make_job(model={"source": str(file), "config": str(models / "sd1")}), here=here)
    assert staged["one"] == staged["other"]
    folder = stage_model(make_job(model={"source": str(models / "sd1")}), here=here)
    assert staged["one"].hashes.keys() == folder.hashes.keys()
    same = {name for name in folder.hashes if folder.hashes[name] == staged["one"].hashes[name]}
    assert {name for name in folder.hashes if name.endswith((".json", ".txt"))} <= same
