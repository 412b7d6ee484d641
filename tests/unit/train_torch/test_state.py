"""Snapshot, files, restore: every tensor and count comes back bit for bit, and so does the next step."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes.running import HANG_S
from fakes.torch_runs import make_micro, make_task, make_trainer, randomize
from sdjob.core.errors import UnsoundError
from sdjob.train_torch import arena as arenas
from sdjob.train_torch.arena import Arena
from sdjob.train_torch.ema import OffloadedAverage

CASES = [("lora", "fp32"), ("lora", "bf16"), ("full", "fp32"), ("full", "bf16")]
TRAIN = {"optimizer": {"learning_rate": 1e-3}, "ema": {"decay": 0.9}}


def run(trainer, *, start, stop):
    """The last step's metrics."""
    for step in range(start, stop):
        micros = [make_micro(trainer.task, step=step, rows=rows) for rows in (range(2), range(2, 4))]
        metrics = trainer.step(micros, step=step, stop_wanted=False).read()
    return metrics


def saved(trainer, folder, *, metrics, step):
    folder.mkdir()
    trainer.snapshot(step=step, metrics=metrics).write_into(folder)
    return folder


def everything(folder):
    """Every tensor's bytes of a checkpoint, and its scalars."""
    tensors = {
        (file.name, name): values.numpy().tobytes()
        for file in folder.glob("*.safetensors")
        for name, values in load_file(file).items()
    }
    return tensors, json.loads((folder / "state.json").read_text())


@pytest.mark.parametrize(("method", "precision"), CASES)
def test_a_resumed_run_is_the_straight_one_bit_for_bit(sd1, tmp_path, method, precision):
    task = make_task(sd1, method=method, train={**TRAIN, "precision": precision})
    straight = make_trainer(task)
    at_2 = saved(straight, tmp_path / "2", metrics=run(straight, start=0, stop=2), step=2)
    at_4 = saved(straight, tmp_path / "4", metrics=run(straight, start=2, stop=4), step=4)
    resumed = make_trainer(task, checkpoint=at_2)
    again = saved(resumed, tmp_path / "4 again", metrics=run(resumed, start=2, stop=4), step=4)
    tensors, scalars = everything(at_4)
    assert everything(again) == (tensors, scalars)
    assert tensors != everything(at_2)[0]
    assert scalars["optimizer_count"] == scalars["ema_count"] == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_average_on_the_host_is_the_one_on_the_device_bit_for_bit(sd1, tmp_path, precision):
    """One and the other write the same files, and each resumes the other's."""
    own, found = {"on-device": False, "on-host": True}, {}
    for name, offload in own.items():
        task = make_task(sd1, method="full", train={**TRAIN, "precision": precision, "ema": {"decay": 0.9, "offload": offload}})
        trainer = make_trainer(task, checkpoint=found.get("on-device"))
        start = 2 if found else 0
        found[name] = saved(trainer, tmp_path / name, metrics=run(trainer, start=start, stop=start + 2), step=start + 2)
        assert isinstance(trainer.runner.state.ema, OffloadedAverage) == offload
    task = make_task(sd1, method="full", train={**TRAIN, "precision": precision})
    plain = make_trainer(task, checkpoint=found["on-device"])
    assert everything(saved(plain, tmp_path / "plain", metrics=run(plain, start=2, stop=4), step=4)) == everything(
        found["on-host"]
    )


@pytest.mark.parametrize("method", ["lora", "full"])
def test_names_and_files(sd1, tmp_path, method):
    trainer = make_trainer(make_task(sd1, method=method, train=TRAIN))
    folder = saved(trainer, tmp_path / "1", metrics=run(trainer, start=0, stop=1), step=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ema.safetensors", "optimizer.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip
    weights = load_file(folder / "weights.safetensors")
    unet = trainer.runner.models.unet
    if method == "full":
        assert set(weights) == {f"unet.{name}" for name, _ in unet.named_parameters()}
    else:
        assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in weights)
    assert set(load_file(folder / "ema.safetensors")) == {f"ema.{name}" for name in weights}
    moments = load_file(folder / "optimizer.safetensors")
    assert set(moments) == {f"optimizer.{short}.{name}" for name in weights for short in "mv"}
    assert {values.dtype for values in [*weights.values(), *moments.values()]} == {torch.float32}
    scalars = json.loads((folder / "state.json").read_text())
    assert scalars.keys() == {"step", "loss", "grad_norm", "optimizer_count", "ema_count", "loss_scale"}


