import copy
import json
from pathlib import Path

import pytest
import yaml

from fakes.manifests import breaches, pod_template
from sdjob.cli.main import main
from sdjob.cluster.dump import as_yaml
from sdjob.cluster.failure import FINAL, INTERRUPTED
from sdjob.cluster.names import gang_address
from sdjob.cluster.render import rendered
from sdjob.core.errors import SdjobError, UsageError
from sdjob.spec.job import LONGEST_NAME
from sdjob.spec.load import job_from_text, resolved_yaml
from unit.spec.jobs import job

SECRETS = {
    "HF_TOKEN": "hf_planted0123456789",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/key",
    "WANDB_API_KEY": "0123456789planted",
}


def container(*overrides: str) -> dict:
    return pod_template(rendered(job(*overrides)).workload)["spec"]["containers"][0]


def test_the_config_map_holds_the_job_that_was_rendered():
    given = job("run.accelerator='nvidia-l4:4'", "run.kubernetes={flavor: gke, labels: {team: vision}}", "train.method=full")
    text = rendered(given).config_map["data"]["job.yaml"]
    assert job_from_text(text, source="job.yaml", environment={}) == given
    assert text == resolved_yaml(given)


def test_the_config_map_is_immutable_and_another_job_has_another_name():
    first, second = rendered(job("train.seed=1")).config_map, rendered(job("train.seed=2")).config_map
    assert first["immutable"] is True
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first == rendered(job("train.seed=1")).config_map


def test_the_digest_follows_every_change():
    digests = {
        rendered(job(*overrides)).digest
        for overrides in ([], ["train.seed=5"], ["run.kubernetes.image=other"], ["run.kubernetes.ttl_hours=3"], ["run.spot=true"])
    }
    assert len(digests) == 5
    assert rendered(job()).digest == rendered(job()).digest


def test_yaml_reads_back_as_what_was_rendered():
    result = rendered(job("name=yes-1e3", "run.kubernetes={labels: {a: '1e3', b: 'no', c: '0x10', d: ''}}"))
    assert list(yaml.safe_load_all(as_yaml(result.manifests))) == result.manifests
    assert "a: '1e3'" in as_yaml(result.manifests) or 'a: "1e3"' in as_yaml(result.manifests)


def test_what_another_attempt_would_repeat_is_final_and_the_rest_is_not():
    codes = {error.exit_code for error in SdjobError.__subclasses__()}
    assert set(FINAL) == {64, 65, 66, 69, 76, 77, 78, 79}
    assert codes - set(FINAL) - set(INTERRUPTED) == {70, 74}


def test_the_longest_names_make_host_names_that_dns_takes():
    name = "a" * LONGEST_NAME
    host = gang_address(name).partition(".")[0]
    largest = rendered(job(f"name={name}", "train.backend=flax", "run.accelerator='tpu-v5e:16x16'", "run.slices=999")).workload
    member = largest["spec"]["replicatedJobs"][0]
    pod = f"{name}-{member['name']}-{member['replicas'] - 1}-{member['template']['spec']['completions'] - 1}-abcde"
    assert len(host) <= 63
    assert len(pod) <= 63
    assert len(rendered(job(f"name={name}")).config_map["metadata"]["name"]) <= 63


def test_shared_memory_lies_within_the_memory_limit():
    one, eight = container("run.accelerator=nvidia-l4"), container("run.accelerator='nvidia-l4:8'")
    assert one["resources"]["limits"]["memory"] == "11Gi"
    assert eight["resources"]["limits"]["memory"] == "32Gi"
    assert one["resources"]["limits"].get("cpu") is None
    assert one["resources"]["requests"].items() >= one["resources"]["limits"].items()


def test_scratch_lies_where_the_job_says():
    found = container("run.scratch=/mnt/fast")
    assert {"name": "SDJOB_SCRATCH", "value": "/mnt/fast"} in found["env"]
    assert {"name": "scratch", "mountPath": "/mnt/fast"} in found["volumeMounts"]
    assert found["workingDir"] == "/mnt/fast"


def test_a_node_selector_against_the_accelerator_is_refused():
    given = job(
        "run.accelerator=nvidia-l4",
        "run.kubernetes={flavor: gke, node_selector: {cloud.google.com/gke-accelerator: nvidia-tesla-t4}}",
    )
    with pytest.raises(UsageError, match="gke-accelerator=nvidia-l4, not nvidia-tesla-t4"):
        rendered(given)


