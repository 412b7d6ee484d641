import argparse
import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fakes.checkpoints import make_job, small_lora, write_checkpoint
from sdjob.ckpt.engine import CommitLog
from sdjob.cli import export as cli
from sdjob.core.clock import SystemClock
from sdjob.core.errors import MissingError, UsageError
from sdjob.core.log import Log
from sdjob.job.export import Exported, export
from sdjob.spec.job import JobSpec
from sdjob.spec.load import resolved_yaml
from sdjob.store.local import LocalStore

DIFFUSERS = "pytorch_lora_weights.safetensors"


def quiet() -> Log:
    return Log(mode="json", stream=io.StringIO())


def write_configs(folder: Path) -> Path:
    """As much of a base model as kohya's metadata asks for."""
    for name, content in (("unet/config.json", {}), ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"})):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


class FinishedRun:
    """A run's place with commits of made-up weights: step n holds the LoRA of seed n, its averages that of seed n + 100."""

    def __init__(self, root: Path, *, job: JobSpec, steps: tuple[int, ...] = (5, 10)) -> None:
        self.root = root
        self.store = LocalStore(root / "run")
        self.store.write("job.yaml", resolved_yaml(job).encode())
        commits = CommitLog(self.store, clock=SystemClock(), log=quiet())
        commits.claim(attempt="1", host="here")
        for step in steps:
            ema = small_lora(seed=step + 100) if job.train.ema else None
            folder = write_checkpoint(root / f"snapshot-{step}", weights=small_lora(seed=step), ema=ema)
            (folder / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")
            commits.commit(folder, step=step, facts={})

    def export(self, *, to: str = "out", **options) -> Exported:
        chosen = {"step": None, "format": "diffusers", "weights": None, **options}
        return export(self.store, to=self.root / to, clock=SystemClock(), log=quiet(), **chosen)

    def exported(self, *, to: str = "out") -> dict[str, np.ndarray]:
        return load_file(self.root / to / DIFFUSERS)

    def place(self) -> dict[str, bytes]:
        folder = self.root / "run"
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path) -> FinishedRun:
    return FinishedRun(tmp_path, job=make_job(model={"source": str(write_configs(tmp_path / "base"))}))


@pytest.fixture
def run_with_averages(tmp_path) -> FinishedRun:
    return FinishedRun(tmp_path, job=make_job(train={"ema": {"decay": 0.9}}))


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("step", "expected"), [(5, 5), (10, 10), (None, 10)])
def test_a_step_or_else_the_newest_is_exported(run, step, expected):
    assert run.export(step=step).step == expected
    assert same(run.exported(), small_lora(seed=expected))


def test_nothing_is_written_to_the_runs_place(run):
    before = run.place()
    run.export(step=5)
    assert run.place() == before


def test_only_the_result_lies_in_the_folder_and_nothing_beside_it(run):
    beside = {path.name for path in run.root.iterdir()}
    assert run.export().files == (DIFFUSERS,)
    assert [path.name for path in (run.root / "out").iterdir()] == [DIFFUSERS]
    assert {path.name for path in run.root.iterdir()} == beside | {"out"}


def test_an_empty_folder_is_taken_and_missing_parents_are_made(run):
    (run.root / "empty").mkdir()
    run.export(to="empty")
    run.export(to="a/b/c")
    assert same(run.exported(to="empty"), run.exported(to="a/b/c"))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_already_is_not_overwritten(run, kind):
    if kind == "folder":
        (run.root / "out").mkdir()
        (run.root / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    else:
        (run.root / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        run.export()


def test_a_step_that_does_not_exist_is_missing_and_those_that_do_are_listed(run):
    with pytest.raises(MissingError, match=r"step 7.*5, 10") as missing:
        run.export(step=7)
    assert missing.value.exit_code == 66
    assert not (run.root / "out").exists()


def test_a_place_without_a_run_is_missing(tmp_path):
    with pytest.raises(MissingError, match="no run is here"):
        export(
            LocalStore(tmp_path / "nothing"),
            step=None,
            to=tmp_path / "out",
            format="diffusers",
            weights=None,
            clock=SystemClock(),
            log=quiet(),
        )


def test_averages_are_the_default_where_there_are_any(run_with_averages):
    for weights, seed in ((None, 110), ("ema", 110), ("raw", 10)):
        run_with_averages.export(to=str(weights), weights=weights)
        assert same(run_with_averages.exported(to=str(weights)), small_lora(seed=seed))


def test_averages_that_do_not_exist_are_refused(run):
    with pytest.raises(UsageError, match="raw") as refused:
        run.export(weights="ema")
    assert refused.value.exit_code == 64


def test_kohyas_form_names_the_kind_of_base(run):
    assert run.export(format="kohya").files == ("tiny.kohya.safetensors",)
    assert b"sd_v1" in (run.root / "out" / "tiny.kohya.safetensors").read_bytes()


def test_kohyas_form_without_the_base_leaves_it_unnamed(run_with_averages):
    run_with_averages.export(format="kohya")
    written = (run_with_averages.root / "out" / "tiny.kohya.safetensors").read_bytes()
    assert b"ss_network_dim" in written
    assert b"ss_base_model_version" not in written


def test_a_full_model_needs_its_base(tmp_path):
    with pytest.raises(MissingError, match=r"model\.source"):
        FinishedRun(tmp_path, job=make_job("full")).export()
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_it_wrote(run, capsys):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    args = parser.parse_args([str(run.root / "run"), "--step", "5", "--to", str(run.root / "out")])
    assert cli.execute(args, log=quiet()) == 0
    assert capsys.readouterr().out == f"{run.root / 'out' / DIFFUSERS}\n"
    assert same(run.exported(), small_lora(seed=5))
