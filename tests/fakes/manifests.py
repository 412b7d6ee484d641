"""Whether manifests are what a cluster would take: schemas, Pod Security, and what a JobSet may hold."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

Manifest = dict[str, Any]

OLDEST, NEWEST = "1.31", kubernetes_validate.latest_version()
JOBSET_SCHEMA = Path(__file__).parent / "schemas" / "jobset.json"
"""Of our own: the fields that we use, and no other. Where the published CRD is at hand, the two are compared."""


def published_crds() -> Path | None:
    """The folder of the published CustomResourceDefinitions, where SDJOB_CRDS names it."""
    named = os.environ.get("SDJOB_CRDS")
    return Path(named) if named else None


def check(manifest: Manifest) -> None:
    """Raises where a strict API server would refuse."""
    for version in (OLDEST, NEWEST):
        if manifest["kind"] == "JobSet":
            for child in child_jobs(manifest):
                kubernetes_validate.validate(child, version, strict=True)
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    if manifest["kind"] == "JobSet":
        jsonschema.validate(without_templates(manifest), json.loads(JOBSET_SCHEMA.read_text()))


def child_jobs(jobset: Manifest) -> list[Manifest]:
    return [
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "child"}, "spec": member["template"]["spec"]}
        for member in jobset["spec"]["replicatedJobs"]
    ]


def without_templates(jobset: Manifest) -> Manifest:
    """The JobSet's own fields; its Jobs are checked as Jobs."""
    members = [{**member, "template": {}} for member in jobset["spec"]["replicatedJobs"]]
    return {**jobset, "spec": {**jobset["spec"], "replicatedJobs": members}}


def pod_template(workload: Manifest) -> Manifest:
    if workload["kind"] == "JobSet":
        return workload["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    return workload["spec"]["template"]


@cache
def schema_of(crd: Path) -> Manifest:
    """The published schema, made strict: an API server drops or refuses fields that it does not know."""
    definition = yaml.safe_load(crd.read_text(encoding="utf-8"))
    return strict(definition["spec"]["versions"][-1]["schema"]["openAPIV3Schema"])


def strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(inner) for key, inner in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not open_ended:
        found["additionalProperties"] = False
    return found


def disagreements(ours: Manifest, theirs: Manifest, *, path: str = "") -> list[str]:
    """Where our own small schema says something else than the published one."""
    found: list[str] = []
    for name, mine in ours.get("properties", {}).items():
        published = theirs.get("properties", {}).get(name)
        where = f"{path}.{name}".lstrip(".")
        if published is None:
            found.append(f"{where} does not exist")
        elif path != "metadata" and where != "metadata" and "const" not in mine and name != "template":
            found += differences(mine, published, where=where)
    return found


def differences(mine: Manifest, published: Manifest, *, where: str) -> list[str]:
    found = [f"{where} is {published.get('type')}, not {mine['type']}"] if mine["type"] != published.get("type") else []
    if "enum" in published and mine.get("enum") != published["enum"]:
        found.append(f"{where} may be {published['enum']}")
    if "required" in published and not set(published["required"]) <= set(mine.get("required", [])):
        found.append(f"{where} requires {published['required']}")
    if mine["type"] == "array":
        return found + differences(mine["items"], published["items"], where=f"{where}[]")
    return found + disagreements(mine, published, path=where)


VOLUMES_ALLOWED = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def breaches(pod: Manifest) -> list[str]:
    """Of the Pod Security Standard "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    security = pod.get("securityContext", {})
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") in {None, 0}:
        found.append("may run as root")
    if security.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        found.append("no seccomp profile")
    for volume in pod.get("volumes", []):
        kinds = volume.keys() - {"name"}
        if not kinds <= VOLUMES_ALLOWED:
            found.append(f"volume {volume['name']} is {kinds}")
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        found += container_breaches(container)
    return found


def container_breaches(container: Manifest) -> list[str]:
    security = container.get("securityContext", {})
    found: list[str] = []
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        found.append("may gain privileges")
    capabilities = security.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        found.append("keeps capabilities")
    if not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        found.append(f"adds {capabilities['add']}")
    if any("hostPort" in port for port in container.get("ports", [])):
        found.append("takes a port of the host")
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        found.append("runs as root")
    return found
