"""What a launcher's own flags say about the job: precision, processes, machines.

accelerate launch: https://huggingface.co/docs/accelerate/package_reference/cli#accelerate-launch
torchrun: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sdjob.convert.command import TrainingCommand
from sdjob.convert.words import Word, shown, value_of
from sdjob.core.errors import UsageError
from sdjob.spec.problems import nearest_name

OWN_PROCESSES = "`sdjob run` starts and connects its processes itself"
NOT_READ = "the file is not read: what it sets (precision, processes) must be said here"
ONLY_FASTER = "torch.compile has no field; it changes speed alone"
SHARDING = "train.fsdp: true is what spreads weights and moments over the devices here"
NO_OPTIONS = "train.fsdp has no options: all is spread, and brought together one layer at a time"
NO_TPU = "torch does not train on TPUs here; train.backend: flax does"
OTHERS_MEAN = "it does nothing for this training"

# Read by accelerate where it is not started by its own launcher.
PRECISION_VARIABLE = "ACCELERATE_MIXED_PRECISION"
READ = ("mixed_precision", "num_processes", "num_machines", "multi_gpu", "cpu", "gpu_ids", "nproc_per_node", "nnodes", "use_fsdp")
# Flags without an equal, and why; the beginning of a name stands for its family.
WITHOUT_EQUAL: Mapping[str, str] = {
    "config_file": NOT_READ,
    "tpu": NO_TPU,
    "vm": NO_TPU,
    "main_training_function": NO_TPU,
    "downcast_bf16": NO_TPU,
    "dynamo_": ONLY_FASTER,
    "use_deepspeed": SHARDING,
    "deepspeed_": SHARDING,
    "zero": SHARDING,
    "offload_": SHARDING,
    "fsdp_": NO_OPTIONS,
    "use_megatron_lm": SHARDING,
    "megatron_lm_": SHARDING,
    "use_parallelism_config": SHARDING,
    "parallelism_config_": SHARDING,
    "gradient_accumulation_steps": "the script's own flag decides, unless DeepSpeed runs the steps",
    "gradient_clipping": "the script's --max_grad_norm decides, unless DeepSpeed runs the steps",
    "fp8_": "there is no fp8 here",
    "aws_": "a job file holds no credentials, and none was copied",
    "env": "a job file sets no environment variables",
    "num_cpu_threads_per_process": "threads follow from the machine",
    "enable_cpu_affinity": "threads follow from the machine",
    "numa_binding": "threads follow from the machine",
    **dict.fromkeys(
        ("machine_rank", "node_rank", "main_process_ip", "main_process_port", "master_", "same_network", "standalone"),
        OWN_PROCESSES,
    ),
    **dict.fromkeys(
        ("rdzv_", "max_restarts", "monitor_interval", "start_method", "local_addr", "mpirun_", "no_python"), OWN_PROCESSES
    ),
    **dict.fromkeys(("quiet", "q", "debug", "tee", "t", "redirects", "r", "log_dir", "role", "logs_specs"), OWN_PROCESSES),
    **dict.fromkeys(("local_ranks_filter", "run_path", "use_env", "event_log_handler", "shutdown_timeout"), OWN_PROCESSES),
}
PRECISIONS = ("no", "fp16", "bf16", "fp8")


@dataclass(frozen=True)
class Launch:
    """What is known of the processes that the command starts."""

    precision: str | None = None
    precision_from: str = ""
    processes: int | None = None
    """Over all machines; None where the command does not say."""
    machines: int = 1
    on_cpu: bool = False
    fsdp: bool = False
    probably_several: str | None = None
    """What in the command speaks of several devices without saying how many."""
    without_equal: tuple[tuple[str, str], ...] = ()
    """Flags as they are spelled, and why they have no equal."""


def launch_of(command: TrainingCommand) -> Launch:
    """UsageError for flags that the launcher does not have and values that it does not take."""
    if command.launcher == "python":
        return plain_launch(command)
    given = dict(launch_flags(command.launch_words, launcher=command.launcher))
    without = tuple((f"--{name}", reason) for name in given if (reason := why_not(name)))
    if command.launcher == "torchrun":
        return torchrun(given, command=command, without=without)
    return accelerate(given, command=command, without=without)


def plain_launch(command: TrainingCommand) -> Launch:
    """`python script.py`: one process; accelerate then takes the precision from the environment."""
    precision = dict(command.environment).get(PRECISION_VARIABLE)
    source = PRECISION_VARIABLE if precision else ""
    if command.script == "flax":  # one process for all devices
        visible = visible_devices(command)
        return Launch(processes=visible, probably_several=None if visible else "flax")
    return Launch(checked_precision(precision, flag=source) if precision else None, source, processes=1)


def accelerate(given: Mapping[str, Word | None], *, command: TrainingCommand, without: tuple[tuple[str, str], ...]) -> Launch:
    processes, machines = count(given, "num_processes"), count(given, "num_machines") or 1
    several = next((f"--{name}" for name in ("multi_gpu", "tpu", "config_file") if name in given), None)
    if processes is None:
        processes = num_listed(text(given, "gpu_ids")) or visible_devices(command)
        processes = processes * machines if processes and (processes == 1 or "config_file" not in given) else None
    if processes is None and machines > 1:
        several = "--num_machines"
    return Launch(
        checked_precision(text(given, "mixed_precision"), flag="--mixed_precision"),
        "accelerate launch --mixed_precision" if "mixed_precision" in given else "",
        processes=processes,
        machines=machines,
        on_cpu="cpu" in given,
        fsdp="use_fsdp" in given,
        probably_several=several if processes is None else None,
        without_equal=without,
    )


def torchrun(given: Mapping[str, Word | None], *, command: TrainingCommand, without: tuple[tuple[str, str], ...]) -> Launch:
    """Processes per node default to one. A range of nodes (`1:4`) and `gpu` or `auto` processes do not say how many."""
    nodes, per_node = text(given, "nnodes") or "1", text(given, "nproc_per_node") or "1"
    unclear = next(
        (f"--{name} {value}" for name, value in (("nnodes", nodes), ("nproc_per_node", per_node)) if not value.isdecimal()), None
    )
    alone = plain_launch(command)
    return Launch(
        alone.precision,
        alone.precision_from,
        processes=None if unclear else int(nodes) * int(per_node),
        machines=int(nodes) if nodes.isdecimal() else 1,
        on_cpu=per_node == "cpu",
        probably_several=unclear,
        without_equal=without,
    )


def launch_flags(words: Sequence[Word], *, launcher: str) -> Iterator[tuple[str, Word | None]]:
    """Names with underscores, and the value that stands behind `=` or as the next word."""
    for index, word in enumerate(words):
        if not word.text.startswith("-"):
            continue
        spelled, equals, rest = word.text.partition("=")
        name = spelled.lstrip("-").replace("-", "_")
        if name not in READ and why_not(name) is None:
            near = nearest_name(name, among=(*READ, *(one for one in WITHOUT_EQUAL if not one.endswith("_"))))
            hint = f"; did you mean '--{near}'?" if near else ""
            raise UsageError(f"{launcher} has no flag {shown(spelled)}{hint}", next_step=None if near else "Take it out.")
        following = words[index + 1] if index + 1 < len(words) and not words[index + 1].text.startswith("-") else None
        yield name, Word(rest, word.line, word.unset) if equals else following


def why_not(name: str) -> str | None:
    exact = WITHOUT_EQUAL.get(name)
    family = (reason for beginning, reason in WITHOUT_EQUAL.items() if beginning.endswith("_") and name.startswith(beginning))
    return exact or next(family, None) or (WITHOUT_EQUAL["zero"] if name.startswith(("zero_", "zero3_")) else None)


def text(given: Mapping[str, Word | None], name: str) -> str | None:
    word = given.get(name)
    return None if word is None else value_of(word, what=f"--{name}")


def count(given: Mapping[str, Word | None], name: str) -> int | None:
    value = text(given, name)
    if name not in given:
        return None
    if value is None or not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--{name} {shown(value or '')}: a whole number from 1 is needed.")
    return int(value)


def checked_precision(value: str | None, *, flag: str) -> str | None:
    if value is None or value in PRECISIONS:
        return value
    near = nearest_name(value, among=PRECISIONS)
    raise UsageError(f"{flag} {shown(value)}: allowed: {', '.join(PRECISIONS)}" + (f"; did you mean '{near}'?" if near else "."))


def num_listed(ids: str | None) -> int | None:
    """The two of `0,1`; None of `all`."""
    numbers = [one for one in (ids or "").split(",") if one.strip()]
    return len(numbers) if numbers and all(one.strip().isdecimal() for one in numbers) else None


def visible_devices(command: TrainingCommand) -> int | None:
    return num_listed(dict(command.environment).get("CUDA_VISIBLE_DEVICES"))
