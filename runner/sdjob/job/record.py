"""sdjob.json: what a published folder says of itself. Written last, so where it stands the folder is whole."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sdjob.spec.job import JobSpec
from sdjob.spec.load import resolved_json
from sdjob.spec.places import parse_place
from sdjob.store.patient import PatientStore

RECORD_NAME = "sdjob.json"
PUBLIC_PARTS = ("model", "data", "train")
PLACES = (("model", "source"), ("model", "vae"), ("train", "init_from"))
DATA_PLACES = (("data", "source"), ("data", "prior", "source"), ("data", "held_out", "source"))


@dataclass(frozen=True)
class PublishedFile:
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Publication:
    """What is published, beside the files themselves."""

    digest: str
    """The checkpoint's."""

    identity: str
    """The same for every step of one run, another for any other run: who may update what lies there without `replace`."""

    step: int
    job: Mapping[str, Any]
    """As `public_job` makes it."""

    versions: Mapping[str, str]
    """Of sdjob, torch, diffusers and so on."""


@dataclass(frozen=True)
class Record:
    """An sdjob.json that a place holds; all empty where it cannot be read, so that it is nobody's."""

    digest: str = ""
    identity: str = ""
    step: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])


def public_job(job: JobSpec) -> dict[str, Any]:
    """The job's model, data and train parts; of a place that is not on the Hub only its scheme."""
    resolved: dict[str, Any] = json.loads(resolved_json(job))
    parts: dict[str, Any] = {part: resolved[part] for part in PUBLIC_PARTS}
    several = tuple(("data", "sources", number, "source") for number in range(len(job.data.sources)))
    for *way, last in (*PLACES, *DATA_PLACES, *several):
        holder: Any = parts
        for name in way:
            holder = holder[name] if holder else None
        if holder and holder.get(last):
            holder[last] = public_place(holder[last])
    return {"apiVersion": resolved["apiVersion"], **parts}


def public_place(text: str) -> str:
    place = parse_place(text, base=Path("/"))
    return place.uri if place.scheme == "hf" else f"{place.scheme}://..."


def record_bytes(publication: Publication, *, files: Mapping[str, PublishedFile]) -> bytes:
    content = {
        "digest": publication.digest,
        "identity": publication.identity,
        "step": publication.step,
        "job": publication.job,
        "versions": dict(publication.versions),
        "files": {name: {"size_bytes": file.size_bytes, "sha256": file.sha256} for name, file in files.items()},
    }
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_record(store: PatientStore) -> Record:
    try:
        return parsed(json.loads(store.read(RECORD_NAME)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Record()


def parsed(content: Any) -> Record:
    files = cast("dict[str, dict[str, Any]]", content["files"])
    return Record(
        digest=str(content["digest"]),
        identity=str(content["identity"]),
        step=int(content["step"]),
        sizes={str(name): int(file["size_bytes"]) for name, file in files.items()},
    )
