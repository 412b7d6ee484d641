"""`validation`, `checkpoint`, `publish`, `track` and `run`: what leaves the training, and where it runs."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from sdjob.convert.request import Answer, Note, Request, Setting
from sdjob.convert.sources import home_filled, job_name
from sdjob.convert.words import shown
from sdjob.core.errors import UsageError
from sdjob.spec.places import HUB_NAME

# https://huggingface.co/docs/accelerate/usage_guides/tracking
OTHER_TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio")
# The full script draws one picture of a prompt in 20 inference steps, the LoRA script in 30.
FULL_IMAGES, FULL_STEPS, LORA_STEPS = 1, 20, 30


def validation(request: Request) -> Iterator[Answer]:
    name = "validation_prompts" if request.script == "full" else "validation_prompt"
    prompts = request.value(name)
    if request.script == "flax":
        return
    if prompts is None:
        for flag in ("validation_epochs", "num_validation_images"):
            if request.has(flag):
                yield Note(f"--{flag}", f"does nothing without --{name}.")
        return
    full = request.script == "full"
    yield Setting("validation.prompts", list(prompts) if full else [prompts], name, always=True)
    yield every_steps(request)
    images = FULL_IMAGES if full else request.value("num_validation_images")
    yield Setting("validation.images", images, "num_validation_images", "as the script" if full else "", always=True)
    steps = FULL_STEPS if full else LORA_STEPS
    yield Setting("validation.inference_steps", steps, comment="as the script", always=True)


def every_steps(request: Request) -> Setting:
    """The scripts count epochs, and how many steps one has follows from the number of pictures."""
    epochs, in_epoch = request.value("validation_epochs"), request.steps_per_epoch
    field, flag = "validation.every_steps", "validation_epochs"
    if in_epoch:
        comment = f"every {epochs} epochs of {in_epoch} steps" if epochs != 1 else "every epoch"
        return Setting(field, epochs * in_epoch, flag, comment, always=True)
    often = "epoch" if epochs == 1 else f"{epochs} epochs"
    comment = f"as often as checkpoints; the script draws every {often}, and --pictures N would say how many steps that is"
    return Setting(field, request.value("checkpointing_steps"), flag, comment, always=True, above=True)


def checkpoint(request: Request) -> Iterator[Answer]:
    yield Setting("checkpoint.to", checkpoint_folder(request), "output_dir", always=True)
    if request.script == "flax":
        return
    every, limit = request.value("checkpointing_steps"), request.value("checkpoints_total_limit")
    yield Setting("checkpoint.every_steps", every, "checkpointing_steps", always=True)
    if limit is not None:
        yield Setting("checkpoint.keep", limit, "checkpoints_total_limit", always=True)
    else:
        comment = "without --checkpoints_total_limit the script keeps all; out with it to keep the newest 3"
        yield Setting("checkpoint.keep_every", every, "checkpointing_steps", comment, always=True)


def checkpoint_folder(request: Request) -> str:
    """Beside the published folder, never the same."""
    folder = f"runs/{job_name(request)}"
    return f"{folder}-run" if PurePosixPath(request.value("output_dir")) == PurePosixPath(folder) else folder


def publish(request: Request) -> Iterator[Answer]:
    targets: list[dict[str, Any]] = [{"to": home_filled(request.value("output_dir"))}]
    comment = "" if request.has("output_dir") else "the script's default"
    if request.value("push_to_hub"):
        repository = request.value("hub_model_id") or PurePosixPath(request.value("output_dir")).name
        if repository.count("/") == 1 and all(HUB_NAME.fullmatch(part) for part in repository.split("/")):
            targets.append({"to": f"hf://{repository}", "private": False})
            comment = "the script makes public repositories; leave private out for a private one"
        elif "/" in repository or not HUB_NAME.fullmatch(repository):
            raise UsageError(f"--hub_model_id {shown(repository)} is no repository on the Hub.", next_step="Write owner/name.")
        else:
            entry = f"{{to: hf://OWNER/{repository}, private: false}}"
            yield Note("--push_to_hub", f"whose repository it is only the login says: add `- {entry}` to publish.")
    elif request.has("hub_model_id"):
        yield Note("--hub_model_id", "does nothing without --push_to_hub.")
    yield Setting("publish", targets, "output_dir", comment, always=True)


def track(request: Request) -> Iterator[Answer]:
    if request.script == "flax":
        return
    named, comment = request.value("report_to"), "" if request.has("report_to") else "the script's default"
    if named == "all":
        yield Setting(
            "track", ["tensorboard", "wandb"], "report_to", "--report_to all: those of them that sdjob has", always=True
        )
    elif named in {"tensorboard", "wandb"}:
        yield Setting("track", [named], "report_to", comment, always=True)
    elif named in OTHER_TRACKERS:
        yield Note("--report_to", f"{named} has no equal; track takes tensorboard and wandb, and the ledger is always kept.")
    else:
        raise UsageError(f"--report_to {shown(named)}: allowed: tensorboard, wandb, all, {', '.join(OTHER_TRACKERS)}.")


def run(request: Request) -> Iterator[Answer]:
    launch, devices = request.launch, request.devices
    if devices % launch.machines:
        raise UsageError(f"{devices} processes do not divide among {launch.machines} machines.")
    per_machine = devices // launch.machines
    count = f":{per_machine}" if per_machine > 1 else ""
    if launch.on_cpu:
        yield Setting("run.accelerator", f"cpu{count}", "num_processes", always=True)
    elif devices > 1 and request.script != "flax":
        comment = "any NVIDIA GPU; name it as in nvidia-l4" + count
        yield Setting("run.accelerator", f"nvidia{count}", "num_processes", comment, always=True)
    yield Setting("run.nodes", launch.machines, "num_machines")
    if request.has("dataloader_num_workers"):
        yield Setting("run.workers", request.value("dataloader_num_workers"), "dataloader_num_workers", always=True)
