"""Launchers, places and names: what a command says outside the script's own numbers."""

import pytest

from sdjob.convert.conversion import Circumstances, Converted, convert_text, convert_words
from sdjob.core.errors import UsageError
from sdjob.spec.job import JobSpec
from sdjob.spec.load import job_from_text

LORA = "train_text_to_image_lora.py"
FLAGS = "--pretrained_model_name_or_path=a/b --train_data_dir=p --max_train_steps=10 --train_batch_size=1"
HERE = ("here", "owner/here", "deep/down/here")


def converted(text: str, *, environment: dict[str, str] | None = None, devices: int | None = None) -> Converted:
    circumstances = Circumstances(environment or {}, lambda path: path in HERE, devices)
    return convert_text(text, circumstances=circumstances)


def job_of(text: str, *, devices: int | None = None, environment: dict[str, str] | None = None) -> JobSpec:
    file = converted(text, environment=environment, devices=devices).job_file
    return job_from_text(file, source="test", environment={"HOME": "/home/someone"})


@pytest.mark.parametrize(
    "before",
    [
        "",
        "./",
        "python ",
        "python3.11 -u examples/text_to_image/",
        "/usr/bin/python3 -W ignore ",
        "accelerate launch ",
        "CUDA_VISIBLE_DEVICES=0 accelerate launch ",
        "env A=1 B=2 accelerate launch ",
        "sudo -E nohup accelerate launch ",
        "time nice -n 5 python ",
        "uv run accelerate launch ",
        "conda run -n sd accelerate-launch ",
        "accelerate launch --num_processes 1 --num-machines=1 ",
        "python -m accelerate.commands.launch ",
        "python -m torch.distributed.run ",
        "torchrun --nproc_per_node 1 ",
    ],
)
def test_whatever_stands_before_the_script(before: str):
    assert job_of(f"{before}{LORA} {FLAGS}") == job_of(f"{LORA} {FLAGS}")


@pytest.mark.parametrize("module", ["python -m train_text_to_image_lora", "accelerate launch -m a.b.train_text_to_image_lora"])
def test_modules_are_scripts(module: str):
    assert job_of(f"{module} {FLAGS}") == job_of(f"{LORA} {FLAGS}")


@pytest.mark.parametrize(
    ("launch", "batch", "accelerator", "nodes"),
    [
        ("python", 1, None, 1),
        ("accelerate launch", 1, None, 1),
        ("accelerate launch --num_processes=4", 4, "nvidia:4", 1),
        ("accelerate launch --num-processes 4 --num-machines 2", 4, "nvidia:2", 2),
        ("accelerate launch --gpu_ids=0,1,2", 3, "nvidia:3", 1),
        ("accelerate launch --gpu_ids all", 1, None, 1),
        ("accelerate launch --cpu", 1, "cpu", 1),
        ("accelerate launch --cpu --num_processes 2", 2, "cpu:2", 1),
        ("CUDA_VISIBLE_DEVICES=0,3 accelerate launch", 2, "nvidia:2", 1),
        ("CUDA_VISIBLE_DEVICES=0,3 accelerate launch --config_file x", 1, None, 1),
        ("CUDA_VISIBLE_DEVICES=0,3 python", 1, None, 1),
        ("torchrun --nproc-per-node=2 --nnodes=3", 6, "nvidia:2", 3),
        ("torchrun --nproc_per_node=auto", 1, None, 1),
    ],
)
def test_processes_are_devices(launch: str, batch: int, accelerator: str | None, nodes: int):
    job = job_of(f"{launch} {LORA} {FLAGS}")
    assert (job.train.global_batch, job.run.accelerator, job.run.nodes) == (batch, accelerator, nodes)


@pytest.mark.parametrize(
    "launch", ["accelerate launch --multi_gpu", "torchrun --nproc_per_node gpu", "accelerate launch --config_file x"]
)
def test_where_the_number_of_devices_is_open_it_is_asked_for(launch: str):
    command = f"{launch} {LORA} {FLAGS}"
    assert any("--devices N" in remark for remark in converted(command).remarks)
    assert not any("--devices N" in remark for remark in converted(command, devices=2).remarks)
    assert job_of(command, devices=2).train.global_batch == 2


