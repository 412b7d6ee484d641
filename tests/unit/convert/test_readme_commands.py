"""The commands of diffusers' own README become jobs of which every single value is known.

The commands are the golden inputs `readme-*.txt`; here they are read a second time, by regular expressions, and the job is put
together from facts about the scripts that are written down again.
https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/examples/text_to_image/README.md
"""

import re
from pathlib import Path
from typing import Any

import pytest

from sdjob.convert.conversion import Circumstances, convert_text
from sdjob.spec.load import job_from_text, resolved

GOLDEN = Path(__file__).parents[2] / "golden" / "convert"
NAMES = sorted(path.stem for path in GOLDEN.glob("readme-*.txt"))

# What a run of the torch scripts is where the command says nothing.
TORCH: dict[str, Any] = {
    "data.crop": "random",
    "train.backend": "torch",
    "train.seed": 0,
    "train.precision": "fp32",
    "checkpoint.every_steps": 500,
    "checkpoint.keep_every": 500,
    "track": ["tensorboard"],
}
FLAX: dict[str, Any] = {"data.crop": "random", "train.backend": "flax", "train.seed": 0}
# Flags that are one field with the value as it is written.
FIELDS = {
    "caption_column": ("data.caption_column", str),
    "train_data_dir": ("data.source", str),
    "max_train_steps": ("train.steps", int),
    "num_train_epochs": ("train.epochs", int),
    "learning_rate": ("train.optimizer.learning_rate", float),
    "max_grad_norm": ("train.optimizer.max_grad_norm", float),
    "lr_scheduler": ("train.schedule.name", str),
    "lr_warmup_steps": ("train.schedule.warmup_steps", int),
    "seed": ("train.seed", int),
}


def command_of(text: str) -> tuple[str, dict[str, str]]:
    """The script and its flags; the launcher's as `launch.NAME`."""
    for name, value in re.findall(r'^export (\w+)="([^"]*)"$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    found = re.search(r"^(accelerate launch|python)(.*?)(\w+)\.py (.*)", text, re.DOTALL | re.MULTILINE)
    assert found
    flag = r'--(\w+)(?:=("[^"]*"|\S*))?'
    own = {name: value.strip('"') for name, value in re.findall(flag, found[4])}
    launch = {f"launch.{name}": value.strip('"') for name, value in re.findall(flag, found[2])}
    return found[3], {**own, **launch}


def expected_job(script: str, flags: dict[str, str]) -> dict[str, Any]:
    """Fields by their paths, for one device."""
    job = {**(FLAX if script.endswith("flax") else TORCH)}
    on_lora = script.endswith("lora")
    job["train.method"] = "lora" if on_lora else "full"
    for flag, (field, kind) in FIELDS.items():
        if flag in flags:
            job[field] = kind(flags[flag])
    job["model.source"] = "hf://" + flags["pretrained_model_name_or_path"]
    if "dataset_name" in flags:
        job["data.source"] = "hf://" + flags["dataset_name"]
    job["data.resolution"] = {"width": int(flags["resolution"]), "height": int(flags["resolution"])}
    job["data.crop"] = "center" if "center_crop" in flags else "random"
    job["data.flip"] = "random_flip" in flags
    job["train.device_batch"] = int(flags["train_batch_size"])
    job["train.global_batch"] = int(flags["train_batch_size"]) * int(flags.get("gradient_accumulation_steps", "1"))
    job["train.gradient_checkpointing"] = "gradient_checkpointing" in flags
    job["train.ema"] = {"decay": 0.9999, "offload": False} if "use_ema" in flags else None
    job["train.precision"] = precision(flags, on_flax=script.endswith("flax"))
    if on_lora:
        lora = {"rank": 4, "alpha": 4.0, "dropout": 0.0, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}
        job |= {f"train.lora.{name}": value for name, value in lora.items()}
    if "checkpointing_steps" in flags:
        job["checkpoint.every_steps"] = job["checkpoint.keep_every"] = int(flags["checkpointing_steps"])
    if "report_to" in flags:
        job["track"] = [flags["report_to"]]
    if "validation_prompt" in flags:
        drawing = {"every_steps": job["checkpoint.every_steps"], "images": 4, "inference_steps": 30, "guidance_scale": 7.5}
        no_loss = {"loss_every_steps": None, "loss_timesteps": 8}
        job["validation"] = {"prompts": [flags["validation_prompt"]], **drawing, **no_loss}
    job["name"] = flags["output_dir"]
    job["checkpoint.to"] = "runs/" + flags["output_dir"]
    job["publish"] = [{"to": flags["output_dir"], "private": True, "every_steps": None, "replace": False}]
    return job


def precision(flags: dict[str, str], *, on_flax: bool) -> str:
    asked = flags.get("mixed_precision") or flags.get("launch.mixed_precision") or "no"
    return "bf16" if on_flax and asked == "fp16" else {"no": "fp32"}.get(asked, asked)


def put(job: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        job = job[parent]
    assert name in job
    job[name] = value


def test_there_are_six():
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_the_job_is_the_commands_or_the_scripts(name: str):
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    converted = convert_text(text, circumstances=Circumstances({}, lambda _: False))
    job = job_from_text(converted.job_file, source=name, environment={})
    script, flags = command_of(text)

    # What the job format itself adds beside the fields that a command decides.
    minimal = (
        "apiVersion: sdjob/v1\nname: x\nmodel: {source: hf://a/b}\ndata: {source: SOURCE}\ntrain: {method: METHOD, steps: 1}"
    )
    source = "hf://c/d" if "dataset_name" in flags else "pictures"
    minimal = minimal.replace("METHOD", "lora" if script.endswith("lora") else "full").replace("SOURCE", source)
    expected = resolved(job_from_text(minimal, source="minimal", environment={}))
    expected["train"]["steps"] = None
    for path, value in expected_job(script, flags).items():
        put(expected, path, value)
    assert resolved(job) == expected


@pytest.mark.parametrize("name", NAMES)
def test_no_flag_of_the_commands_is_passed_over_here(name: str):
    _, flags = command_of((GOLDEN / f"{name}.txt").read_text(encoding="utf-8"))
    others = {"pretrained_model_name_or_path", "dataset_name", "resolution", "center_crop", "random_flip", "train_batch_size"}
    others |= {"gradient_accumulation_steps", "gradient_checkpointing", "use_ema", "mixed_precision", "checkpointing_steps"}
    others |= {"report_to", "validation_prompt", "output_dir", "launch.mixed_precision", "launch.multi_gpu"}
    assert set(flags) <= set(FIELDS) | others
    assert len(flags) >= 11
