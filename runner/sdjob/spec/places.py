"""Places: `hf://owner/name`, `s3://bucket/prefix`, `gs://bucket/prefix`, `file:///abs`, `/abs`, or a relative path. Pure."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sdjob.core.errors import UsageError
from sdjob.spec.problems import nearest_name

Scheme = Literal["file", "s3", "gs", "hf"]
HubKind = Literal["datasets", "models"]
FORMS = (
    "allowed: hf://[datasets/|models/]owner/name[@revision], s3://bucket/prefix, gs://bucket/prefix, "
    "file:///path, /path, or a relative path"
)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; Google's names may hold underscores too
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# https://huggingface.co/docs/huggingface_hub/package_reference/utilities (validate_repo_id), without names that have no owner
HUB_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
REVISION = re.compile(r"[A-Za-z0-9._/-]+")


@dataclass(frozen=True)
class Place:
    """A folder on this machine, a prefix in a bucket, or a repository on the Hub."""

    scheme: Scheme
    name: str
    """file: the absolute path; s3, gs: the bucket; hf: owner/name."""
    prefix: str = ""
    """s3, gs: the key's beginning, without slashes at its ends."""
    revision: str | None = None
    """hf: what stood behind the @."""
    hub_kind: HubKind | None = None
    """hf: what stood before the owner."""

    @property
    def path(self) -> Path:
        """The folder; UsageError where the place is not on this machine."""
        if self.scheme != "file":
            raise UsageError("is not a folder on this machine.", where=self.uri)
        return Path(self.name)

    def on_hub(self, kind: HubKind, *, revision: str | None = None) -> "Place":
        """Where this is a place on the Hub: as a repository of this kind, unless it says its own kind, at this revision,
        unless it says its own, and else at main."""
        if self.scheme != "hf":
            return self
        return replace(self, hub_kind=self.hub_kind or kind, revision=self.revision or revision or "main")

    @property
    def uri(self) -> str:
        """The place's one spelling."""
        if self.scheme == "file":
            return f"file://{self.name}"
        if self.scheme == "hf":
            kind = f"{self.hub_kind}/" if self.hub_kind else ""
            return f"hf://{kind}{self.name}" + (f"@{self.revision}" if self.revision else "")
        return f"{self.scheme}://{self.name}" + (f"/{self.prefix}" if self.prefix else "")


def parse_place(text: str, *, base: Path) -> Place:
    """Any spelling of a place; a relative path starts at `base`. UsageError where it can be no place."""
    if not text.strip() or text != text.strip():
        raise UsageError(f"'{text}' is no place: it is empty or begins or ends with a space; {FORMS}")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise UsageError(f"{text!r} is no place: it holds a control character; {FORMS}")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return folder(text, base=base)
    match scheme:
        case "file":
            return file_uri(rest)
        case "s3" | "gs":
            return bucket(scheme, rest=rest)
        case "hf":
            return hub(rest)
        case _:
            near = nearest_name(scheme, among=("file", "s3", "gs", "hf"))
            hint = f"; did you mean '{near}://'?" if near else ""
            raise UsageError(f"'{scheme}://' is no kind of place; {FORMS}{hint}")


def folder(text: str, *, base: Path) -> Place:
    if text.startswith("~"):
        raise UsageError(f"'{text}': ~ is not filled in here; write ${{HOME}}{text[1:]}")
    return Place("file", os.path.normpath(base / text))


def file_uri(rest: str) -> Place:
    if not rest.startswith("/"):
        raise UsageError(f"'file://{rest}' has no absolute path; write file:///path with three slashes, or the path alone")
    return Place("file", os.path.normpath("/" + rest.lstrip("/")))


def bucket(scheme: Literal["s3", "gs"], *, rest: str) -> Place:
    name, _, prefix = rest.partition("/")
    if not BUCKET.fullmatch(name):
        raise UsageError(f"'{name}' is no name of a bucket: small letters, digits, hyphens and dots; {scheme}://bucket/prefix")
    return Place(scheme, name, "/".join(part for part in prefix.split("/") if part))


def hub(rest: str) -> Place:
    address, at, revision = rest.partition("@")
    parts = address.strip("/").split("/")
    kind: HubKind | None = None
    match parts:
        case ["datasets" | "models" as kind, _, _]:
            parts = parts[1:]
        case [_, _]:
            pass
        case _:
            raise UsageError(f"'hf://{rest}' is no repository; write hf://owner/name, as in hf://CompVis/stable-diffusion-v1-4")
    if not all(HUB_NAME.fullmatch(part) for part in parts):
        raise UsageError(f"'hf://{rest}': an owner and a name on the Hub are letters, digits, '-', '_' and '.'")
    if at and not REVISION.fullmatch(revision):
        raise UsageError(f"'hf://{rest}': behind the @ stands a branch, a tag or a commit")
    return Place("hf", "/".join(parts), revision=revision or None, hub_kind=kind)
