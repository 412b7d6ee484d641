"""`train.fsdp` by real gloo processes: each has its rows of everything, and they train as processes that have all of it do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fakes.backends import apart, array_of
from fakes.torch_gang import Phase, run_gang
from fakes.torch_runs import make_micro, make_task, make_trainer
from sdjob.diffusion.parts import part_file, stored_tensors
from sdjob.loop import StepMetrics
from sdjob.train_torch.sharding import Shards, rows_of

RANKS = 3  # with two, the order of an addition cannot matter, and every tensor's rows divide
METRICS = StepMetrics(loss=0.0, grad_norm=0.0, learning_rate=0.0, stop=False)
TRAIN = {
    "global_batch": 12,
    "device_batch": 2,  # two micro-steps
    "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6, "max_grad_norm": 0.01},
    "ema": {"decay": 0.6},
    "gradient_checkpointing": True,
}
KINDS = ("weights", "optimizer", "ema")


def tensors(folder: Path):
    return {name: array_of(tensor) for kind in KINDS for name, tensor in stored_tensors(folder, kind).items()}


def bytes_of(folder: Path):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def gangs(sd1, tmp_path_factory):
    """Three steps whole; the last two of them spread; and of these the last one again."""
    out = tmp_path_factory.mktemp("gangs")
    whole, spread = (make_task(sd1, method="full", train={**TRAIN, "fsdp": fsdp}) for fsdp in (False, True))
    run_gang(
        Phase(whole, out / "whole", 0, 3),
        Phase(spread, out / "spread", 1, 3, checkpoint=out / "whole" / "state-1"),
        Phase(spread, out / "resumed", 2, 3, checkpoint=out / "spread" / "state-2"),
        ranks=RANKS,
    )
    return out


def test_they_train_as_processes_that_have_everything(gangs):
    start = tensors(gangs / "whole" / "state-1")
    ours, theirs = tensors(gangs / "spread" / "state-3"), tensors(gangs / "whole" / "state-3")
    assert ours.keys() == theirs.keys()
    assert {name.split(".")[0] for name in ours} == {"unet", "optimizer", "ema"}
    for kind in ("unet.", "optimizer.m.", "optimizer.v.", "ema."):
        chosen = [name for name in ours if name.startswith(kind)]
        of_kind = ({name: values[name] for name in chosen} for values in (ours, theirs, start))
        a, b, c = of_kind
        assert apart(a, b, start=c) <= 1e-5, kind
    scalars = [json.loads((gangs / name / "state-3" / "state.json").read_text()) for name in ("spread", "whole")]
    assert scalars[0] == scalars[1]


def test_a_gang_that_is_resumed_is_the_straight_one_bit_for_bit(gangs):
    assert bytes_of(gangs / "resumed" / "state-3") == bytes_of(gangs / "spread" / "state-3")
    assert bytes_of(gangs / "spread" / "state-2") != bytes_of(gangs / "spread" / "state-3")


def test_each_process_has_its_rows_alone(gangs):
    folder = gangs / "spread" / "state-3"
    files = {part_file(kind, rank=rank, of=RANKS) for kind in KINDS for rank in range(RANKS)}
    assert {path.name for path in folder.iterdir()} == {*files, "state.json"}
    for kind in KINDS:
        sizes = [
            sum(tensor.numel() for tensor in load_file(folder / part_file(kind, rank=rank, of=RANKS)).values())
            for rank in range(RANKS)
        ]
        assert sum(sizes) == sum(np.prod(tensor.shape) for tensor in stored_tensors(folder, kind).values())
        # The first has what does not divide.
        assert all(size == pytest.approx(sum(sizes) / RANKS, rel=0.1) for size in sizes), kind
    gradients = [load_file(gangs / "spread" / f"gradients-2-{rank}.safetensors") for rank in range(RANKS)]
    assert [found["unet.conv_out.weight"].shape[0] for found in gradients] == [2, 2, 0]


def test_one_process_goes_on_from_parts(gangs, sd1):
    train = {**TRAIN, "device_batch": 12}
    trainer = make_trainer(make_task(sd1, method="full", train=train), checkpoint=gangs / "spread" / "state-2")
    trainer.step([make_micro(trainer.task, step=2, rows=range(12))], step=2, stop_wanted=False).read()
    found = trainer.snapshot(step=3, metrics=METRICS).files
    ours = {name: tensor.numpy() for of_kind in found.values() for name, tensor in of_kind.items()}
    start, theirs = tensors(gangs / "spread" / "state-2"), tensors(gangs / "spread" / "state-3")
    assert apart(ours, theirs, start=start) <= 1e-4


@pytest.mark.parametrize(
    ("num_rows", "expected"), [(4, [(0, 2), (2, 4), (4, 4)]), (7, [(0, 3), (3, 6), (6, 7)]), (1, [(0, 1), (1, 1), (1, 1)])]
)
def test_rows_are_divided_as_torch_divides_them(num_rows, expected):
    found = [rows_of(num_rows, stop - start, rank=rank, num_ranks=3) for rank, (start, stop) in enumerate(expected)]
    assert [(rows.start, rows.stop) for rows in found] == expected


def alone(gradients: list[float]) -> Shards:
    """One rank's, for which the others' part of a sum is made up."""
    parameters = {str(number): torch.nn.Parameter(torch.zeros(1)) for number in range(len(gradients))}
    for parameter, gradient in zip(parameters.values(), gradients, strict=True):
        parameter.grad = torch.tensor([gradient])
    return Shards(0, 2, {}, parameters, {})


def grads(shards: Shards) -> list[float]:
    return [float(parameter.grad) for parameter in shards.parameters.values()]


def test_an_overflow_of_another_rank_is_everybodys(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda squared: squared.add_(4.0))
    sound = alone([3.0, 0.0])
    sound.share_overflow()
    assert grads(sound) == [3.0, 0.0]
    for theirs in (math.inf, math.nan):
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda squared, theirs=theirs: squared.add_(theirs))
        overflown = alone([3.0, 0.0])
        overflown.share_overflow()
        assert all(math.isnan(gradient) for gradient in grads(overflown))


def test_the_norm_is_of_all_ranks(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda squared: squared.add_(16.0))
    shards = alone([3.0, 0.0])
    assert float(shards.total_norm()) == 5.0
    assert grads(shards) == [3.0, 0.0]
