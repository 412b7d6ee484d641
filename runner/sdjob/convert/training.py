"""`train`: batches, lengths, precision, and what is left of the loop's flags."""

from collections.abc import Iterator

from sdjob.convert.request import Answer, Note, Request, Setting
from sdjob.convert.sources import start

# EMAModel's own default, which the script keeps:
# https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/src/diffusers/training_utils.py
EMA_DECAY = 0.9999


def train(request: Request) -> Iterator[Answer]:
    if request.script == "flax":
        fixed = "prediction and noise come from the model's configuration; the script's are those of SD 1"
        yield Setting("train.backend", "flax", comment=fixed, always=True)
    yield Setting("train.method", "lora" if request.script == "lora" else "full", always=True)
    yield seed(request)
    yield length(request)
    yield from batches(request)
    yield from precision(request)


def more_training(request: Request) -> Iterator[Answer]:
    """What stands behind the optimizer and its schedule."""
    if request.script == "lora":
        comment = "alpha is the rank here too; the first weights are drawn from another distribution than the script's"
        yield Setting("train.lora.rank", request.value("rank"), "rank", comment, always=True)
    yield from start(request)
    if request.value("use_ema"):
        yield Setting(
            "train.ema.decay", EMA_DECAY, "use_ema", "the script's own; the averages are what is published", always=True
        )
        if request.value("offload_ema"):
            yield Setting("train.ema.offload", True, "offload_ema")
    elif request.value("offload_ema"):
        yield Note("--offload_ema", "without --use_ema there are no averages.")
    yield Setting("train.gradient_checkpointing", bool(request.value("gradient_checkpointing")), "gradient_checkpointing")
    yield from spreading(request)
    if request.value("enable_xformers_memory_efficient_attention"):
        yield Setting("train.attention", "xformers", "enable_xformers_memory_efficient_attention")
    yield from loss(request)


def spreading(request: Request) -> Iterator[Answer]:
    if not request.launch.fsdp:
        return
    if request.script != "full":
        yield Note("--use_fsdp", "train.fsdp is for full training on torch.")
    elif request.launch.machines > 1:
        yield Note("--use_fsdp", "train.fsdp spreads over the devices of one machine.")
    elif request.value("use_8bit_adam"):
        yield Note("--use_fsdp", "train.fsdp goes with adamw of 32 bits alone.")
    else:
        yield Setting("train.fsdp", True, "use_fsdp", "accelerate launch --use_fsdp")


def loss(request: Request) -> Iterator[Answer]:
    prediction = request.value("prediction_type")
    if prediction is not None:
        yield Setting("train.loss.prediction", prediction, "prediction_type", always=True)
    for name in ("snr_gamma", "noise_offset", "input_perturbation"):
        value = request.value(name)
        if value is not None:
            yield Setting(f"train.loss.{name}", value, name)


def seed(request: Request) -> Setting:
    given = request.value("seed")
    if given is None:
        return Setting("train.seed", 0, "seed", "without --seed the script draws one at random", always=True)
    return Setting("train.seed", given, "seed", always=True)


def length(request: Request) -> Setting:
    """An epoch's last batch is short in the torch scripts, left out in flax's, and filled from the next epoch here."""
    steps, epochs = request.value("max_train_steps"), request.value("num_train_epochs")
    if steps is not None:
        return Setting("train.steps", steps, "max_train_steps", always=True)
    if request.steps_per_epoch:
        comment = f"{epochs} epochs of {request.steps_per_epoch} steps, for {request.num_pictures} pictures"
        return Setting("train.steps", epochs * request.steps_per_epoch, "num_train_epochs", comment, always=True)
    last = "is left out" if request.script == "flax" else "is short"
    comment = f"in the script an epoch's last batch {last}; here the next epoch fills it"
    return Setting("train.epochs", epochs, "num_train_epochs", comment, always=True)


def batches(request: Request) -> Iterator[Answer]:
    device_batch, devices = request.value("train_batch_size"), request.devices
    factors = [f"{device_batch} on a device"]
    factors += [f"{request.accumulation} accumulated"] if request.accumulation > 1 else []
    factors += [f"{devices} device{'s' if devices > 1 else ''}"]
    comment = " x ".join(factors) + ("" if request.devices_known else "; --devices says how many if there were more")
    yield Setting("train.global_batch", request.global_batch, "train_batch_size", comment, always=True)
    yield Setting("train.device_batch", device_batch, "train_batch_size", always=True)
    several = request.launch.probably_several
    if several and request.num_devices is None:
        speaks = (
            "the script trains on all devices of its machine" if several == "flax" else f"{several} does not say how many devices"
        )
        yield Note("", f"{speaks}, so train.global_batch is for one: convert with --devices N if there were more.")


def precision(request: Request) -> Iterator[Answer]:
    asked, comment = asked_precision(request)
    if asked == "fp8":
        yield Note("accelerate launch --mixed_precision fp8", "there is no fp8 here; bf16 is the nearest.")
        yield Setting("train.precision", "bf16", "mixed_precision", "for fp8, which has no equal", always=True)
    elif asked == "fp16" and request.script == "flax":
        yield Note("--mixed_precision fp16", "flax trains in bf16: fp16 would need loss scaling, which the script leaves out.")
        yield Setting(
            "train.precision", "bf16", "mixed_precision", "for fp16, whose gradients underflow without loss scaling", always=True
        )
    else:
        yield Setting("train.precision", "fp32" if asked == "no" else asked, "mixed_precision", comment, always=True)


def asked_precision(request: Request) -> tuple[str, str]:
    """The script's flag goes before the launcher's."""
    own = request.value("mixed_precision")
    if own is not None:
        return own, "" if request.has("mixed_precision") else "the script's default"
    if request.launch.precision is not None:
        return request.launch.precision, request.launch.precision_from
    return (
        "no",
        "no --mixed_precision; a config of accelerate's may have set another"
        if request.uses_accelerate
        else "no --mixed_precision",
    )
