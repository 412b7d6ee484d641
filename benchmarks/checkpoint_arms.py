"""One arm of checkpoint_stall.py: trains a state of the given size, saves it in one way, and prints what it took as JSON.

A step is a matrix product and torch's own AdamW over the whole state; every arm trains the same numbers.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdjob.core.channel import inherited_channel
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log
from sdjob.core.proc import start
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

SIDE, PRODUCT_SIDE, PRODUCTS = 512, 768, 8  # a tensor of the state is 1 MiB
STATES = 3  # weights and two moments


class Work(nn.Module):
    """The trainable state and a step of work on it."""

    def __init__(self, *, mib: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights = nn.ParameterDict({f"w{number:04d}": torch.randn(SIDE, SIDE) for number in range(mib // STATES)})
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)
        self.product = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE) / PRODUCT_SIDE**0.5

    def step(self) -> None:
        for _ in range(PRODUCTS):
            self.product = torch.tanh(self.product @ self.product)
        self.optimizer.step()

    def digest(self) -> str:
        hasher = hashlib.sha256()
        for parameter in self.parameters():
            hasher.update(parameter.detach().numpy().tobytes())
        return hasher.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """Live ones, not copies."""
        found = {}
        for name, parameter in self.weights.items():
            slots = self.optimizer.state[parameter]
            found |= {name: parameter.detach(), f"m.{name}": slots["exp_avg"], f"v.{name}": slots["exp_avg_sq"]}
        return found


class Bucket:
    """Uploads as a script does: boto3's own transfer manager."""

    def __init__(self, uri: str) -> None:
        import boto3  # noqa: PLC0415 (not every arm's)

        self.client = boto3.client("s3")
        self.bucket, _, self.prefix = uri.removeprefix("s3://").partition("/")

    def upload(self, path: Path) -> None:
        files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
        for file in files:
            self.client.upload_file(str(file), self.bucket, f"{self.prefix}/{path.name}/{file.relative_to(path.parent)}")


# ---- the arms: each is called with a step, then told the end ---------------------------------------------------------------

Save = Callable[[int], None]
Finish = Callable[[], None]


def no_checkpoints(_work: Work, _uri: str, _scratch: Path) -> tuple[Save, Finish]:
    return lambda _step: None, lambda: None


def torch_save(work: Work, uri: str, scratch: Path) -> tuple[Save, Finish]:
    bucket = Bucket(uri)

    def save(step: int) -> None:
        path = scratch / f"{step}.pt"
        torch.save({"model": work.state_dict(), "optimizer": work.optimizer.state_dict()}, path)
        bucket.upload(path)
        path.unlink()

    return save, lambda: None


def accelerate_save_state(work: Work, uri: str, scratch: Path) -> tuple[Save, Finish]:
    from accelerate import Accelerator  # noqa: PLC0415 (not every arm's)

    bucket, accelerator = Bucket(uri), Accelerator(cpu=True)
    accelerator.prepare(work, work.optimizer)

    def save(step: int) -> None:
        path = scratch / f"checkpoint-{step}"
        accelerator.save_state(str(path))
        bucket.upload(path)
        shutil.rmtree(path)

    return save, lambda: None


class InBackground:
    """A rival's own asynchronous save to a folder, then the upload in a thread; the next save waits for the one before."""

    def __init__(self, uri: str) -> None:
        self.bucket = Bucket(uri)
        self.thread: threading.Thread | None = None

    def follow(self, wait: Callable[[], object], path: Path) -> None:
        def work() -> None:
            wait()
            self.bucket.upload(path)
            shutil.rmtree(path)

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def finish(self) -> None:
        if self.thread is not None:
            self.thread.join()


def torch_dcp_async(work: Work, uri: str, scratch: Path) -> tuple[Save, Finish]:
    import torch.distributed.checkpoint as dcp  # noqa: PLC0415 (not every arm's)

    after = InBackground(uri)

    def save(step: int) -> None:
        after.finish()
        path = scratch / f"dcp-{step}"
        done = dcp.async_save(work.tensors(), checkpoint_id=str(path), no_dist=True)
        after.follow(done.result, path)

    return save, after.finish


def orbax_async(work: Work, uri: str, scratch: Path) -> tuple[Save, Finish]:
    import orbax.checkpoint as ocp  # noqa: PLC0415 (not every arm's)

    after, checkpointer = InBackground(uri), ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def save(step: int) -> None:
        after.finish()
        path = scratch / f"orbax-{step}"
        # Orbax does not copy what is on the host already.
        checkpointer.save(path, args=ocp.args.StandardSave({name: t.numpy().copy() for name, t in work.tensors().items()}))
        after.follow(checkpointer.wait_until_finished, path)

    return save, after.finish