def test_restore_fills_every_moment_and_count(sd1, tmp_path):
    task = make_task(sd1, train=TRAIN)
    trainer = make_trainer(task)
    folder = saved(trainer, tmp_path / "3", metrics=run(trainer, start=0, stop=3), step=3)
    ours, theirs = make_trainer(task, checkpoint=folder).runner.state, trainer.runner.state
    assert ours.ema.optimization_step == 3
    for (name, parameter), other in zip(ours.parameters.items(), theirs.parameters.values(), strict=True):
        slots, others = ours.optimizer.state[parameter], theirs.optimizer.state[other]
        assert slots.keys() == others.keys()
        for slot, values in slots.items():
            assert torch.equal(values, others[slot]), (name, slot)
            assert values.dtype == others[slot].dtype
    for shadow, other in zip(ours.ema.shadow_params, theirs.ema.shadow_params, strict=True):
        assert torch.equal(shadow, other)


def test_a_snapshot_is_a_copy(sd1, tmp_path):
    """Training goes on while the files are written."""
    trainer = make_trainer(make_task(sd1, train=TRAIN))
    metrics = run(trainer, start=0, stop=1)
    early = everything(saved(trainer, tmp_path / "early", metrics=metrics, step=1))
    snapshot = trainer.snapshot(step=1, metrics=metrics)
    run(trainer, start=1, stop=2)
    state = trainer.runner.state
    live = [*state.parameters.values(), *state.ema.shadow_params, *(s["exp_avg"] for s in state.optimizer.state.values())]
    randomize(live, scale=100.0)
    (tmp_path / "late").mkdir()
    snapshot.write_into(tmp_path / "late")
    assert everything(tmp_path / "late") == early


def test_the_next_snapshot_takes_the_memory_of_the_one_before(sd1):
    trainer = make_trainer(make_task(sd1, train=TRAIN))
    metrics = run(trainer, start=0, stop=1)
    places = []
    for _ in range(2):
        files = trainer.snapshot(step=1, metrics=metrics).files
        places.append({name: tensor.data_ptr() for tensors in files.values() for name, tensor in tensors.items()})
    assert places[0] == places[1]
    assert len(set(places[0].values())) == len(places[0]), "each tensor has a place of its own"


def test_a_snapshot_goes_into_the_room_that_was_made_for_it(sd1, tmp_path):
    trainer = make_trainer(make_task(sd1, train=TRAIN))
    metrics = run(trainer, start=0, stop=1)
    without = everything(saved(trainer, tmp_path / "without", metrics=metrics, step=1))
    trainer.runner.state.arena = arena = Arena()
    trainer.expect_saves()
    arena._reserving.result()
    room = {name: copy.data_ptr() for name, copy in arena._copies.items()}
    assert not any(copy.any() for copy in arena._copies.values())
    snapshot = trainer.snapshot(step=1, metrics=metrics)
    assert {name: tensor.data_ptr() for tensors in snapshot.files.values() for name, tensor in tensors.items()} == room
    (tmp_path / "with").mkdir()
    snapshot.write_into(tmp_path / "with")
    assert everything(tmp_path / "with") == without


def test_a_copy_waits_until_its_room_is_made(monkeypatch):
    """Else the room would be cleared with the copy in it."""
    arena, go_on, touch = Arena(), threading.Event(), Arena._touch

    def touch_late(self, tensors):
        assert go_on.wait(HANG_S)
        touch(self, tensors)

    monkeypatch.setattr(Arena, "_touch", touch_late)
    weights = torch.ones(3)
    arena.reserve({"weights": weights})
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(arena.take, "weights", weights)
        with pytest.raises(TimeoutError):
            taken.result(timeout=0.2)
        go_on.set()
        assert taken.result(HANG_S).equal(weights)


def test_no_room_for_snapshots_is_an_error_of_the_first(sd1, monkeypatch):
    trainer = make_trainer(make_task(sd1, train=TRAIN))
    metrics = run(trainer, start=0, stop=1)

    def refuse(*_, **__):
        raise RuntimeError("not enough pinned memory")

    monkeypatch.setattr(arenas.torch, "empty", refuse)
    trainer.expect_saves()
    with pytest.raises(RuntimeError, match="pinned"):
        trainer.snapshot(step=1, metrics=metrics)


def test_the_last_snapshot_is_the_live_state_itself_and_makes_the_same_files(sd1, tmp_path):
    task = make_task(sd1, method="full", train=TRAIN)
    trainer = make_trainer(task)
    metrics = run(trainer, start=0, stop=1)
    copied, last = (trainer.snapshot(step=step, metrics=metrics) for step in (1, task.total_steps))
    for snapshot, folder in ((copied, tmp_path / "copied"), (last, tmp_path / "last")):
        folder.mkdir()
        snapshot.write_into(folder)
    for file, tensors in last.files.items():
        assert (tmp_path / "last" / file).read_bytes() == (tmp_path / "copied" / file).read_bytes()
        assert all(tensor.data_ptr() != copied.files[file][name].data_ptr() for name, tensor in tensors.items())
    for name, parameter in trainer.runner.state.parameters.items():
        assert last.files["weights.safetensors"][name].data_ptr() == parameter.data_ptr()