CAUTIONS = {
    "model.source": ["run.accelerator=cpu"],
    "checkpoint.to": ["run.accelerator=cpu"],
    "publish.0.to": ["publish=[{to: out}]"],
    "train.init_from": ["train.init_from=/weights"],
    "run.kubernetes.service_account": ["checkpoint.to=s3://bucket/run"],
    "run.kubernetes.hub_token_secret": ["publish=[{to: 'hf://me/model'}]"],
    "run.accelerator": [],
    "run.kubernetes.node_selector": ["run.accelerator=nvidia-l4"],
    "run.spot": ["run.spot=true"],
    "run.notice_s": ["run.spot=true", "run.notice_s=100", "run.kubernetes.flavor=aks"],
    "run.kubernetes.tpu_memlock": ["train.backend=flax", "run.accelerator='tpu-v5e:2x2'", "run.kubernetes.tpu_memlock=true"],
    "run.kubernetes.scratch": ["run.accelerator=nvidia-l4", "run.nodes=2", "run.kubernetes.scratch=disk"],
    "run.kubernetes.image": [],
    "run.scratch": ["run.scratch=tmp"],
}


@pytest.mark.parametrize("field", CAUTIONS)
def test_cautions(field: str):
    assert field in {caution.field for caution in rendered(job(*CAUTIONS[field])).cautions}


def test_what_this_version_cannot_run_yet_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "sdjob.cluster.cautions.unsupported", lambda _job: ["train.magic: this version cannot do magic yet; wait."]
    )
    told = {caution.field: caution.what for caution in rendered(job()).cautions}
    assert told["train.magic"] == "this version cannot do magic yet; wait."


def test_a_job_that_a_cluster_can_run_has_no_cautions():
    given = job(
        "model.source=hf://a/b",
        "data.source=/pictures",
        "checkpoint.to=/runs/emoji",
        "publish=[{to: 's3://bucket/out'}, {to: 'hf://me/model'}]",
        "run.accelerator=nvidia-l4",
        "run.scratch=/mnt/fast",
        """run.kubernetes={
            flavor: gke, image: 'registry.example/sdjob:1', service_account: sdjob, hub_token_secret: hub, scratch: disk,
            volumes: [{name: pictures, mount: /pictures, claim: pictures}, {name: runs, mount: /runs, claim: runs}]
        }""",
    )
    assert [str(caution) for caution in rendered(given).cautions] == []


def test_what_lies_on_scratch_is_told_apart_from_what_is_out_of_reach():
    told = {caution.field: caution.what for caution in rendered(job("checkpoint.to=runs/x", "model.source=/models/x")).cautions}
    assert "gone with the pod" in told["checkpoint.to"]
    assert "cannot reach the folder /models/x" in told["model.source"]


def test_the_check_of_pod_security_sees_every_breach():
    pod = pod_template(rendered(job()).workload)["spec"]
    assert breaches(pod) == []
    for spoil in (
        lambda spec: spec.update(hostNetwork=True),
        lambda spec: spec["securityContext"].update(runAsUser=0),
        lambda spec: spec["securityContext"].pop("seccompProfile"),
        lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda spec: spec["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
        lambda spec: spec["containers"][0]["securityContext"]["capabilities"].pop("drop"),
        lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    ):
        spoilt = copy.deepcopy(pod)
        spoil(spoilt)
        assert breaches(spoilt)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(resolved_yaml(job("run.accelerator=nvidia-l4", "run.kubernetes={hub_token_secret: hub}")))
    return path


def test_render_prints_manifests_and_cautions_apart(job_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--log", "text", "render", str(job_file), "--flavor", "eks", "--set", "run.spot=true"]) == 0
    told = capsys.readouterr()
    first, second = yaml.safe_load_all(told.out)
    assert (first["kind"], second["kind"]) == ("ConfigMap", "Job")
    assert second["spec"]["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"] == "spot"
    assert "flavor: eks" in first["data"]["job.yaml"]
    assert "warning: model.source: a pod cannot reach the folder" in told.err


def test_render_as_json(job_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["render", str(job_file), "--json"]) == 0
    assert [manifest["kind"] for manifest in json.loads(capsys.readouterr().out)] == ["ConfigMap", "Job"]


def test_no_secret_of_the_environment_reaches_a_manifest(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    assert main(["render", str(job_file), "--set", f"run.kubernetes.labels.note={SECRETS['WANDB_API_KEY']}"]) == 0
    told = capsys.readouterr()
    assert not [value for value in SECRETS.values() if value in told.out + told.err]
    assert "secretKeyRef" in told.out


def test_a_job_that_is_not_valid_is_not_rendered(job_file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["render", str(job_file), "--set", "run.accelerator=nvidia-rtx-4090", "--flavor", "gke"]) == 64
    told = capsys.readouterr()
    assert told.out == ""
    assert "GKE has no nvidia-rtx-4090" in told.err
