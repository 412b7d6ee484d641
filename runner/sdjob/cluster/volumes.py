"""A pod's volumes and where its container sees them. Pure."""

from typing import Any

from sdjob.cluster.names import JOB_FOLDER, SCRATCH, Manifest
from sdjob.cluster.resources import TMP_GIB, Needs
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import KubernetesSpec, VolumeSpec

Source = dict[str, Any]

# https://cloud.google.com/kubernetes-engine/docs/how-to/cloud-storage-fuse-csi-driver-pv: without it no sidecar mounts anything
GCSFUSE, GCSFUSE_ANNOTATION = "gcsfuse.csi.storage.gke.io", {"gke-gcsfuse/volumes": "true"}


def scratch_folder(job: JobSpec) -> str:
    """Where the scratch volume lies: at run.scratch where the job names a folder of its machine."""
    named = (job.run.scratch or "").removeprefix("file://")
    return named if named.startswith("/") else SCRATCH


def volumes(job: JobSpec, *, cluster: KubernetesSpec, need: Needs, config_map: str) -> list[Manifest]:
    found: list[Manifest] = [
        {"name": "job", "configMap": {"name": config_map}},
        {"name": "scratch", **scratch(job, cluster=cluster, need=need)},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{TMP_GIB}Gi"}},
    ]
    if need.shm_gib:
        found.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{need.shm_gib}Gi"}})
    return found + [{"name": volume.name, **source(volume)} for volume in cluster.volumes]


def scratch(job: JobSpec, *, cluster: KubernetesSpec, need: Needs) -> Source:
    size = f"{need.scratch_gib}Gi"
    if cluster.scratch == "emptyDir":
        return {"emptyDir": {"sizeLimit": size}}
    if cluster.scratch != "ephemeral":
        return {"persistentVolumeClaim": {"claimName": cluster.scratch}}
    claim: Source = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if cluster.storage_class:
        claim["storageClassName"] = cluster.storage_class
    return {"ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"sdjob/job": job.name}}, "spec": claim}}}


def source(volume: VolumeSpec) -> Source:
    read_only = {"readOnly": True} if volume.read_only else {}
    if volume.claim:
        return {"persistentVolumeClaim": {"claimName": volume.claim, **read_only}}
    if volume.secret:
        return {"secret": {"secretName": volume.secret}}
    if volume.config_map:
        return {"configMap": {"name": volume.config_map}}
    if volume.csi:
        attributes = {"volumeAttributes": dict(volume.attributes)} if volume.attributes else {}
        return {"csi": {"driver": volume.csi, **read_only, **attributes}}
    return {"emptyDir": {"sizeLimit": f"{volume.empty_dir_gib}Gi"}}


def mounts(job: JobSpec, *, cluster: KubernetesSpec, need: Needs) -> list[Manifest]:
    found: list[Manifest] = [
        {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
        {"name": "scratch", "mountPath": scratch_folder(job)},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a volume of the pod's own
    ]
    if need.shm_gib:
        found.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    for volume in cluster.volumes:
        found.append({"name": volume.name, "mountPath": volume.mount} | ({"readOnly": True} if volume.read_only else {}))
    return found


def on_node_disk_gib(cluster: KubernetesSpec, *, need: Needs) -> int:
    """What lies on the node's own disk: requested, so that the pod is not put where there is no room for it."""
    scratch_gib = need.scratch_gib if cluster.scratch == "emptyDir" else 0
    return TMP_GIB + scratch_gib + sum(volume.empty_dir_gib or 0 for volume in cluster.volumes)


def annotations(cluster: KubernetesSpec) -> dict[str, str]:
    return dict(GCSFUSE_ANNOTATION) if any(volume.csi == GCSFUSE for volume in cluster.volumes) else {}
