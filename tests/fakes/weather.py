"""`sdjob` as a child process that meets something wrong: its exit code, every word that it says, and what lies where afterwards.

Words that differ from run to run (ports, buckets, folders, hashes, times) are replaced by ones that do not, so that the rest can
be a golden file. Of every place that a case has made, each file is compared before and after: nothing may be lost.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fakes.folders import MODEL_FILES, write_files
from fakes.pictures import write_picture_folder
from fakes.running import HANG_S, SDJOB, Ended, Job, Running, set_field, tree

if TYPE_CHECKING:  # the SDKs that servers.py imports are for the tests that use a server
    from fakes.servers import GcsServer, S3Server

GOLDENS = Path(__file__).parent.parent / "golden" / "weather"
# Of this machine's own settings nothing may reach the child, nor may it ask for an instance's metadata.
FOREIGN = re.compile(r"(AWS_|GOOGLE_|GCLOUD_|CLOUDSDK_|STORAGE_|HF_|HUGGING_FACE_|WANDB_|SDJOB_|.*_proxy$)", re.IGNORECASE)
ALONE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
    "NO_GCE_CHECK": "true",
    "HF_HUB_DISABLE_XET": "1",
    "COLUMNS": "100",
}
PLANTED = {
    "HF_TOKEN": "hf_planted0token0planted0token0planted",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/access/key/of/forty/chars",
    "WANDB_API_KEY": "planted0wandb0key0planted0wandb0key0plan",
}
# Written anew by every attempt: where the log ends, and the job as it was resolved.
REWRITTEN = re.compile(r"(.*/)?(hint/head|job\.yaml)")
CHANGING = (
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), "HOST:PORT"),
    (re.compile(r"attempt-(\d+)-[0-9a-f]+"), r"attempt-\1-NONCE"),
    (re.compile(r"aside-new-[0-9a-f]{16}"), "aside-NONCE"),
    (re.compile(r"fetched-[0-9a-f]{16}"), "fetched-NONCE"),
    (re.compile(r"\bdigest [0-9a-f]{12}\b"), "digest DIGEST"),
    (re.compile(r"\b[0-9a-f]{40,64}\b"), "HASH"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "HASH"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "HASH"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), "TIME"),
    (re.compile(r"\b\d+\.\d GiB left|\b\d+\.\d GB are free"), "N left"),
)
# In the middle of a run it is chance whether a save waits for the one before it, and on which object trouble shows first.
CHANCE = {"save-missed"}
ANY_KEY = (re.compile(r"/run/(attempts|blob|log|hint)/[^ :]+"), "/run/KEY")
ANY_STEP = (re.compile(r"\bstep \d+ was not saved"), "step N was not saved")

Contents = Mapping[str, bytes]


@dataclass(frozen=True)
class Told:
    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The last line."""
        return self.stderr.strip().rpartition("\n")[2]


