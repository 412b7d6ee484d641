"""What is right as a job file, and will yet surprise in a cluster: a sentence each. Pure."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdjob import __version__
from sdjob.cluster.jobset import Gang
from sdjob.cluster.volumes import scratch_folder
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import KubernetesSpec
from sdjob.spec.places import Place, parse_place
from sdjob.spec.run import SPOT_GRACE_S, grace_s
from sdjob.spec.sense.places import named_places
from sdjob.spec.support import unsupported


@dataclass(frozen=True)
class Caution:
    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.field}: {self.what}"


def cautions(job: JobSpec, *, cluster: KubernetesSpec, accelerator: Accelerator, gang: Gang | None) -> list[Caution]:
    found = [*folders(job, cluster=cluster), *access(job, cluster=cluster)]
    found += [*machines(job, cluster=cluster, accelerator=accelerator), *sharing(cluster, gang=gang), *version(job, cluster)]
    return found


def places_of(job: JobSpec, *, base: str) -> dict[str, Place]:
    """As the pod will read them: relative ones start at its working directory."""
    return {field: parse_place(text, base=Path(base)) for field, text in named_places(job).items() if field != "run.scratch"}


def folders(job: JobSpec, *, cluster: KubernetesSpec) -> Iterator[Caution]:
    """Folders are this machine's; a pod has those that are mounted, and its scratch for as long as it lives."""
    scratch = scratch_folder(job)
    mounted = [volume.mount for volume in cluster.volumes]
    if cluster.scratch not in {"emptyDir", "ephemeral"}:
        mounted.append(scratch)  # a claim of the user's own outlives the pod
    for field, place in places_of(job, base=scratch).items():
        if place.scheme != "file" or any(within(place.name, folder=folder) for folder in mounted):
            continue
        if within(place.name, folder=scratch) and written(field):
            what = f"{place.name} lies on the pod's own scratch, which is gone with the pod: an interrupted run starts anew"
        else:
            what = f"a pod cannot reach the folder {place.name} of this machine"
        yield Caution(field, f"{what}; take s3://, gs:// or hf://, or mount it with run.kubernetes.volumes")
    if job.run.scratch and not scratch.startswith(posixpath.normpath(job.run.scratch.removeprefix("file://"))):
        yield Caution("run.scratch", f"is no absolute path, so the pod's scratch lies at {scratch}")


def within(path: str, *, folder: str) -> bool:
    folder = posixpath.normpath(folder)
    return path == folder or path.startswith(f"{folder}/")


def written(field: str) -> bool:
    return field == "checkpoint.to" or field.startswith("publish.")


def access(job: JobSpec, *, cluster: KubernetesSpec) -> Iterator[Caution]:
    """Who the pod is to the stores that it uses."""
    places = places_of(job, base="/")
    variables = {extra.name for extra in cluster.env}
    buckets = [field for field, place in places.items() if place.scheme in {"s3", "gs"}]
    has_keys = bool(variables & {"AWS_ACCESS_KEY_ID", "AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS"})
    if buckets and cluster.service_account is None and not has_keys:
        yield Caution(
            "run.kubernetes.service_account",
            f"is absent, so the pod is nobody to the bucket of {buckets[0]}, unless the nodes' own identity may use it",
        )
    publishes = [field for field, place in places.items() if place.scheme == "hf" and written(field)]
    if publishes and cluster.hub_token_secret is None:
        yield Caution("run.kubernetes.hub_token_secret", f"is absent, and {publishes[0]} needs a token of the Hub to write")


def machines(job: JobSpec, *, cluster: KubernetesSpec, accelerator: Accelerator) -> Iterator[Caution]:
    if job.run.accelerator is None:
        yield Caution("run.accelerator", "is absent, so the pod gets no GPU and no TPU; write cpu to mean it")
    if cluster.flavor == "generic" and not cluster.node_selector:
        if accelerator.kind == "nvidia" and accelerator.name:
            yield Caution(
                "run.kubernetes.node_selector",
                f"nothing tells an nvidia-{accelerator.name} from other GPUs here; "
                "NVIDIA's operator labels nodes with nvidia.com/gpu.product",
            )
        if job.run.spot:
            yield Caution("run.spot", "nothing tells spot nodes from others here; set run.kubernetes.node_selector or flavor")
    if job.run.spot and grace_s(job.run) > SPOT_GRACE_S.get(cluster.flavor, grace_s(job.run)):
        given = SPOT_GRACE_S[cluster.flavor]
        yield Caution("run.notice_s", f"a spot pod usually gets {given} s here; make sure that the nodes' notice was extended")
    if cluster.tpu_memlock:
        yield Caution(
            "run.kubernetes.tpu_memlock",
            "the namespace must allow SYS_RESOURCE, which Pod Security's baseline and restricted do not; "
            "that a user other than root gets it into effect is unproven on hardware",
        )


def sharing(cluster: KubernetesSpec, *, gang: Gang | None) -> Iterator[Caution]:
    if gang and cluster.scratch not in {"emptyDir", "ephemeral"}:
        yield Caution(
            "run.kubernetes.scratch", f"all pods of the gang share the claim {cluster.scratch}: it must be ReadWriteMany"
        )


def version(job: JobSpec, cluster: KubernetesSpec) -> Iterator[Caution]:
    if cluster.image is None:
        yield Caution(
            "run.kubernetes.image", f"is absent: the cluster must find the image of sdjob {__version__} by its bare name"
        )
    for sentence in unsupported(job):
        field, _, what = sentence.partition(": ")
        yield Caution(field, what)
