"""Names, labels, variables, volumes and tolerations that a pod can have."""

import posixpath
import re
from collections.abc import Iterator

from sdjob.core.log import SECRET_NAME
from sdjob.spec.job import JobSpec
from sdjob.spec.kubernetes import EnvSpec, KubernetesSpec, TolerationSpec, VolumeSpec
from sdjob.spec.problems import FieldPath, Finding, at

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(rf"(?=.{{1,253}}$){DNS_LABEL.pattern}(\.{DNS_LABEL.pattern})*")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
QUALIFIED = re.compile(rf"((?P<prefix>{SUBDOMAIN.pattern})/)?[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

OURS = ("app.kubernetes.io", "sdjob")  # prefixes of the labels by which sdjob finds its objects
OUR_VARIABLES = re.compile(r"SDJOB_.*|HF_TOKEN|HOME|HF_HOME|XDG_CACHE_HOME|TRITON_CACHE_DIR|TORCHINDUCTOR_CACHE_DIR")
OUR_FOLDERS = ("/dev/shm", "/etc/sdjob", "/scratch", "/tmp")  # noqa: S108  mounts of a pod
OUR_VOLUMES = ("job", "scratch", "shm", "tmp")
SOURCES = ("claim", "secret", "config_map", "empty_dir_gib", "csi")


def names(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    if cluster is None:
        return
    labels = {"namespace": cluster.namespace, "queue": cluster.queue, "scratch": cluster.scratch}
    subdomains = {
        "service_account": cluster.service_account,
        "queue_priority": cluster.queue_priority,
        "storage_class": cluster.storage_class,
        "hub_token_secret": cluster.hub_token_secret,
        "runtime_class": cluster.runtime_class,
        "priority_class": cluster.priority_class,
        **{f"image_pull_secrets.{number}": name for number, name in enumerate(cluster.image_pull_secrets)},
    }
    for pattern, fields in ((DNS_LABEL, labels), (SUBDOMAIN, subdomains)):
        for field, text in fields.items():
            if text is not None and text != "emptyDir" and not pattern.fullmatch(text):
                yield Finding(at(f"run.kubernetes.{field}"), no_name(text))
    if cluster.image is not None and (not cluster.image.strip() or re.search(r"\s", cluster.image)):
        yield Finding(
            at("run.kubernetes.image"), f"'{cluster.image}' is no image", "allowed: REGISTRY/NAME:TAG or NAME@sha256:..."
        )


def no_name(text: str) -> str:
    return f"'{text}' is no name in Kubernetes: small letters, digits and hyphens"


def labels(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    if cluster is None:
        return
    for field, given, free_values in (
        ("labels", cluster.labels, False),
        ("annotations", cluster.annotations, True),
        ("node_selector", cluster.node_selector, False),
    ):
        for key, value in given.items():
            path = (*at(f"run.kubernetes.{field}"), key)
            match = QUALIFIED.fullmatch(key)
            if match is None:
                yield Finding(path, f"'{key}' is no key: [prefix/]name with letters, digits, '-', '_' and '.'")
            elif match["prefix"] in OURS and field != "node_selector":
                yield Finding(path, f"{match['prefix']}/... are sdjob's own", "take another prefix")
            elif not free_values and not LABEL_VALUE.fullmatch(value):
                yield Finding(path, f"'{value}' is no label's value: at most 63 letters, digits, '-', '_' and '.'")


def variables(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    seen: set[str] = set()
    for number, variable in enumerate(cluster.env if cluster else ()):
        path = at(f"run.kubernetes.env.{number}")
        if not VARIABLE.fullmatch(variable.name):
            yield Finding((*path, "name"), f"'{variable.name}' is no variable: letters, digits and underscores")
        elif OUR_VARIABLES.fullmatch(variable.name):
            yield Finding((*path, "name"), f"{variable.name} is set by sdjob", "hub_token_secret and scratch are fields")
        elif variable.name in seen:
            yield Finding((*path, "name"), f"{variable.name} stands here twice")
        else:
            yield from value_of(variable, path=path)
        seen.add(variable.name)


def value_of(variable: EnvSpec, *, path: FieldPath) -> Iterator[Finding]:
    given = [name for name in ("value", "secret", "config_map") if getattr(variable, name) is not None]
    if len(given) != 1:
        yield Finding(path, f"{variable.name} needs exactly one of value, secret and config_map, and has {counted(given)}")
    elif given == ["value"] and SECRET_NAME.search(variable.name):
        what = f"{variable.name} looks like a secret by its name, and manifests are stored"
        yield Finding((*path, "value"), what, "put it into a Secret: {name: ..., secret: NAME, key: KEY}")
    elif (variable.key is None) != (given == ["value"]):
        yield Finding(path, "key goes with secret and config_map, and is required there")


def counted(given: list[str]) -> str:
    return " and ".join(given) or "none"


def volumes(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    if cluster is None:
        return
    taken: dict[str, str] = dict.fromkeys(OUR_VOLUMES, "sdjob's own")
    for number, volume in enumerate(cluster.volumes):
        path = at(f"run.kubernetes.volumes.{number}")
        if not DNS_LABEL.fullmatch(volume.name):
            yield Finding((*path, "name"), no_name(volume.name))
        elif volume.name in taken:
            yield Finding((*path, "name"), f"'{volume.name}' is {taken[volume.name]}", "take another name")
        taken[volume.name] = "the name of another volume"
        yield from source_of(volume, path=path)
        yield from mount_of(volume, path=path, cluster=cluster, number=number)


def source_of(volume: VolumeSpec, *, path: FieldPath) -> Iterator[Finding]:
    given = [name for name in SOURCES if getattr(volume, name) is not None]
    if len(given) != 1:
        yield Finding(path, f"needs exactly one of {', '.join(SOURCES)}, and has {counted(given)}")
    elif volume.attributes and volume.csi is None:
        yield Finding((*path, "attributes"), "are for a CSI driver, and csi names none")
    for field in ("claim", "secret", "config_map"):
        name = getattr(volume, field)
        if name is not None and not SUBDOMAIN.fullmatch(name):
            yield Finding((*path, field), no_name(name))


def mount_of(volume: VolumeSpec, *, path: FieldPath, cluster: KubernetesSpec, number: int) -> Iterator[Finding]:
    others = [*OUR_FOLDERS, *(other.mount for other in cluster.volumes[:number])]
    folder = posixpath.normpath(volume.mount)
    if not volume.mount.startswith("/") or ":" in volume.mount or folder == "/":
        yield Finding((*path, "mount"), f"'{volume.mount}' is no folder of a container", "allowed: an absolute path below /")
    elif any(folder == other or folder.startswith(f"{other}/") or other.startswith(f"{folder}/") for other in others):
        yield Finding((*path, "mount"), f"'{volume.mount}' overlaps another mount", f"taken: {', '.join(others)}")


def tolerations(job: JobSpec) -> Iterator[Finding]:
    cluster = job.run.kubernetes
    for number, toleration in enumerate(cluster.tolerations if cluster else ()):
        if what := wrong_with(toleration):
            yield Finding(at(f"run.kubernetes.tolerations.{number}"), what)


def wrong_with(toleration: TolerationSpec) -> str | None:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    if toleration.operator == "Exists" and toleration.value is not None:
        return "Exists takes no value; Equal does"
    if toleration.key is None and toleration.operator != "Exists":
        return "without a key the operator must be Exists"
    if toleration.key is not None and not QUALIFIED.fullmatch(toleration.key):
        return f"'{toleration.key}' is no key of a taint"
    return None
