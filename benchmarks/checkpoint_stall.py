"""What a save costs the training: the same steps with no checkpoints, with the usual ways to save, and with ours.

    python benchmarks/checkpoint_stall.py [--mib 200] [--rounds 3] [--saves 4] [--every 60] [--only ARM ...]

All arms run in turn, in one order and then in the other, against one S3 server (SeaweedFS) on this machine; each is a process
of its own. Stall a save = (seconds of the loop with N saves - seconds without) / N, both the medians over the rounds: it counts
the copy, and all that saving beside the training takes away from it, the server's part included; the time in the save itself
counts only what the training stood still for. The server stands for storage elsewhere and has the lowest priority on this
machine; the trainer has one thread. The weights at the end must be the same in all arms, and the bucket must hold every save.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
ARMS = {
    "no_checkpoints": "no checkpoints",
    "torch_save": "torch.save + boto3",
    "accelerate_save_state": "accelerate.save_state + boto3",
    "torch_dcp_async": "torch DCP async_save + boto3",
    "orbax_async": "Orbax AsyncCheckpointer + boto3",
    "sdjob": "sdjob",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=200, help="size of the state: weights and two moments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--saves", type=int, default=4)
    parser.add_argument("--every", type=int, default=60, help="steps between two saves")
    parser.add_argument("--only", action="append", choices=list(ARMS), help="besides no_checkpoints")
    asked = parser.parse_args()
    arms = [arm for arm in ARMS if not asked.only or arm in {"no_checkpoints", *asked.only}]
    sys.path.insert(0, str(TESTS))
    from fakes.servers import start_seaweed  # noqa: PLC0415 (found only now)

    with tempfile.TemporaryDirectory() as folder:
        server = start_seaweed(Path(folder) / "server")
        give_way(server.process.pid)
        try:
            seen: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
            for round_ in range(asked.rounds):
                for arm in arms if round_ % 2 == 0 else reversed(arms):
                    seen[arm].append(measure(arm, asked, server=server, scratch=Path(folder) / "scratch"))
        finally:
            server.kill()
    report(seen, saves=asked.saves)


def give_way(pid: int) -> None:
    """The server stands for storage elsewhere: in every arm it takes only what the training leaves of this machine."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)


def measure(arm: str, asked: argparse.Namespace, *, server: Any, scratch: Path) -> dict[str, Any]:
    bucket = server.new_bucket()
    scratch.mkdir()
    numbers = [f"--{name}={getattr(asked, name)}" for name in ("mib", "every", "saves")]
    os.sync()  # what the arm before has written is not to reach the disk on this one's time
    argv = [sys.executable, str(HERE / "checkpoint_arms.py"), arm, *numbers, f"--uri=s3://{bucket}/run", f"--scratch={scratch}"]
    done = subprocess.run(
        argv, env={**os.environ, **server.environment, "JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, text=True, check=True
    )
    said = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(scratch)
    kept = [entry for page in pages(server, bucket) for entry in page.get("Contents", [])]
    said["stored_mib"] = sum(entry["Size"] for entry in kept) / 2**20
    saves = 0 if arm == "no_checkpoints" else asked.saves - said.get("skipped", 0)
    if said["stored_mib"] < 0.85 * saves * (asked.mib // 3) * 3:  # Orbax compresses
        raise SystemExit(f"{arm} stored {said['stored_mib']:.0f} MiB, less than {saves} saves")
    for entry in kept:
        server.client.delete_object(Bucket=bucket, Key=entry["Key"])
    print(f"{arm}: {said['wall_s']:.1f} s", file=sys.stderr, flush=True)
    return said


def pages(server: Any, bucket: str) -> Any:
    return server.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)


def report(seen: dict[str, list[dict[str, Any]]], *, saves: int) -> None:
    if len({said["digest"] for of_arm in seen.values() for said in of_arm}) != 1:
        raise SystemExit("the arms did not train the same weights")
    wall = {arm: statistics.median(said["wall_s"] for said in of_arm) for arm, of_arm in seen.items()}
    stall = {arm: (wall_s - wall["no_checkpoints"]) / saves for arm, wall_s in wall.items()}
    whole = stall.get("torch_save") or max(stall.values())
    print("| arm | stall a save, s | of torch.save | inside it, s | p99 of a step, ms | drag at 1 a minute | skipped |")
    print("|---|---|---|---|---|---|---|")
    for arm, of_arm in seen.items():
        steps_s = sorted(step_s for said in of_arm for step_s in said["steps_s"])
        p99_ms = 1000 * steps_s[int(0.99 * len(steps_s))]
        inside_s = statistics.median(sum(said["saves_s"]) / saves for said in of_arm)
        skipped = sum(said.get("skipped", 0) for said in of_arm)
        print(
            f"| {ARMS[arm]} | {stall[arm]:.3f} | {100 * stall[arm] / whole:.1f} % | {inside_s:.3f} | {p99_ms:.0f} "
            f"| {100 * stall[arm] / 60:.2f} % | {skipped} |"
        )
    spread = {arm: [round(said["wall_s"], 1) for said in of_arm] for arm, of_arm in seen.items()}
    print(f"seconds of each round: {json.dumps(spread)}")


if __name__ == "__main__":
    main()