@dataclass
class Weather:
    """A folder in which commands are given, with the places that they meet."""

    folder: Path
    golden: Callable[[Path, str], None]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """On top of a clean one, with secrets planted in it."""

    words: dict[str, str] = field(default_factory=dict[str, str])
    """What differs from run to run, and what is said for it."""

    places: dict[str, Callable[[], Contents]] = field(default_factory=dict[str, Callable[[], Contents]])
    """How to read what lies there; each is watched."""

    def __post_init__(self) -> None:
        (self.folder / "home").mkdir(parents=True)
        self.words[str(self.folder)] = "FOLDER"
        self.places["folder"] = self._own_files

    # ---- what a case meets ---------------------------------------------------------------------------------------------------

    def job(self, **fields: Any) -> str:
        """A small job's file; model and pictures are here, enough for everything before the training. Fields by their paths
        with `__` for the dot; the places are relative to the folder."""
        write_files(MODEL_FILES, self.folder / "model")
        if not (self.folder / "pictures").exists():
            write_picture_folder(self.folder / "pictures", count=3)
        content: dict[str, Any] = {
            "apiVersion": "sdjob/v1",
            "name": "tiny",
            "model": {"source": "model"},
            "data": {"source": "pictures", "resolution": 64},
            "train": {"method": "lora", "steps": 4, "global_batch": 2, "device_batch": 1},
            "checkpoint": {"to": "run"},
            "run": {"accelerator": "cpu:1"},
        }
        for path, value in fields.items():
            set_field(content, path.split("__"), value)
        (self.folder / "job.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return "job.yaml"

    def s3(self, server: "S3Server", *, files: Contents | None = None) -> str:
        """A new bucket, watched."""
        bucket = server.new_bucket()
        for name, data in (files or {}).items():
            server.client.put_object(Bucket=bucket, Key=name, Body=data)
        self.reach(server.environment, bucket=bucket)
        self.places[f"s3://{bucket}"] = lambda: s3_files(server, bucket)
        return bucket

    def gs(self, server: "GcsServer", *, files: Contents | None = None) -> str:
        bucket = server.new_bucket()
        for name, data in (files or {}).items():
            server.put(bucket, name, data)
        self.reach(server.environment, bucket=bucket)
        self.places[f"gs://{bucket}"] = lambda: server.files(bucket)
        return bucket

    def reach(self, environment: Mapping[str, str], *, bucket: str | None = None) -> None:
        self.environment |= environment
        if bucket:
            number = sum(word.startswith("BUCKET") for word in self.words.values())
            self.words[bucket] = f"BUCKET-{number}" if number else "BUCKET"

    def hub(self, hub: Any, *, token: str | None) -> None:
        """Watched as a whole: every commit of every repository, and where the branches stand."""
        self.environment |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token or ""}
        self.words[hub.endpoint] = "http://HUB"
        self.places["hub"] = lambda: hub_files(hub)

    def _own_files(self) -> Contents:
        files = tree(self.folder)
        return {name: data for name, data in files.items() if not name.startswith(("home/", "scratch/"))}

    # ---- what is done --------------------------------------------------------------------------------------------------------

    def sdjob(self, *words: str, hurried: bool = False, without: str = "", inside: tuple[str, ...] = ()) -> Told:
        """The command as a person would give it. hurried: without waiting between two tries. without: packages that are not
        installed. inside: a command that runs the command."""
        verb = [*words[:1], "--log", "text", *words[1:]]
        command = [sys.executable, "-m", "fakes.hurried", *verb] if hurried or without else [str(SDJOB), *verb]
        before = self.contents()
        ended = subprocess.run(
            [*inside, *command], cwd=self.folder, env=self._environment(without), capture_output=True, text=True,
            check=False, timeout=HANG_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told = Told(ended.returncode, ended.stdout, ended.stderr)
        self.nothing_is_lost(before, told)
        self.no_secret(told)
        assert "Traceback" not in told.stderr, told.stderr
        return told

    def run(self, *words: str, **how: Any) -> Told:
        return self.sdjob("run", "job.yaml", *words, **how)

    def start(self, *, inside: tuple[str, ...] = ()) -> Running:
        """A run to be watched, which says in JSON what it does."""
        command = [*inside, str(SDJOB), "run", "--log", "json", "job.yaml"]
        return Running.begin(command, folder=self.folder, environment=self._environment(""))

    def told_by(self, ended: Ended) -> Told:
        """Of a run that was watched: what it warned of, and how it ended."""
        spoken = [event for event in ended.events if event["event"] == "error" or event.get("level") == "warning"]
        spoken = [event for event in spoken if event["event"] not in CHANCE]
        lines = [f"{'sdjob' if event['event'] == 'error' else 'warning'}: {event['message']}\n" for event in spoken]
        for pattern, word in (ANY_KEY, ANY_STEP):
            lines = [pattern.sub(word, line) for line in lines]
        told = Told(ended.code, "", "".join(dict.fromkeys(lines)))
        self.no_secret(Told(ended.code, "", ended.output))
        assert "Traceback" not in ended.output, ended.output
        return told

    def take_over(self, done: Job, **fields: Any) -> None:
        """A finished run's own place, copied here, under the same job with other fields."""
        shutil.copytree(done.to, self.folder / "run")
        content = yaml.safe_load(done.file.read_text())
        for path, value in {"checkpoint__to": "run", **fields}.items():
            set_field(content, path.split("__"), value)
        (self.folder / "job.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def says(self, name: str, told: Told, *, code: int, stdout: str = "") -> None:
        """The golden file of a case: its exit code, and every word. `stdout`: what of it belongs to that."""
        assert told.code == code, told.stderr
        self.golden(GOLDENS / f"{name}.txt", self.golden_text(told, stdout=stdout))

    def contents(self) -> dict[str, bytes]:
        return {f"{place}: {name}": data for place, read in self.places.items() for name, data in read().items()}

    def golden_text(self, told: Told, *, stdout: str = "") -> str:
        text = f"exit {told.code}\n{stdout}{told.stderr}"
        for word in sorted(self.words, key=len, reverse=True):
            text = text.replace(word, self.words[word])
        for pattern, word in CHANGING:
            text = pattern.sub(word, text)
        return text

    def _environment(self, without: str) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
        own = {"HOME": str(self.folder / "home"), "SDJOB_SCRATCH": str(self.folder / "scratch"), "WITHOUT": without}
        paths = {"PYTHONPATH": str(Path(__file__).parent.parent)}
        everything = {**mine, **ALONE, **PLANTED, **own, **paths, **self.environment}
        return {name: value for name, value in everything.items() if value}

    def nothing_is_lost(self, before: Contents, told: Told) -> None:
        """What lay anywhere before lies there still, byte for byte."""
        after = self.contents()
        kept = {name for name in before if not REWRITTEN.fullmatch(name.partition(": ")[2])}
        lost = sorted(name for name in kept if after.get(name) != before[name])
        assert not lost, f"lost or changed: {lost}; {told}"

    def no_secret(self, told: Told) -> None:
        """None of the environment's, and none that was planted there, in anything that was said or written."""
        environment = self._environment("")
        names = [name for name in environment if re.search("TOKEN|SECRET|API_KEY|ACCESS_KEY", name)]
        secrets = {environment[name] for name in names} | set(PLANTED.values())
        written = {"stdout": told.stdout.encode(), "stderr": told.stderr.encode(), **tree(self.folder), **self.contents()}
        loose = [name for name, data in written.items() if any(secret.encode() in data for secret in secrets)]
        assert not loose, f"a secret is in {loose}"


def s3_files(server: "S3Server", bucket: str) -> Contents:
    pages = server.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: server.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def hub_files(hub: Any) -> Contents:
    """Commits stay for good; what a branch names may only go forward."""
    with hub.lock:
        return {
            f"{kind}/{name}/{oid}/{path}": file.data
            for (kind, name), repository in hub.repositories.items()
            for oid, commit in repository.commits.items()
            for path, file in commit.files.items()
        }


# ---- mounts that only the child sees, and that go with it ------------------------------------------------------------------


def read_only(folder: Path) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def small_disk(folder: Path, *, size_kib: int) -> str:
    return f"mount -t tmpfs -o size={size_kib}k tmpfs {folder}"


def inside_mounts(*mounts: str) -> tuple[str, ...]:
    """Root may mount in a namespace of its own; anybody else first has to be its root."""
    return ("unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]),
            "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh")  # fmt: skip