def sdjob_trainer(work: Work, _uri: str, scratch: Path) -> tuple[Save, Finish]:
    """The trainer's side: the project's own Saver and snapshot, with the parent at the other end of the channel."""
    from sdjob.link import Link  # noqa: PLC0415 (not every arm's)
    from sdjob.loop import LoopPlan, Saver, StepMetrics  # noqa: PLC0415 (not every arm's)
    from sdjob.train_torch.state import TrainState, snapshot  # noqa: PLC0415 (not every arm's)

    channel = inherited_channel()
    assert channel is not None
    link = Link(channel, on_parent_gone=lambda: os._exit(70))
    link.start()
    plan = LoopPlan(0, 1 << 30, 1, None, None, None, scratch, num_ranks=1, is_main=True)
    saver = Saver(plan, link, SystemClock(), last_step=0, last_time_s=time.monotonic())
    state = TrainState(dict(work.weights.items()), work.optimizer, ema=None, scaler=None)
    state.reserve()  # as after a job's first step
    metrics = StepMetrics(loss=0.0, grad_norm=0.0, learning_rate=1e-3, stop=False)

    def save(step: int) -> None:
        saver.save(lambda: snapshot(state, scalars={}), step=step, metrics=metrics, must=False)

    return save, saver.finish


ARMS = {
    arm.__name__: arm for arm in (no_checkpoints, torch_save, accelerate_save_state, torch_dcp_async, orbax_async, sdjob_trainer)
}


def train(arm: str, *, mib: int, every: int, saves: int, uri: str, scratch: Path) -> dict[str, Any]:
    """Seconds of the loop from its first step to its last, of each step with its save, of each save alone, and of what was
    waited for afterwards."""
    torch.set_num_threads(1)
    work = Work(mib=mib)
    work.step()  # AdamW makes its moments
    save, finish = ARMS[arm](work, uri, scratch)
    steps_s, saves_s = [], []
    began_s = time.perf_counter()
    for step in range(1, (saves + 1) * every + 1):
        step_began_s = time.perf_counter()
        work.step()
        if step % every == 0 and step <= saves * every:
            save_began_s = time.perf_counter()
            save(step)
            saves_s.append(time.perf_counter() - save_began_s)
        steps_s.append(time.perf_counter() - step_began_s)
    wall_s = time.perf_counter() - began_s
    finish()
    drain_s = time.perf_counter() - began_s - wall_s
    return {"wall_s": wall_s, "steps_s": steps_s, "saves_s": saves_s, "drain_s": drain_s, "digest": work.digest()}


def sdjob(uri: str, *, argv: list[str]) -> dict[str, Any]:
    """The parent's side, as `sdjob run` has it: it hashes, uploads and commits in a process of its own."""
    from sdjob.ckpt.engine import CommitLog  # noqa: PLC0415 (only the parent's)
    from sdjob.job.saves import Save, Saves  # noqa: PLC0415
    from sdjob.job.stop import StopRequest  # noqa: PLC0415
    from sdjob.ledger.write import LedgerWriter  # noqa: PLC0415

    clock, log = SystemClock(), Log(mode="text", secrets=())
    store = open_store(parse_place(uri, base=Path.cwd()))
    commits = CommitLog(store, clock=clock, log=log, keep=1000)
    claim = commits.claim(attempt="benchmark", host="benchmark")
    child = start([sys.executable, __file__, "sdjob_trainer", *argv], environment=os.environ)
    saves = Saves(
        commits, LedgerWriter(store, attempt=claim.epoch, clock=clock), StopRequest(clock, notice_s=60), clock, log,
        on_over=lambda step: child.channel.send({"event": "save-over", "step": step}) and None, on_failure=child.kill,
    )  # fmt: skip
    saves.start()
    said: dict[str, Any] = {"skipped": 0}
    for message in child.channel:
        if message["event"] == "snapshot":
            saves.put(
                Save(message["step"], Path(message["folder"]), {"loss": 0.0, "grad_norm": 0.0}, message["stall_s"], final=False)
            )
        elif message["event"] == "save-skipped":
            said["skipped"] += 1
        elif message["event"] == "over":
            said |= message["said"]
    saves.finish()
    if saves.failure is not None:
        raise saves.failure
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", choices=["sdjob", *ARMS])
    for name in ("mib", "every", "saves"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    asked = parser.parse_args()
    if asked.arm == "sdjob":
        print(json.dumps(sdjob(asked.uri, argv=sys.argv[2:])))
        return
    said = train(**vars(asked))
    channel = inherited_channel() if asked.arm == "sdjob_trainer" else None
    if channel is None:
        print(json.dumps(said))
    else:
        channel.send({"event": "over", "said": said})


if __name__ == "__main__":
    main()
