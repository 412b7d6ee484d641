"""`train.optimizer` and `train.schedule`, in optimizer steps on any number of devices.

The torch scripts hand the scheduler `warmup x processes` of `steps x processes`, and accelerate's AcceleratedScheduler moves it
on by `processes` at each optimizer step, accumulated micro-steps left out. So the rate at optimizer step k is that of step k of a
schedule of `warmup` and `steps`: what the flags say, whatever the number of processes.
https://github.com/huggingface/accelerate/blob/main/src/accelerate/scheduler.py
"""

from collections.abc import Iterator
from typing import get_args

from sdjob.convert.request import Answer, Note, Request, Setting
from sdjob.convert.words import shown
from sdjob.core.errors import UsageError
from sdjob.spec.problems import listed, nearest_name
from sdjob.spec.train import ScheduleName

WITHOUT_WARMUP = "constant"
# The scripts have no flag for its rules, and fail: https://github.com/huggingface/diffusers/blob/main/src/diffusers/optimization.py
FAILS = "piecewise_constant"
# The last rate of `polynomial`; the scripts fail where the first is not above it.
POLYNOMIAL_END = 1e-7


def optimizer(request: Request) -> Iterator[Answer]:
    if request.value("use_8bit_adam"):
        yield Setting("train.optimizer.name", "adamw8bit", "use_8bit_adam")
    yield learning_rate(request)
    betas = [request.value("adam_beta1"), request.value("adam_beta2")]
    yield Setting("train.optimizer.betas", betas, "adam_beta1", always=request.has("adam_beta1") or request.has("adam_beta2"))
    for name, flag in (("weight_decay", "adam_weight_decay"), ("epsilon", "adam_epsilon")):
        yield Setting(f"train.optimizer.{name}", request.value(flag), flag, always=request.has(flag))
    yield clipping(request)


def clipping(request: Request) -> Setting:
    comment = ""
    if request.script == "lora":
        comment = "as written; but the script clips nothing: its list of parameters is used up by then. null is what it does"
    always = bool(comment) or request.has("max_grad_norm")
    return Setting("train.optimizer.max_grad_norm", request.value("max_grad_norm"), "max_grad_norm", comment, always, above=True)


def learning_rate(request: Request) -> Setting:
    rate, field = request.value("learning_rate"), "train.optimizer.learning_rate"
    scaled = rate
    if request.value("scale_lr"):  # in the script's own order, so that the product is rounded alike
        scaled = rate * request.accumulation * request.value("train_batch_size") * request.devices
    comment = f"--scale_lr: {rate:g} x {request.global_batch}, which is train.global_batch" if request.value("scale_lr") else ""
    unended = endless_warmup(request)
    if unended is None:
        return Setting(field, scaled, "learning_rate", comment, always=True)
    steps, warmup = unended
    comment = f"{scaled:g} x {steps - 1}/{warmup}: how far --lr_warmup_steps {warmup} gets in {steps} steps"
    reached = float(f"{scaled * (steps - 1) / warmup:.15g}")
    return Setting(field, reached, "learning_rate", comment, always=True)


def schedule(request: Request) -> Iterator[Answer]:
    if request.script == "flax":
        yield Setting("train.schedule.name", "constant", comment="the flax script has no other", always=True)
        return
    name, warmup = schedule_name(request), request.value("lr_warmup_steps")
    unended = endless_warmup(request)
    if unended is not None:
        yield Setting(
            "train.schedule.name", "constant_with_warmup", "lr_scheduler", f"for {name}, whose warm-up never ends", always=True
        )
        yield Setting("train.schedule.warmup_steps", unended[0] - 1, "lr_warmup_steps", always=True)
        return
    yield Setting("train.schedule.name", name, "lr_scheduler", always=True)
    if name != WITHOUT_WARMUP:
        comment = "" if request.has("lr_warmup_steps") else "the script's default"
        yield Setting("train.schedule.warmup_steps", warmup, "lr_warmup_steps", comment, always=True)
    elif request.has("lr_warmup_steps") and warmup:
        yield Note("--lr_warmup_steps", "does nothing in the script either: its schedule constant has no warm-up.")


def schedule_name(request: Request) -> str:
    name = request.value("lr_scheduler")
    names = [one for one in get_args(ScheduleName) if one != FAILS]
    if name == FAILS:
        raise UsageError(f"--lr_scheduler {name}: the script fails with it, since it has no flag for its rules; {listed(names)}.")
    if name not in names:
        near = nearest_name(name, among=names)
        raise UsageError(f"--lr_scheduler {shown(name)}: {listed(names)}" + (f"; did you mean '{near}'?" if near else "."))
    if name == "polynomial" and request.value("learning_rate") <= POLYNOMIAL_END:
        raise UsageError(f"--lr_scheduler polynomial: the script fails where --learning_rate is not above {POLYNOMIAL_END:g}.")
    return name


def endless_warmup(request: Request) -> tuple[int, int] | None:
    """(steps, warm-up) where the run ends within its warm-up: its rates are those of a shorter warm-up to a lower rate."""
    steps, warmup = request.value("max_train_steps"), request.value("lr_warmup_steps")
    if request.script == "flax" or schedule_name(request) == WITHOUT_WARMUP or steps is None or not 1 <= steps <= warmup:
        return None
    if steps == 1:
        raise UsageError(
            f"--max_train_steps 1 with --lr_warmup_steps {warmup}: the only step has the learning rate 0.",
            next_step="Take --lr_warmup_steps 0.",
        )
    return steps, warmup
