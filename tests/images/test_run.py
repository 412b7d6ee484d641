"""The quickstart in a container without rights, without a network and with a root that nobody can write to."""

import subprocess
from pathlib import Path

import pytest

from fakes.podman import USER, Container, Straight, owned_folder, podman
from fakes.processes import trainers_of
from fakes.running import Ended, Job

pytestmark = pytest.mark.containers

# Takes memory until somebody dies of it.
HOG = "held = []\nwhile True:\n    held.append(b'x' * 2**24)"
GRACE_S = 30


def test_the_quickstart_trains_and_publishes(straight: Straight) -> None:
    assert straight.ended.code == 0, straight.ended.output
    assert straight.job.committed_steps() == list(range(10, 151, 10))
    assert straight.job.verified().is_whole
    assert {"pytorch_lora_weights.safetensors", "quickstart.kohya.safetensors"} < straight.job.published().keys()
    assert {path.stat().st_uid for path in straight.job.folder.rglob("*") if path.name != "jobspecs"} == {USER}


def test_whatever_ends_it_the_next_container_goes_on_to_the_same_bytes(
    cpu_image: str, straight: Straight, tmp_path: Path
) -> None:
    job = Job(owned_folder(tmp_path / "scratch"))

    stopped = start(cpu_image, job=job, name="sdjob-stopped")
    step = stopped.running.wait_for("commit")["step"]
    podman("stop", f"--time={GRACE_S}", stopped.name)
    first = stopped.running.end()
    assert (first.code, job.committed_steps()[-1] >= step) == (75, True), first.output

    left = what_is_left(job)
    killed = start(cpu_image, job=job, name="sdjob-killed")
    killed.running.wait_for("commit")
    second = run_out_of_memory(killed, victim=killed.first_process())
    assert (second.code, second.start_step) == (137, left), second.output

    left = what_is_left(job)
    bereft = start(cpu_image, job=job, name="sdjob-bereft")
    bereft.running.wait_for("commit")
    (trainer,) = trainers_of(bereft.first_process())
    third = run_out_of_memory(bereft, victim=trainer)
    assert (third.code, third.start_step) == (70, left), third.output
    assert "memory" in third.error

    left = what_is_left(job)
    last = start(cpu_image, job=job, name="sdjob-last").running.end()
    assert (last.code, last.start_step) == (0, left), last.output
    assert job.done_digest() == straight.job.done_digest()
    assert job.published() == straight.job.published()


def what_is_left(job: Job) -> int:
    """The step that the next attempt should begin at."""
    assert job.history().done is None
    return job.committed_steps()[-1]


def start(image: str, *, job: Job, name: str) -> Container:
    return Container.quickstart(image, job=job, name=name, options=("--memory=1500m", "--memory-swap=1500m"))


def run_out_of_memory(container: Container, *, victim: int) -> Ended:
    """The kernel kills the victim for what another process takes; in a pod on cgroup v2 it kills all at once: 137 too."""
    Path(f"/proc/{victim}/oom_score_adj").write_text("1000")
    hog = subprocess.Popen(["podman", "exec", container.name, "python3", "-c", HOG], stderr=subprocess.DEVNULL)
    ended = container.running.end()
    hog.wait()
    return ended
