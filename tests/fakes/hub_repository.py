"""Repositories of the Hub's double: commits with parents, branches and tags, small files and LFS files.

An LFS file lies in a commit as a pointer: its blob is the pointer's (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LFS_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".parquet", ".pt")  # of the .gitattributes that repositories are born with
LFS_FROM_BYTES = 10 * 1024 * 1024
BORN_WITH = {".gitattributes": "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()}


def is_lfs(path: str, *, size_bytes: int, sample: bytes) -> bool:
    """How the Hub answers a pre-upload: by name, by size, and for what is no text."""
    return size_bytes > 0 and (path.endswith(LFS_SUFFIXES) or size_bytes > LFS_FROM_BYTES or b"\0" in sample)


def blob_id(data: bytes) -> str:
    """https://git-scm.com/book/en/v2/Git-Internals-Git-Objects"""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class File:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def blob_id(self) -> str:
        return blob_id(self.pointer if self.lfs else self.data)

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id

    def entry(self, path: str) -> dict[str, Any]:
        """As `tree` and `paths-info` tell it."""
        lfs = {"oid": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        return {"type": "file", "path": path, "size": len(self.data), "oid": self.blob_id, **({"lfs": lfs} if self.lfs else {})}


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    files: Mapping[str, File]


@dataclass
class Repository:
    kind: str
    """models or datasets."""
    name: str
    """owner/name."""
    private: bool
    gated: bool
    granted: set[str] = field(default_factory=set)
    """Who has accepted the terms of a gated repository, beside its owner."""
    uploaded: dict[str, bytes] = field(default_factory=dict)
    """LFS content by sha256, committed or not."""
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    def find(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def commit(self, files: Mapping[str, bytes | File], *, title: str, branch: str = "main") -> Commit:
        """The branch's next commit, which has exactly these files."""
        made = {path: content if isinstance(content, File) else self.file(path, content) for path, content in files.items()}
        parent = self.branches.get(branch)
        lines = [str(parent), title, str(len(self.commits)), *(f"{path} {made[path].blob_id}" for path in sorted(made))]
        oid = hashlib.sha1("\n".join(lines).encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, made)
        self.branches[branch] = oid
        return self.commits[oid]

    def file(self, path: str, data: bytes) -> File:
        file = File(data, lfs=is_lfs(path, size_bytes=len(data), sample=data[:512]))
        if file.lfs:
            self.uploaded[file.sha256] = data
        return file

    def history(self, branch: str = "main") -> Iterator[Commit]:
        """Newest first."""
        oid = self.branches.get(branch)
        while oid is not None:
            yield self.commits[oid]
            oid = self.commits[oid].parent


def entries(commit: Commit, *, below: str, recursive: bool) -> list[dict[str, Any]]:
    """A listing: files, and folders as git has them, by name."""
    prefix = f"{below}/" if below else ""
    found: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)) if recursive else range(1, min(2, len(parts))):
            found[prefix + "/".join(parts[:depth])] = folder_entry(prefix + "/".join(parts[:depth]))
        if recursive or len(parts) == 1:
            found[path] = file.entry(path)
    return [found[path] for path in sorted(found)]


def folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}
