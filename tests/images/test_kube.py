"""The pod that `sdjob render` writes for a CPU job, played by podman with its ConfigMap: the bytes of a run by hand."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.podman import ROOT, SHORT, Straight, inspect, owned_folder, podman, settings
from fakes.running import Job
from fakes.scripts import sdjob

pytestmark = pytest.mark.containers

NAME = "sdjob-played"
# Of this process alone: volumes outlive a test that was killed.
INPUTS, RESULTS = f"sdjob-inputs-{os.getpid()}", f"sdjob-results-{os.getpid()}"
VOLUMES = (
    f"{{name: inputs, mount: /inputs, claim: {INPUTS}, read_only: true}}, {{name: results, mount: /results, claim: {RESULTS}}}"
)
CLAIMS = (
    "model.source=/inputs/base",
    "data.source=/inputs/pictures",
    "checkpoint.to=/results/run",
    "publish=[{to: /results/published}]",
    f"name={NAME}",
    f"run.kubernetes={{volumes: [{VOLUMES}]}}",
)


@pytest.fixture
def results(machine: None, tmp_path: Path) -> Iterator[Path]:
    """The folder behind one claim; the other is the quickstart's."""
    folder = owned_folder(tmp_path / "results")
    claims = {INPUTS: ROOT / "jobspecs/quickstart", RESULTS: folder}
    for claim, path in claims.items():
        podman("volume", "create", "--opt=type=none", "--opt=o=bind", f"--opt=device={path}", claim)
    yield folder
    podman("volume", "rm", *claims)


@pytest.fixture
def played(cpu_image: str, results: Path, tmp_path: Path) -> Iterator[str]:
    """The name of the pod's container. No image is named: the renderer's default is what `make image-cpu` builds."""
    file = tmp_path / "pod.yaml"
    file.write_text("\n---\n".join(map(json.dumps, pod_and_config_map())))
    podman("kube", "play", "--network=none", "--replace", file)
    yield f"{NAME}-sdjob"
    podman("kube", "down", file)


def test_the_rendered_pod_runs_to_its_end(played: str, results: Path, straight: Straight) -> None:
    code = podman("wait", played).strip()
    assert code == "0", podman("logs", played)
    container = inspect("container", played)
    assert (container["HostConfig"]["ReadonlyRootfs"], container["EffectiveCaps"]) == (True, None)
    job = Job(results)
    assert job.done_digest() == straight.job.done_digest()
    weights = {name: data for name, data in job.published().items() if name.endswith("pytorch_lora_weights.safetensors")}
    assert weights.items() <= straight.job.published().items()


def pod_and_config_map() -> list[dict]:
    rendered = sdjob("render", "--json", "jobspecs/quickstart.yaml", *settings(*SHORT, *CLAIMS))
    config_map, job = json.loads(rendered)
    assert job["kind"] == "Job"
    template = job["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, **template["metadata"]}, "spec": template["spec"]}
    return [config_map, pod]
