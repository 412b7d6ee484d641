"""What `sdjob run` does and refuses, and what it leaves behind, seen from outside: exit codes, log, files."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from fakes.drawing import draw
from fakes.running import Ended, Job, Workshop, tree

MANY_STEPS = 1000  # of runs that are to be under way until they are told otherwise
SECRETS = {
    "HF_TOKEN": "hf_planted0token0planted0token",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/key/of/forty/characters/x",
    "SOME_PASSWORD": "planted-pass-word",
}


@pytest.fixture
def finished(workshop: Workshop) -> Job:
    """Everybody's finished LoRA run of 8 steps: for what leaves it as it is."""
    return workshop.finished("plain")


@pytest.fixture
def finished_full(workshop: Workshop) -> Job:
    return workshop.finished("full", **FULL)


FULL: dict[str, Any] = {"family": "sd2", "train__method": "full", "train__steps": 3, "train__ema": {"decay": 0.9}}


@pytest.fixture
def copied(workshop: Workshop, finished: Job, tmp_path: Path) -> Job:
    """The same, in a place of its own."""
    job = workshop.job(tmp_path / "job")
    shutil.copytree(finished.to, job.to)
    shutil.copytree(finished.out, job.out)
    return job


def check_refused(ended: Ended, *words: str, code: int) -> None:
    assert ended.code == code, ended.output
    assert ended.one("error")["exit_code"] == code
    for word in words:
        assert word in ended.error
    assert "Traceback" not in ended.output


# ---- on the way ------------------------------------------------------------------------------------------------------------


def test_what_is_published_on_the_way_is_there_and_the_end_takes_its_place(workshop, finished, tmp_path):
    job = workshop.job(tmp_path / "job", checkpoint__every_steps=3)
    ended = job.run("publish.0.every_steps=4")
    assert ended.code == 0, ended.output
    assert ended.committed == [3, 4, 6, 8]
    [early] = [event for ledger in job.ledgers() for event in ledger.events if event["kind"] == "published"]
    assert (early["step"], early["to"]) == (4, [str(job.out)])
    assert job.published() == finished.published()


# ---- a finished run --------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_left_as_it_is(finished):
    before = tree(finished.folder)
    ended = finished.run()
    assert ended.code == 0
    assert [event["event"] for event in ended.events] == ["done"]
    assert tree(finished.folder) == before


def test_a_finished_run_publishes_to_a_new_place_only(finished, copied):
    ended = copied.run(f"publish.1.to={copied.folder}/new")
    assert ended.code == 0, ended.output
    assert not ended.of("train")
    assert [Path(event["to"]).name for event in ended.of("published")] == ["new"]
    assert copied.published(copied.folder / "new") == finished.published()
    assert copied.done_digest() == finished.done_digest()


def test_more_steps_re_open_a_run_whose_schedule_does_not_depend_on_them(workshop, copied):
    longer = workshop.finished("stop", train__steps=24, checkpoint__every_steps=5)
    ended = copied.run("train.steps=24")
    assert ended.code == 0, ended.output
    assert ended.start_step == 8
    assert copied.done_digest() == longer.done_digest()
    assert copied.published() == longer.published()


def test_fewer_steps_than_there_are_is_refused(finished):
    before = tree(finished.folder)
    check_refused(finished.run("train.steps=5"), "train.steps", "8 steps already", code=64)
    assert tree(finished.folder) == before


