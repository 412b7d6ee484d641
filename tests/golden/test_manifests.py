"""The manifests of every combination that counts, each valid for the oldest and the newest Kubernetes.

Name and hash of the ConfigMap stand in for its content, so that a new field of the job file changes no file here.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import yaml

from fakes.manifests import (
    JOBSET_SCHEMA,
    Manifest,
    breaches,
    check,
    child_jobs,
    disagreements,
    pod_template,
    published_crds,
    schema_of,
    without_templates,
)
from sdjob import __version__
from sdjob.cli.main import main
from sdjob.cluster.dump import as_yaml
from sdjob.cluster.render import Rendered, rendered
from sdjob.spec.kubernetes import METRICS_PORT
from sdjob.spec.load import load_job
from unit.spec.jobs import job

FOLDER = Path(__file__).parent / "manifests"
FLAX = "train.backend=flax"


def on(accelerator: str, *overrides: str) -> list[str]:
    backend = [FLAX] if accelerator.startswith("tpu") else []
    return [f"run.accelerator='{accelerator}'", *backend, *overrides]


MACHINES: dict[str, dict[str, list[str]]] = {
    "gke": {
        "cpu": on("cpu"),
        "l4": on("nvidia-l4"),
        "a100-80gb-x8": on("nvidia-a100-80gb:8"),
        "h100-x8-2-nodes": on("nvidia-h100-80gb:8", "run.nodes=2"),
        "tpu-v5e-1x1": on("tpu-v5e:1x1"),
        "tpu-v5e-4x4": on("tpu-v5e:4x4"),
        "tpu-v6e-2x4-8t": on("tpu-v6e:2x4@8t"),
        "tpu-v6e-2x4-4t": on("tpu-v6e:2x4@4t"),
        "tpu-v5p-2x2x2": on("tpu-v5p:2x2x2"),
        "tpu-v4-2x2x4-2-slices": on("tpu-v4:2x2x4", "run.slices=2"),
        "tpu-v7x-2x2x1": on("tpu-v7x:2x2x1"),
    },
    "gke-autopilot": {
        "cpu": on("cpu"),
        "l4": on("nvidia-l4"),
        "l4-3-nodes": on("nvidia-l4", "run.nodes=3"),
        "tpu-v5e-2x2": on("tpu-v5e:2x2"),
        "tpu-v5e-4x4": on("tpu-v5e:4x4"),
    },
    "eks": {
        "cpu": on("cpu"),
        "l4": on("nvidia-l4"),
        "a100-80gb-x8": on("nvidia-a100-80gb:8"),
        "a10g-x4-2-nodes": on("nvidia-a10g:4", "run.nodes=2"),
    },
    "eks-managed": {
        "cpu": on("cpu"),
        "l4": on("nvidia-l4"),
        "h200-x8": on("nvidia-h200-141gb:8"),
        "t4-x4-2-nodes": on("nvidia-t4:4", "run.nodes=2"),
    },
    "aks": {
        "cpu": on("cpu"),
        "t4": on("nvidia-t4"),
        "a100-80gb-x4": on("nvidia-a100-80gb:4"),
        "h100-x8-2-nodes": on("nvidia-h100-80gb:8", "run.nodes=2"),
    },
    "generic": {
        "cpu-x4": on("cpu:4"),
        "some-gpus": on("nvidia:2"),
        "l4": on("nvidia-l4"),
        "l4-3-nodes": on("nvidia-l4", "run.nodes=3"),
    },
}
EVERYTHING = """run.kubernetes={
    flavor: gke, namespace: ml, service_account: sdjob, image: "registry.example/sdjob@sha256:0123",
    image_pull_secrets: [registry], metrics: true, cpus: 3.5, memory_gib: 24, shm_gib: 2, scratch_gib: 80, deadline_hours: 12,
    ttl_hours: 1, hub_token_secret: hub, runtime_class: nvidia, priority_class: batch, run_as_user: 1234,
    labels: {team: vision}, annotations: {note: "any text"}, node_selector: {pool: training},
    tolerations: [{key: dedicated, value: training, effect: NoSchedule}, {operator: Exists}],
    env: [{name: NCCL_DEBUG, value: INFO}, {name: WANDB_API_KEY, secret: wandb, key: key}, {name: A, config_map: m, key: k}],
    volumes: [{name: models, mount: /models, claim: models, read_only: true}, {name: keys, mount: /keys, secret: keys},
              {name: settings, mount: /settings, config_map: settings}, {name: more, mount: /more, empty_dir_gib: 5},
              {name: pictures, mount: /pictures, csi: gcsfuse.csi.storage.gke.io, read_only: true,
               attributes: {bucketName: pictures}}]
}"""
KUEUE = "run.kubernetes={flavor: gke, queue: team, queue_priority: low}"
FEATURES: dict[str, list[str]] = {
    "everything": on("nvidia-l4", EVERYTHING),
    "kueue-l4": on("nvidia-l4", KUEUE),
    "kueue-h100-x8-2-nodes": on("nvidia-h100-80gb:8", "run.nodes=2", KUEUE),
    "kueue-tpu-v5e-4x4": on("tpu-v5e:4x4", KUEUE),
    "cpu-x2-2-nodes": on("cpu:2", "run.nodes=2"),
    "kueue-cpu-generic": on("cpu", "run.kubernetes={queue: team}"),
    "full-a100-80gb-x8": on("nvidia-a100-80gb:8", "train.method=full", "run.kubernetes.flavor=gke"),
    "scratch-ephemeral": on(
        "nvidia-l4", "run.kubernetes={flavor: eks, scratch: ephemeral, storage_class: gp3, scratch_gib: 200}"
    ),
    "scratch-claim": on("nvidia-l4", "run.scratch=/mnt/fast", "run.kubernetes={flavor: gke, scratch: fast-disk}"),
    "tpu-memlock": on("tpu-v5e:2x2", "run.kubernetes={flavor: gke, tpu_memlock: true}"),
    "long-notice": on("nvidia-l4", "run.spot=true", "run.notice_s=110", "run.kubernetes.flavor=gke"),
    "deadline-of-a-gang": on("nvidia-l4", "run.nodes=2", "run.kubernetes={flavor: gke, deadline_hours: 2}"),
    "workload-identity-aks": on("nvidia-t4", "run.kubernetes={flavor: aks, service_account: sdjob}"),
}
CASES: dict[str, list[str]] = {
    f"{flavor}-{machine}{'-spot' if spot else ''}": [
        f"run.kubernetes.flavor={flavor}",
        f"run.spot={str(spot).lower()}",
        *overrides,
    ]
    for flavor, machines in MACHINES.items()
    for (machine, overrides), spot in product(machines.items(), (False, True))
} | FEATURES


def result_of(case: str) -> Rendered:
    return rendered(job(*CASES[case]))


def with_stand_ins(result: Rendered) -> str:
    name = result.config_map["metadata"]["name"]
    text = as_yaml([result.workload]).replace(name, "JOB-AS-CONFIG-MAP")
    return text.replace(result.digest, "DIGEST").replace(f":{__version__}", ":VERSION")


def test_there_are_enough():
    assert len(CASES) >= 60
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_manifests(case: str, golden: Callable[[Path, str], None]):
    golden(FOLDER / f"{case}.yaml", with_stand_ins(result_of(case)))


@pytest.mark.parametrize("case", CASES)
def test_an_api_server_would_take_them(case: str):
    for manifest in result_of(case).manifests:
        check(manifest)


@pytest.mark.parametrize("case", CASES)
def test_pod_security_restricted(case: str):
    pod = pod_template(result_of(case).workload)["spec"]
    assert breaches(pod) == (["adds ['SYS_RESOURCE']"] if case == "tpu-memlock" else [])
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False


JOBSPECS = sorted((Path(__file__).parents[2] / "jobspecs").glob("*.yaml"))


def test_every_jobspec_has_its_manifests():
    assert len(JOBSPECS) >= 11
    assert {path.stem for path in (FOLDER / "jobspecs").glob("*.yaml")} == {path.stem for path in JOBSPECS}


@pytest.mark.parametrize("path", JOBSPECS, ids=lambda path: path.stem)
def test_jobspecs(path: Path, golden: Callable[[Path, str], None]):
    """Here the ConfigMap is shown too: what the pod reads, to the letter."""
    result = rendered(load_job(path, environment={}))
    for manifest in result.manifests:
        check(manifest)
    assert breaches(pod_template(result.workload)["spec"]) == []
    golden(FOLDER / "jobspecs" / path.name, as_yaml(result.manifests).replace(f":{__version__}", ":VERSION"))


@pytest.mark.parametrize("path", JOBSPECS, ids=lambda path: path.stem)
def test_jobspecs_are_valid_and_say_what_they_cost(path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().err == ""
    if path.stem != "quickstart":
        comment = path.read_text(encoding="utf-8").partition("apiVersion")[0]
        assert "Time" in comment
        assert "hour" in comment
        assert f"name: {path.stem}\n" in path.read_text(encoding="utf-8")


GANGS = [case for case in CASES if "nodes" in case or "slices" in case or "4x4" in case or "4t" in case or "gang" in case]


@pytest.mark.published_crds
@pytest.mark.parametrize("case", GANGS)
def test_gangs_against_the_published_definition(case: str):
    folder = published_crds()
    assert folder, "SDJOB_CRDS must name the folder with the published definitions"
    workload = result_of(case).workload
    schema = schema_of(folder / "jobset.x-k8s.io_jobsets.yaml")
    jsonschema.validate(without_templates(workload), schema)
    assert child_jobs(workload)


@pytest.mark.published_crds
def test_our_own_schema_agrees_with_the_published_one():
    folder = published_crds()
    assert folder, "SDJOB_CRDS must name the folder with the published definitions"
    ours = json.loads(JOBSET_SCHEMA.read_text())
    assert disagreements(ours, schema_of(folder / "jobset.x-k8s.io_jobsets.yaml")) == []
    ours["properties"]["spec"]["properties"]["failurePolicy"]["properties"]["maxRestart"] = {"type": "integer"}
    ours["properties"]["spec"]["properties"]["ttlSecondsAfterFinished"]["type"] = "string"
    found = disagreements(ours, schema_of(folder / "jobset.x-k8s.io_jobsets.yaml"))
    assert found == ["spec.ttlSecondsAfterFinished is integer, not string", "spec.failurePolicy.maxRestart does not exist"]


# ---- k8s/: what a cluster needs once --------------------------------------------------------------------------------------

K8S = Path(__file__).parents[2] / "k8s"
SETUP = [path for path in sorted(K8S.rglob("*.yaml")) if path.name != "kustomization.yaml"]
KUSTOMIZATIONS = sorted(K8S.rglob("kustomization.yaml"))


def documents(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SETUP, ids=lambda path: "-".join(path.relative_to(K8S).parts))
def test_what_a_cluster_needs_once_is_valid(path: Path):
    for document in documents(path):
        if not document["apiVersion"].startswith("kueue"):
            check(document)


@pytest.mark.published_crds
@pytest.mark.parametrize("path", SETUP, ids=lambda path: "-".join(path.relative_to(K8S).parts))
def test_queues_against_the_published_definitions(path: Path):
    folder = published_crds()
    assert folder, "SDJOB_CRDS must name the folder with the published definitions"
    for document in documents(path):
        if document["apiVersion"].startswith("kueue"):
            assert document["apiVersion"] == "kueue.x-k8s.io/v1beta2"
            kinds = {"ClusterQueue": "clusterqueues", "LocalQueue": "localqueues", "ResourceFlavor": "resourceflavors"}
            plural = kinds.get(document["kind"], "workloadpriorityclasses")
            jsonschema.validate(document, schema_of(folder / f"kueue.x-k8s.io_{plural}.yaml"))


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_kustomizations_name_what_is_there_and_leave_nothing_out(path: Path):
    (found,) = documents(path)
    patches = [patch["path"] for patch in found.get("patches", [])]
    named = [*found["resources"], *patches]
    assert all((path.parent / name).exists() for name in named)
    files = {other.name for other in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == {name for name in named if name.endswith(".yaml")}
    base = {
        (one["kind"], one["metadata"]["name"])
        for other in (K8S / "base").glob("*.yaml")
        for one in documents(other)
        if "metadata" in one
    }
    for patch in patches:
        assert {(one["kind"], one["metadata"]["name"]) for one in documents(path.parent / patch)} <= base


def test_the_queue_covers_what_pods_ask_for():
    queue = next(one for one in documents(K8S / "overlays" / "kueue" / "queues.yaml") if one["kind"] == "ClusterQueue")
    (group,) = queue["spec"]["resourceGroups"]
    for path in JOBSPECS:
        workload = rendered(load_job(path, environment={})).workload
        requests = pod_template(workload)["spec"]["containers"][0]["resources"]["requests"]
        assert requests.keys() <= set(group["coveredResources"])


def test_pods_that_are_rendered_are_those_that_the_network_policy_means():
    (policy,) = documents(K8S / "base" / "network-policy.yaml")
    wanted = policy["spec"]["podSelector"]["matchLabels"]
    labels = pod_template(result_of("gke-l4").workload)["metadata"]["labels"]
    assert wanted.items() <= labels.items()
    assert METRICS_PORT in [port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", [])]
