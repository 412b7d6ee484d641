"""`run.kubernetes`: what the manifests for a cluster need to know beyond the accelerator."""

from typing import Literal

from pydantic import Field

from sdjob.spec.flavor import Flavor
from sdjob.spec.part import Part

METRICS_PORT = 9464  # the OpenTelemetry exporter's: https://opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/prometheus/
LARGEST_GIB = 100_000  # more is a slip


class VolumeSpec(Part):
    """A volume of the user's; exactly one of claim, secret, config_map, empty_dir_gib and csi says what it is."""

    name: str
    """The volume's name, a DNS label."""
    mount: str
    """The folder where the container sees it."""
    read_only: bool = False
    """Whether the container may only read it."""
    claim: str | None = None
    """A PersistentVolumeClaim."""
    secret: str | None = None
    """A Secret, each key a file."""
    config_map: str | None = None
    """A ConfigMap, each key a file."""
    empty_dir_gib: int | None = Field(default=None, ge=1, le=LARGEST_GIB)
    """An empty folder of this size, gone with the pod."""
    csi: str | None = None
    """A CSI driver that mounts while the pod lives, as gcsfuse.csi.storage.gke.io."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """What the CSI driver wants to know, as {bucketName: my-bucket}."""


class EnvSpec(Part):
    """A variable of the container's environment: a value, or a key of a Secret or ConfigMap."""

    name: str
    """The variable's name."""
    value: str | None = None
    """The value itself; never a secret, since manifests are stored."""
    secret: str | None = None
    """The Secret that holds the value."""
    config_map: str | None = None
    """The ConfigMap that holds the value."""
    key: str | None = None
    """The key within the Secret or ConfigMap."""


class TolerationSpec(Part):
    """A taint of nodes that the pods may run on all the same."""

    key: str | None = None
    """The taint's key; absent: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value counts."""
    value: str | None = None
    """The taint's value, with Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent: all of them."""


class KubernetesSpec(Part):
    """What the manifests for a cluster need to know beyond the accelerator."""

    flavor: Flavor = "generic"
    """Whose cluster it is: decides labels, tolerations and the spot notice. eks has Karpenter, eks-managed node groups."""
    namespace: str = Field(default="default", min_length=1, max_length=63)
    """The namespace of all objects."""
    service_account: str | None = None
    """The service account that carries the identity in the cloud."""
    queue: str | None = None
    """The Kueue queue that admits the job."""
    queue_priority: str | None = None
    """Kueue's WorkloadPriorityClass: who waits for whom; priority_class is about pods that run."""
    image: str | None = None
    """The container image, best by digest; absent: the image of this version."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets with which the image is pulled."""
    metrics: bool = False
    """Serve metrics for Prometheus."""
    cpus: float | None = Field(default=None, gt=0, le=1024)
    """Cores for one pod; absent: a few for each device."""
    memory_gib: int | None = Field(default=None, ge=1, le=LARGEST_GIB)
    """Memory of one pod in GiB, request and limit, shm_gib included; absent: by method and devices."""
    shm_gib: int | None = Field(default=None, ge=1, le=LARGEST_GIB)
    """Size of /dev/shm in GiB; absent: one for each device."""
    scratch: str = "emptyDir"
    """emptyDir, ephemeral (a generic ephemeral volume), or the name of a volume claim."""
    scratch_gib: int | None = Field(default=None, ge=1, le=LARGEST_GIB)
    """Size of the scratch volume in GiB; absent: by method."""
    storage_class: str | None = None
    """The storage class of an ephemeral scratch volume."""
    deadline_hours: float | None = Field(default=None, gt=0)
    """A hard limit that counts waiting for capacity too; `run.max_hours` is usually what is wanted."""
    ttl_hours: float = Field(default=168, ge=0)
    """How long finished objects stay to be looked at; the run's own record stays at checkpoint.to."""
    hub_token_secret: str | None = None
    """The Kubernetes secret whose key `token` holds the Hub's token."""
    runtime_class: str | None = None
    """The pod's runtimeClassName."""
    priority_class: str | None = None
    """The pod's priorityClassName."""
    run_as_user: int = Field(default=65532, ge=1, le=2**31 - 1)
    """The user id of the container; never root."""
    labels: dict[str, str] = Field(default_factory=dict)
    """More labels for the objects and pods."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """More annotations for the pods."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """More labels that the nodes must have."""
    tolerations: tuple[TolerationSpec, ...] = ()
    """More taints that the pods tolerate."""
    env: tuple[EnvSpec, ...] = ()
    """More variables for the container."""
    volumes: tuple[VolumeSpec, ...] = ()
    """More volumes for the container."""
    tpu_memlock: bool = False
    """Add SYS_RESOURCE to raise a TPU pod's memlock limit; the namespace must allow it."""