def test_a_parameter_without_a_gradient_so_far(sd1, tmp_path):
    """AdamW makes its moments at its first update: none are saved, none are missed, and the next step is the same."""
    task = make_task(sd1)
    straight = make_trainer(task)
    name = next(iter(straight.runner.state.parameters))
    straight.runner.state.parameters[name].requires_grad_(False)
    folder = saved(straight, tmp_path / "1", metrics=run(straight, start=0, stop=1), step=1)
    assert f"optimizer.m.{name}" not in load_file(folder / "optimizer.safetensors")
    resumed = make_trainer(task, checkpoint=folder)
    straight.runner.state.parameters[name].requires_grad_(True)
    ends = [saved(t, tmp_path / f"2 {i}", metrics=run(t, start=1, stop=2), step=2) for i, t in enumerate((straight, resumed))]
    assert everything(ends[0]) == everything(ends[1])


def test_the_loss_scale_comes_back(sd1, tmp_path):
    task = make_task(sd1)
    trainer = make_trainer(task)
    trainer.runner.state.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    folder = saved(trainer, tmp_path / "2", metrics=run(trainer, start=0, stop=2), step=2)
    resumed = make_trainer(task)
    resumed.runner.state = replace(resumed.runner.state, scaler=torch.amp.GradScaler("cpu"))
    resumed.load(checkpoint=folder, init_from=None)
    assert resumed.runner.state.scaler.state_dict() == trainer.runner.state.scaler.state_dict()
    for one in (trainer, resumed):
        run(one, start=2, stop=3)
        assert one.runner.state.scaler.get_scale() == 16.0, "its third good step in a row"


def test_a_checkpoint_of_other_parameters_is_refused(sd1, tmp_path):
    trainer = make_trainer(make_task(sd1))
    folder = saved(trainer, tmp_path / "1", metrics=run(trainer, start=0, stop=1), step=1)
    weights = load_file(folder / "weights.safetensors")
    missing = sorted(weights)[0]
    del weights[missing]
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(UnsoundError, match=f"such as {missing}"):
        make_trainer(make_task(sd1), checkpoint=folder)


class TestValidation:
    def pictures(self, trainer, folder):
        folder.mkdir()
        trainer.validate(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def trainer(self, model, **train):
        asked = {"prompts": ["a red circle", "a blue square"], "images": 2, "inference_steps": 2, "every_steps": 1}
        return make_trainer(make_task(model, method="full", train=train, validation=asked))

    def test_it_shows_the_average_and_leaves_no_trace(self, sd1, tmp_path):
        trainer = self.trainer(sd1, ema={"decay": 0.5})
        metrics = run(trainer, start=0, stop=2)
        before = everything(saved(trainer, tmp_path / "before", metrics=metrics, step=2))
        state = trainer.runner.state
        randomize(state.ema.shadow_params, scale=0.3)
        drawn = self.pictures(trainer, tmp_path / "pictures")
        plain = self.trainer(sd1)
        for parameter, shadow in zip(plain.runner.state.parameters.values(), state.ema.shadow_params, strict=True):
            parameter.data.copy_(shadow)
        assert drawn == self.pictures(plain, tmp_path / "of the average")
        assert sorted(drawn) == ["00-00.png", "00-01.png", "01-00.png", "01-01.png"]
        assert len(set(drawn.values())) == 4
        after = everything(saved(trainer, tmp_path / "after", metrics=metrics, step=2))
        for key, values in before[0].items():
            assert key[0] == "ema.safetensors" or after[0][key] == values
        assert trainer.runner.models.unet.training

    def test_a_run_that_validates_trains_the_same(self, sd1, tmp_path):
        ends = []
        for validates in (True, False):
            trainer = self.trainer(sd1, ema={"decay": 0.5})
            run(trainer, start=0, stop=1)
            if validates:
                self.pictures(trainer, tmp_path / "pictures")
            metrics = run(trainer, start=1, stop=2)
            ends.append(everything(saved(trainer, tmp_path / f"{validates}", metrics=metrics, step=2)))
        assert ends[0] == ends[1]

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_in_bf16(self, sd1, tmp_path, method):
        asked = {"prompts": ["a red circle"], "images": 1, "inference_steps": 2}
        trainer = make_trainer(make_task(sd1, method=method, train={**TRAIN, "precision": "bf16"}, validation=asked))
        assert len(self.pictures(trainer, tmp_path / "first")["00-00.png"]) > 100