def test_epochs_count_steps_and_a_cosine_schedule_fixes_them(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", train__steps=None, train__epochs=2, train__schedule={"name": "cosine"})
    assert job.run().code == 0
    assert job.committed_steps()[-1] == 7, "two epochs of 7 pictures, 2 a step"
    before = tree(job.folder)
    check_refused(job.run("train.epochs=3"), "train.epochs: 2 -> 3", code=64)
    assert tree(job.folder) == before


def test_another_learning_rate_is_refused_with_the_difference(finished):
    before = tree(finished.folder)
    ended = finished.run("train.optimizer.learning_rate=0.02")
    check_refused(ended, "train.optimizer.learning_rate: 0.01 -> 0.02", "checkpoint.to", code=64)
    assert tree(finished.folder) == before


def test_a_lost_last_commit_is_trained_again(finished, copied):
    newest = copied.history().live[0]
    (copied.to / "blob" / str(newest.epoch) / newest.manifest).unlink()
    ended = copied.run()
    assert ended.code == 0, ended.output
    assert ended.start_step == 6
    assert copied.done_digest() == finished.done_digest()
    assert copied.published() == finished.published()


def test_validation_pictures_that_are_missing_at_the_end_are_drawn_before_publishing(workshop, finished, tmp_path):
    job = workshop.job(tmp_path / "job")
    running = job.start()
    running.wait_for("commit", step=8)
    running.kill()
    [left] = job.to.glob("attempts/*/samples")
    shutil.rmtree(left)
    ended = job.run()
    assert ended.code == 0, ended.output
    assert not ended.of("commit")
    assert job.published() == finished.published()


# ---- several attempts ------------------------------------------------------------------------------------------------------


def test_of_two_attempts_at_once_the_later_one_finishes(workshop, tmp_path):
    straight = workshop.finished("stop", train__steps=24, checkpoint__every_steps=5)
    job = workshop.job(tmp_path / "job", train__steps=24, checkpoint__every_steps=5)
    first = job.start()
    first.wait_for("train")
    second = job.start()
    loser, winner = first.end(), second.end()
    check_refused(loser, f"-{second.pid}", code=76)
    assert winner.code == 0, winner.output
    assert job.done_digest() == straight.done_digest()
    assert job.published() == straight.published()
    job.verified()


def test_an_attempt_that_was_frozen_while_another_finished_writes_nothing(workshop, finished, tmp_path):
    job = workshop.job(tmp_path / "job")
    zombie = job.start()
    zombie.wait_for("commit")
    everyone = [zombie.pid, *zombie.trainers()]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    assert job.run().code == 0
    digest, slots, published = job.done_digest(), job.history().slots, job.published()
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    check_refused(zombie.end(), code=76)
    assert digest == finished.done_digest()
    assert published == finished.published() == job.published()
    assert job.history().slots == slots
    job.verified()


def test_a_job_that_is_refused_does_not_disturb_the_attempt_that_runs(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", train__steps=MANY_STEPS)
    running = job.start()
    running.wait_for("commit")
    check_refused(job.run("train.optimizer.learning_rate=0.02"), "0.01 -> 0.02", code=64)
    running.signal(signal.SIGTERM)
    assert running.end().code == 75


def test_scratch_of_a_killed_attempt_is_swept_by_the_next(workshop, tmp_path):
    job = workshop.job(tmp_path / "job")
    running = job.start()
    running.wait_for("train")
    running.kill()
    [left] = job.scratch.glob("*/attempt-*")
    running = job.start()
    running.wait_for("train")
    [own] = job.scratch.glob("*/attempt-*")
    assert own != left
    running.signal(signal.SIGTERM)
    assert running.end().code == 75
    assert not list(job.scratch.glob("*/*"))


def test_another_device_batch_goes_on_to_rounding_and_says_so(workshop, copied):
    exact = workshop.finished("stop", train__steps=24, checkpoint__every_steps=5)
    ended = copied.run("train.steps=12", "train.device_batch=2")
    assert ended.code == 0, ended.output
    assert "train.device_batch: 1 -> 2" in ended.one("inexact")["message"]
    assert "correct to rounding" in (copied.out / "README.md").read_text()
    losses, expected = copied.losses(), exact.losses()
    assert losses == pytest.approx({step: expected[step] for step in range(1, 13)}, rel=1e-3)


# ---- limits ----------------------------------------------------------------------------------------------------------------


def test_a_run_ends_when_its_hours_are_used_up(workshop, tmp_path):
    job = workshop.job(tmp_path / "job")
    check_refused(job.run("run.max_hours=0.0000001"), "run.max_hours", code=79)
    slots = job.history().slots
    check_refused(job.run("run.max_hours=0.0000001"), "run.max_hours", code=79)
    assert job.history().slots == slots, "what cannot train must not claim the run"
    running = job.start("run.max_hours=1000")
    running.wait_for("train")
    running.kill()


def test_a_loss_that_is_not_finite_is_never_committed(workshop, tmp_path):
    job = workshop.job(
        tmp_path / "job",
        train__method="full",
        train__steps=MANY_STEPS,
        train__optimizer={"learning_rate": 1e6, "max_grad_norm": None},
        checkpoint__every_steps=1,
    )
    ended = job.run()
    check_refused(ended, "training has diverged", code=78)
    assert ended.committed
    assert job.committed_steps() == ended.committed
    job.verified()


# ---- what a run is refused for ---------------------------------------------------------------------------------------------


def test_a_missing_model(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", model=tmp_path / "nowhere")
    check_refused(job.run(), "model.source", "nowhere", code=66)


def test_a_model_without_safetensors(workshop, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(workshop.model(), model)
    (model / "unet" / "diffusion_pytorch_model.safetensors").rename(model / "unet" / "diffusion_pytorch_model.bin")
    job = workshop.job(tmp_path / "job", model=model)
    check_refused(job.run(), "diffusion_pytorch_model.bin", "safetensors", code=66)


def test_a_field_that_is_not_supported_yet(workshop, tmp_path):
    job = workshop.job(tmp_path / "job")
    slices = ("run.slices=2", "train.global_batch=16", "run.accelerator=tpu-v5e:2x4@4t", "train.backend=flax")
    check_refused(job.run(*slices), "run.slices", "set 1", code=64)
    assert not job.to.exists()


@pytest.fixture
def with_bad_picture(workshop: Workshop, tmp_path: Path) -> Job:
    """One of seven pictures is none."""
    pictures = tmp_path / "pictures"
    shutil.copytree(workshop.pictures, pictures)
    sorted(pictures.glob("*.png"))[0].write_bytes(b"no picture")
    return workshop.job(tmp_path / "job", pictures=pictures)


def test_too_many_bad_pictures(with_bad_picture):
    check_refused(with_bad_picture.run(), "1 of 7 pictures", "picture-0000.png", "max_bad_share", code=65)


def test_a_few_bad_pictures_are_a_warning(with_bad_picture):
    running = with_bad_picture.start("data.max_bad_share=0.2")
    warning = running.wait_for("bad_pictures")
    assert warning["level"] == "warning"
    assert warning["ids"] == ["picture-0000.png"]
    running.wait_for("step")
    running.kill()


# ---- what a run leaves -----------------------------------------------------------------------------------------------------


def test_validation_pictures_are_in_the_run_and_beside_the_weights(finished):
    assert set(finished.samples()) == {"0001/samples/00000008/00-00.png"}
    [picture] = finished.samples().values()
    assert finished.published()["samples/00-00.png"] == picture
    assert picture.startswith(b"\x89PNG")


def test_a_published_lora_draws_other_pictures_in_both_forms(workshop, finished):
    plain = draw(workshop.model())
    own = draw(workshop.model(), lora=finished.out, name="pytorch_lora_weights.safetensors")
    kohya = draw(workshop.model(), lora=finished.out, name="tiny.kohya.safetensors")
    assert abs(own - plain).max() > 0.01
    assert abs(own - kohya).max() < 1e-4


def test_a_published_pipeline_draws_other_pictures(workshop, finished_full):
    assert abs(draw(finished_full.out) - draw(workshop.model("sd2"))).max() > 0.01


def test_a_lora_starts_from_given_weights_and_no_secret_is_written_anywhere(workshop, finished, tmp_path):
    from safetensors.numpy import load_file

    start = finished.out / "pytorch_lora_weights.safetensors"
    job = workshop.job(
        tmp_path / "job", train__steps=1, train__init_from=str(start), train__optimizer={"learning_rate": 1e-9, "weight_decay": 0}
    )
    ended = job.run(environment=SECRETS)
    assert ended.code == 0, ended.output
    given, trained = load_file(start), load_file(job.out / start.name)
    assert given.keys() == trained.keys()
    for name, values in given.items():
        assert trained[name] == pytest.approx(values, abs=1e-7)
    for name, data in {**tree(job.folder), "log": ended.output.encode()}.items():
        found = [variable for variable, secret in SECRETS.items() if secret.encode() in data]
        assert not found, f"{name} holds the value of {found}"


def test_a_secret_in_an_error_is_blanked_out(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", model=f"/nowhere/{SECRETS['SOME_PASSWORD']}")
    ended = job.run(environment=SECRETS)
    check_refused(ended, "/nowhere/***", code=66)
    assert SECRETS["SOME_PASSWORD"] not in ended.output
    assert SECRETS["SOME_PASSWORD"].encode() not in b"".join(tree(job.to).values())


def test_a_full_run_starts_from_given_weights(workshop, finished_full, tmp_path):
    from safetensors.numpy import load_file

    start = finished_full.out
    slow = {"train__steps": 1, "train__optimizer": {"learning_rate": 1e-9, "weight_decay": 0}}
    job = workshop.job(tmp_path / "job", **{**FULL, **slow, "train__init_from": str(start), "train__ema": None})
    ended = job.run()
    assert ended.code == 0, ended.output
    weights = Path("unet") / "diffusion_pytorch_model.safetensors"
    given, trained = load_file(start / weights), load_file(job.out / weights)
    for name, values in given.items():
        assert trained[name] == pytest.approx(values, abs=1e-7)
    base = load_file(workshop.model("sd2") / weights)
    assert any(abs(base[name] - values).max() > 1e-4 for name, values in trained.items())
