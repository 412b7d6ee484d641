"""Two hosts of four devices train as one of eight, stop after the same step, and do not wait for one that is gone."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from fakes.flax_gang import make_gang_task, run_gang

TRAIN = {
    "global_batch": 16,
    "device_batch": 1,
    "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6, "max_grad_norm": 0.01},
    "schedule": {"name": "constant_with_warmup", "warmup_steps": 3},
    "ema": {"decay": 0.6},
}
STEPS = 4
FILES = ("weights.safetensors", "optimizer.safetensors", "ema.safetensors")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gang")
    validation = {"prompts": ["a red circle"], "images": 1, "inference_steps": 2, "every_steps": STEPS}
    task = make_gang_task(folder, method="full", train=TRAIN, run={"workers": 1}, validation=validation)
    (folder / "compiled").mkdir()
    return replace(task, total_steps=STEPS, compiled=folder / "compiled")


@pytest.fixture(scope="module")
def two_hosts(task):
    """(scratch, ranks) of a straight run."""
    scratch = task.scratch / "2x4"
    return scratch, run_gang(replace(task, scratch=scratch), num_processes=2, devices=4)


def saved(scratch, *, step):
    folder = scratch / "snapshots" / f"{step:08d}"
    return {name: values for file in FILES for name, values in load_file(folder / file).items()}


def norm(tensors):
    return math.sqrt(sum(float(values.double().square().sum()) for values in tensors))


def test_each_says_its_part(two_hosts):
    _, (first, second) = two_hosts
    assert [rank.child.exit_code for rank in (first, second)] == [0, 0], first.messages[-1]
    assert (first.messages[-1]["event"], second.messages[-1]["event"]) == ("finished", "finished")
    assert [message["step"] for message in first.of("metrics")] == [1, 2, 3, 4]
    assert {message["event"] for message in second.messages} == {"imported", "ready", "compiled", "finished"}
    assert not any(message["new"] or message["read"] for rank in (first, second) for message in rank.of("compiled"))
    fingerprint = first.of("ready")[0]["fingerprint"]
    assert (fingerprint["devices"], fingerprint["hosts"]) == (8, 2)


def test_they_train_as_one(task, two_hosts):
    scratch, (first, _) = two_hosts
    alone_scratch = task.scratch / "1x8"
    (alone,) = run_gang(replace(task, scratch=alone_scratch), num_processes=1, devices=8)
    assert alone.child.exit_code == 0, alone.messages[-1]
    for theirs, ours in zip(alone.of("metrics"), first.of("metrics"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    wanted, found = saved(alone_scratch, step=STEPS), saved(scratch, step=STEPS)
    assert found.keys() == wanted.keys()
    base = load_file(task.model / "unet" / "diffusion_pytorch_model.safetensors")
    weights = [f"unet.{name}" for name in base]
    update = norm(wanted[name] - base[name.removeprefix("unet.")] for name in weights)
    assert update > 0
    assert norm(found[name] - wanted[name] for name in weights) <= 1e-3 * update
    assert norm(found[f"ema.{name}"] - wanted[f"ema.{name}"] for name in weights) <= 1e-3 * update
    for kind in ("m", "v"):
        moments = [f"optimizer.{kind}.{name}" for name in weights]
        assert norm(found[name] - wanted[name] for name in moments) <= 1e-3 * norm(wanted[name] for name in moments)
    ours, theirs = (np.asarray(Image.open(next(folder.rglob("00-00.png"))), np.int16) for folder in (scratch, alone_scratch))
    assert abs(ours - theirs).max() <= 1


def test_one_that_is_asked_stops_them_all_and_they_go_on_bit_for_bit(task, two_hosts):
    """Only the second is asked, before its first step."""
    straight, _ = two_hosts

    def ask(ranks, rank, message):
        if rank is ranks[1] and message["event"] == "ready":
            rank.child.channel.send({"event": "stop"})

    scratch = task.scratch / "stopped"
    ranks = run_gang(replace(task, scratch=scratch), num_processes=2, devices=4, on_message=ask)
    assert [rank.child.exit_code for rank in ranks] == [0, 0]
    assert [rank.messages[-1]["event"] for rank in ranks] == ["stopped", "stopped"]
    (snapshot,) = ranks[0].of("snapshot")
    assert snapshot["step"] < STEPS
    again = replace(
        task, scratch=task.scratch / "again", start_step=snapshot["step"],
        restore_from=scratch / "snapshots" / f"{snapshot['step']:08d}",
    )  # fmt: skip
    assert [rank.child.exit_code for rank in run_gang(again, num_processes=2, devices=4)] == [0, 0]
    wanted, found = saved(straight, step=STEPS), saved(again.scratch, step=STEPS)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not wanted[name].equal(found[name])] == []


def test_one_that_is_gone_ends_the_others(task):
    """With 71 and its sentence, or by the watchdog of jax's own service, where the threads of some devices are still waiting for
    each other: the parents take either for a lost peer (tests/unit/job/test_gang.py, nodes/test_peers.py)."""

    def kill(ranks, rank, message):
        if rank is ranks[0] and message["event"] == "metrics" and message["step"] == 1:
            ranks[1].child.process.kill()

    ranks = run_gang(replace(task, scratch=task.scratch / "gone", total_steps=500), num_processes=2, devices=4, on_message=kill)
    assert ranks[1].child.exit_code == -signal.SIGKILL
    assert ranks[0].child.exit_code in {71, -signal.SIGABRT}
    if ranks[0].child.exit_code == 71:
        assert (ranks[0].messages[-1]["event"], ranks[0].messages[-1]["exit_code"]) == ("failed", 71)
        assert "another host is gone" in ranks[0].messages[-1]["what"]
