"""What a job asks of the machine against what the machine has, and the notice that a stop would leave."""

from collections.abc import Iterator, Mapping

from sdjob.core.errors import UnavailableError
from sdjob.job import machine
from sdjob.job.accelerators import Gpu, Tpus, gpus, tpus
from sdjob.job.doctor.finding import Finding, ok, warning
from sdjob.spec.hardware import Accelerator, parse_accelerator, resolve_precision
from sdjob.spec.job import JobSpec
from sdjob.spec.run import RunSpec, notice_s

ACCELERATOR, PRECISION, ATTENTION, NOTICE = "run.accelerator", "train.precision", "train.attention", "run.notice_s"
OPTIMIZER, COMPILE = "train.optimizer.name", "train.compile"
# NVIDIA computes in bf16 from Ampere on: https://docs.nvidia.com/cuda/cuda-c-programming-guide, "Arithmetic Instructions"
BF16_SINCE = (8, 0)
IN_A_POD = (
    "KUBERNETES_SERVICE_HOST"  # https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
)


def accelerator(job: JobSpec) -> Iterator[Finding]:
    asked = parse_accelerator(job.run.accelerator)
    machine.require(asked)
    if asked.kind == "tpu":
        require_tpus(asked)
    told = job.run.accelerator or "cpu"
    if asked.kind == "cpu" and asked.devices_per_node > machine.num_cores():
        what = f"{told}: {asked.devices_per_node} processes share {machine.num_cores()} cores."
        yield warning(ACCELERATOR, what, next_step="Name fewer.")
    elif other := another_name(asked):
        what = f"the job names {told}, and this machine has {other}."
        yield warning(ACCELERATOR, what, next_step="Precision and memory follow the name: name what is here, or leave it out.")
    else:
        yield ok(
            ACCELERATOR, f"{told}: {asked.devices_per_node} {'process' if asked.devices_per_node == 1 else 'processes'} here."
        )


def require_tpus(asked: Accelerator) -> None:
    found = tpus()
    if found == Tpus():
        raise UnavailableError(
            f"the job asks for TPU {asked.name}, and this machine has none.",
            where=ACCELERATOR,
            next_step="Run it in a pod of the slice, with google.com/tpu among its limits.",
        )
    if asked.chips_per_vm and found.chips and len(found.chips) != asked.chips_per_vm:
        raise UnavailableError(
            f"a VM of this slice has {asked.chips_per_vm} TPU chips, and this machine shows {len(found.chips)}.",
            where=ACCELERATOR,
            next_step="Ask for all chips of the VM in the pod's limits (google.com/tpu).",
        )


def another_name(asked: Accelerator) -> str | None:
    """Of the device that is here, where the job names one of another kind."""
    if asked.kind != "nvidia" or asked.name is None:
        return None
    here = {machine.nvidia_name(gpu.name) for gpu in gpus()}
    known = {name for name in here if name != "nvidia"}
    # "a100" is any A100, whichever memory it has.
    fits = any(name.startswith(f"nvidia-{asked.name}") or f"nvidia-{asked.name}".startswith(name) for name in known)
    return None if fits or not known else ", ".join(sorted(known))


def precision(job: JobSpec) -> Iterator[Finding]:
    asked = parse_accelerator(job.run.accelerator)
    resolved = resolve_precision(job.train.precision, accelerator=asked)
    found = gpus() if asked.kind == "nvidia" else []
    if resolved == "bf16" and (old := [gpu for gpu in found if lacks_bf16(gpu)]):
        raise UnavailableError(
            f"{old[0].name} has no bf16, which {job.train.precision} comes to.",
            where=PRECISION,
            next_step="Set train.precision: fp16.",
        )
    how = f"{resolved} ({job.train.precision})" if job.train.precision != resolved else resolved
    yield ok(PRECISION, f"{how}.")


def lacks_bf16(gpu: Gpu) -> bool:
    return gpu.compute_capability is not None and gpu.compute_capability < BF16_SINCE


def attention(job: JobSpec) -> Iterator[Finding]:
    if job.train.attention == "xformers":
        machine.require_xformers(parse_accelerator(job.run.accelerator))
        yield ok(ATTENTION, f"xformers {machine.installed_version('xformers')} is installed.")


def compiling(job: JobSpec) -> Iterator[Finding]:
    if job.train.compile:
        machine.require_compiler(parse_accelerator(job.run.accelerator), scratch=machine.scratch_root(job))
        yield ok(COMPILE, "a compiler is installed.")


def optimizer(job: JobSpec) -> Iterator[Finding]:
    name = job.train.optimizer.name
    machine.require_optimizer(name, accelerator=parse_accelerator(job.run.accelerator))
    if package := machine.OPTIMIZER_PACKAGES.get(name):
        yield ok(OPTIMIZER, f"{package} {machine.installed_version(package)} is installed.")


def notice(run: RunSpec, *, environment: Mapping[str, str]) -> Iterator[Finding]:
    told = f"a stop leaves {notice_s(run):g} s to save: {whence(run)}."
    if run.notice_s is None and run.kubernetes is None and environment.get(IN_A_POD):
        yield warning(
            NOTICE,
            told,
            next_step="This is a pod: name its cluster in run.kubernetes, or set run.notice_s a little below its grace period.",
        )
    else:
        yield ok(NOTICE, told)


def whence(run: RunSpec) -> str:
    if run.notice_s is not None:
        return "the job says so"
    if run.kubernetes is None:
        return "the default outside of a cluster; run.notice_s says otherwise"
    spot = "spot nodes" if run.spot else "nodes"
    return f"the default for {spot} of run.kubernetes.flavor {run.kubernetes.flavor}"
