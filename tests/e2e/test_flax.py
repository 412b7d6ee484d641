"""One job on both backends: flax trains what torch trains, what it publishes is of use to torch, and a run may change sides."""

import signal
from typing import Any

import pytest

from fakes.backends import (
    METHODS,
    ROUNDING,
    STEPS,
    Method,
    apart,
    compiled_once,
    fields_of,
    handed_over,
    straight,
    trained,
    untrained,
)
from fakes.drawing import draw
from fakes.running import Job, Workshop

BOTH_WAYS: list[Any] = [pytest.param("torch", "flax", id="torch-flax"), pytest.param("flax", "torch", id="flax-torch")]
TO_ROUNDING = "correct to rounding, not bit-exact"


def check_curves(ours: dict[int, float], theirs: dict[int, float], *, within: float) -> None:
    assert ours.keys() == theirs.keys() == set(range(1, STEPS + 1))
    for step, loss in theirs.items():
        assert ours[step] == pytest.approx(loss, rel=within), f"step {step}"


def check_weights(ours: Job, theirs: Job, *, workshop: Workshop, method: Method, folder: Any) -> None:
    """Averages too."""
    end, wanted = trained(ours, folder=folder / "ours"), trained(theirs, folder=folder / "theirs")
    assert any(name.startswith("ema.") for name in wanted) == (method == "full")
    assert apart(end, wanted, start=untrained(workshop, method, like=wanted)) <= ROUNDING


def ready_of(job: Job) -> dict[str, Any]:
    """What the last attempt's trainer said before its first step, in the ledger."""
    [ready] = [event for event in job.ledgers()[-1].events if event["kind"] == "ready"]
    return ready


# ---- the same job on both --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_flax_trains_what_torch_trains(workshop, tmp_path, method):
    on_flax, on_torch = (straight(workshop, method, backend=backend) for backend in ("flax", "torch"))
    check_curves(on_flax.losses(), on_torch.losses(), within=ROUNDING)
    check_weights(on_flax, on_torch, workshop=workshop, method=method, folder=tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_diffusers_draws_the_same_from_what_either_published(workshop, method):
    """The pictures differ from each other by no more of their distance to the base model's than the weights do."""
    on_flax, on_torch = (straight(workshop, method, backend=backend) for backend in ("flax", "torch"))
    assert on_flax.published().keys() == on_torch.published().keys()
    if method == "full":
        base, ours, theirs = draw(workshop.model("sd2")), draw(on_flax.out), draw(on_torch.out)
    else:
        lora: Any = {"name": "pytorch_lora_weights.safetensors"}
        base = draw(workshop.model())
        ours, theirs = (draw(workshop.model(), lora=job.out, **lora) for job in (on_flax, on_torch))
    change = abs(theirs - base).max()
    assert change > 0.01
    assert abs(ours - theirs).max() <= 3 * ROUNDING * change


# ---- another number of devices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.full_matrix)])
def test_eight_devices_train_as_one_does(workshop, tmp_path, method):
    alone = straight(workshop, method, backend="flax")
    job = workshop.job(tmp_path / "job", **fields_of(method, backend="flax"))
    ended = job.run("run.accelerator=cpu:8", "train.device_batch=1", environment=compiled_once(workshop))
    assert ended.code == 0, ended.output
    assert ready_of(job)["fingerprint"]["devices"] == 8
    check_curves(job.losses(), alone.losses(), within=1e-5)
    check_weights(job, alone, workshop=workshop, method=method, folder=tmp_path)


# ---- a run that changes sides ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), BOTH_WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_one_backend_goes_on_from_the_others_checkpoint(workshop, tmp_path, method, first, second):
    whole = straight(workshop, method, backend="torch")
    job = workshop.job(tmp_path / "job", **fields_of(method, backend=second))
    left = handed_over(job, of=straight(workshop, method, backend=first), at_most=STEPS // 2)
    ended = job.run(environment=compiled_once(workshop))
    assert ended.code == 0, ended.output
    assert ended.start_step == left
    check_curves(job.losses(), whole.losses(), within=ROUNDING)
    check_weights(job, whole, workshop=workshop, method=method, folder=tmp_path)
    warned = ended.one("inexact")["message"]
    assert TO_ROUNDING in warned
    assert f'train.backend: "{first}" -> "{second}"' in warned
    assert f'train.backend: "{first}" -> "{second}"' in ready_of(job)["inexact"]
    assert TO_ROUNDING in job.published()["README.md"].decode()


@pytest.mark.full_matrix
@pytest.mark.parametrize(("first", "second"), BOTH_WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_the_other_backend_goes_on_after_a_stop_or_a_kill(workshop, tmp_path, method, first, second):
    """As above, but with what an interruption leaves; wherever it came, the end is the same."""
    whole = straight(workshop, method, backend="torch")
    job = workshop.job(tmp_path / "job", **fields_of(method, backend=second))
    running = job.start(f"train.backend={first}", environment=compiled_once(workshop))
    running.wait_for("step")
    running.signal(signal.SIGTERM if method == "full" else signal.SIGKILL)
    assert running.end().code == (75 if method == "full" else -signal.SIGKILL)
    left = max(job.committed_steps(), default=0)
    assert left < STEPS
    ended = job.run(environment=compiled_once(workshop))
    assert (ended.code, ended.start_step) == (0, left), ended.output
    check_curves(job.losses(), whole.losses(), within=ROUNDING)
    check_weights(job, whole, workshop=workshop, method=method, folder=tmp_path)


# ---- interruptions ---------------------------------------------------------------------------------------------------------


def test_killed_then_stopped_it_goes_on_to_the_same_files(workshop, tmp_path):
    """Full, with averages and accumulation. LoRA with dropout, and other moments of a kill, are in tests/faults."""
    whole, environment = straight(workshop, "full", backend="flax"), compiled_once(workshop)
    job = workshop.job(tmp_path / "job", **fields_of("full", backend="flax"))
    running = job.start(environment=environment)
    running.wait_for("commit")
    assert running.kill().code == -signal.SIGKILL
    running = job.start(environment=environment)
    running.wait_for("step")
    running.signal(signal.SIGTERM)
    stopped = running.end()
    assert stopped.code == 75, stopped.output
    assert stopped.committed[-1] == max(job.committed_steps()), "the step under way is saved"
    resumed = job.run(environment=environment)
    assert resumed.code == 0, resumed.output
    assert not resumed.of("inexact")
    assert job.losses() == whole.losses()
    assert job.done_digest() == whole.done_digest()
    assert job.published() == whole.published()
    job.verified()