@pytest.mark.parametrize(
    ("command", "precision"),
    [
        (f"accelerate launch {LORA}", "fp32"),
        (f"accelerate launch --mixed_precision=fp16 {LORA}", "fp16"),
        (f"accelerate launch --mixed-precision bf16 {LORA}", "bf16"),
        (f"accelerate launch --mixed_precision=fp16 {LORA} --mixed_precision=no", "fp32"),
        (f"accelerate launch --mixed_precision=no {LORA} --mixed_precision=bf16", "bf16"),
        (f"ACCELERATE_MIXED_PRECISION=bf16 python {LORA}", "bf16"),
        (f"ACCELERATE_MIXED_PRECISION=bf16 accelerate launch {LORA}", "fp32"),
        ("python train_text_to_image_flax.py", "fp32"),
        ("python train_text_to_image_flax.py --mixed_precision=fp16", "bf16"),
        ("python train_text_to_image_flax.py --mixed_precision=bf16", "bf16"),
    ],
)
def test_the_scripts_precision_goes_before_the_launchers(command: str, precision: str):
    assert job_of(f"{command} {FLAGS}").train.precision == precision


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("CompVis/stable-diffusion-v1-4", "hf://CompVis/stable-diffusion-v1-4"),
        ("./models/sd", "./models/sd"),
        ("../sd", "../sd"),
        ("/models/sd", "/models/sd"),
        ("~/sd", "${HOME}/sd"),
        ("deep/down/sd", "deep/down/sd"),
        ("here", "here"),
        ("owner/here", "owner/here"),
    ],
)
def test_a_model_is_on_the_hub_or_a_folder(written: str, source: str):
    command = f"{LORA} {FLAGS} --pretrained_model_name_or_path={written}"
    file = converted(command, environment={"HOME": "/home/someone"}).job_file
    assert f"\n  source: {source}\n" in file


@pytest.mark.parametrize("written", ["gpt2", "https://huggingface.co/a/b", "{MODEL}", "a/b--c", "a/"])
def test_what_is_neither_is_refused(written: str):
    with pytest.raises(UsageError, match="--pretrained_model_name_or_path"):
        converted(f"{LORA} {FLAGS} --pretrained_model_name_or_path={written}")


@pytest.mark.parametrize(
    ("output_dir", "name", "checkpoints"),
    [
        ("sd-pokemon-model", "sd-pokemon-model", "runs/sd-pokemon-model"),
        ("out/My_Model.v2/", "my-model-v2", "runs/my-model-v2"),
        ("/", "b", "runs/b"),
        ("runs/fox", "fox", "runs/fox-run"),
        ("./runs/fox", "fox", "runs/fox-run"),
        ("x" * 60, "x" * 40, "runs/" + "x" * 40),
        ("--", "b", "runs/b"),
    ],
)
def test_names_are_labels_and_checkpoints_lie_elsewhere(output_dir: str, name: str, checkpoints: str):
    job = job_of(f"{LORA} {FLAGS} --output_dir={output_dir}")
    assert (job.name, job.checkpoint.to, job.publish[0].to) == (name, checkpoints, output_dir)


def test_the_paste_goes_before_the_environment():
    assert job_of(f"S=1\n{LORA} {FLAGS} --seed=$S", environment={"S": "2"}).train.seed == 1
    assert job_of(f"{LORA} {FLAGS} --seed=$S", environment={"S": "2"}).train.seed == 2


def test_words_are_not_expanded_a_second_time():
    words = [LORA, *FLAGS.split(), "--validation_prompt", "$HOME `x` $(y) “z”"]
    job = convert_words(words, circumstances=Circumstances({"HOME": "/h"}, lambda _: False)).job_file
    assert '"$HOME `x` $(y) “z”"' in job


def test_another_revision_of_the_unet_is_where_the_training_starts():
    script = f"train_text_to_image.py {FLAGS} --revision=main"
    assert job_of(f"{script} --non_ema_revision=raw").train.init_from == "hf://a/b@raw"
    assert job_of(f"{script} --non_ema_revision=main").train.init_from is None


def test_averages_on_the_host():
    script = f"train_text_to_image.py {FLAGS}"
    assert job_of(f"{script} --use_ema --offload_ema").train.ema.offload
    assert not job_of(f"{script} --use_ema").train.ema.offload
    assert job_of(f"{script} --offload_ema").train.ema is None


def test_processes_that_do_not_divide_among_machines_are_refused():
    with pytest.raises(UsageError, match="3 processes do not divide among 2 machines"):
        converted(f"accelerate launch --num_processes 3 --num_machines 2 {LORA} {FLAGS}")


@pytest.mark.parametrize(
    "launch", ["--num_processes=0", "--num_processes=two", "--num_machines", "--mixed_precision=fp61", "--nproc=2"]
)
def test_launchers_flags_are_checked(launch: str):
    with pytest.raises(UsageError, match=launch.partition("=")[0]):
        converted(f"accelerate launch {launch} {LORA} {FLAGS}")


def test_values_of_secret_variables_are_never_written():
    text = f"export HF_TOKEN=hf_abcdefghijklmnop\nWANDB_API_KEY=0123456789 {LORA} {FLAGS} --hub_token $HF_TOKEN"
    result = converted(text)
    everything = result.job_file + "".join(result.remarks)
    assert "abcdefgh" not in everything
    assert "0123456789" not in everything
    assert "WANDB_API_KEY" in everything
