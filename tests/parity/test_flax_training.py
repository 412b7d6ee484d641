"""Training on flax is training on torch, to rounding; and resumed it is the straight run, bit for bit."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from fakes.flax_parity import write_family
from fakes.flax_runs import make_flax_batch, make_flax_trainer
from fakes.torch_runs import make_micro, make_task, make_trainer
from sdjob.core.errors import UnsoundError, UsageError

# Adam's first steps are nearly the sign of the gradient, which turns rounding of 1e-4 into differences of 1e-2 of the
# update: a warm-up and a larger epsilon, as TRAIN has them, keep the comparison one of the backends.
TRAIN = {
    "optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6, "max_grad_norm": 0.004, "weight_decay": 0.05},
    "schedule": {"name": "constant_with_warmup", "warmup_steps": 4},
    "ema": {"decay": 0.6},
    "loss": {"snr_gamma": 5.0, "noise_offset": 0.1, "input_perturbation": 0.1},
    "lora": {"rank": 3, "alpha": 6.0},
}
VALIDATION = {"prompts": ["a red circle", "a blue square on a green background"], "images": 2, "inference_steps": 4}
STEPS = 8
MICROS = (range(2), range(2, 4))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("sd1", "sd2", "sdxl"):
        write_family(folder, family)
    return folder


CASES = [("lora", "sd2", "frozen"), ("full", "sd1", "full"), ("lora", "sdxl", "lora"), ("full", "sdxl", "full")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def task(request, models):
    """v-prediction by sd2; only a LoRA has targets."""
    method, family, text_encoder = request.param
    train = {**TRAIN, "text_encoder": text_encoder}
    if text_encoder == "lora":
        train["lora"] = {**TRAIN["lora"], "rank_pattern": {"text_model.*0.*q_proj": 2}, "alpha_pattern": {"v_proj": 1.0}}
    if method == "full":
        del train["lora"]
    return make_task(models / family, method=method, train=train, validation=VALIDATION)


def kinds_of(task):
    """Beginnings of names: each kind is compared for itself, so that none hides behind a larger one."""
    encoders = [name for name in ("text_encoder", "text_encoder_2") if (task.model / name).is_dir()]
    texts = [f"{name}." for name in encoders] if task.job.train.text_encoder != "frozen" else []
    return [*texts, "unet.", "ema.", "optimizer.m.", "optimizer.v."]


def run_torch(trainer, *, start, stop):
    return [
        trainer.step([make_micro(trainer.task, step=s, rows=rows) for rows in MICROS], step=s, stop_wanted=False).read()
        for s in range(start, stop)
    ]


def run_flax(trainer, *, start, stop):
    return [
        trainer.step(make_flax_batch(trainer.task, step=step, micros=MICROS), step=step, stop_wanted=False).read()
        for step in range(start, stop)
    ]


def saved(trainer, folder, *, metrics, step):
    folder.mkdir()
    trainer.snapshot(step=step, metrics=metrics).write_into(folder)
    return folder


def tensors_of(folder):
    return {name: values for file in sorted(folder.glob("*.safetensors")) for name, values in load_file(file).items()}


@pytest.fixture(scope="module")
def runs(task, tmp_path_factory):
    """Both backends' checkpoints at the start, at the middle and at the end, with their metrics."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    for backend, trainer, run in [("torch", make_trainer(task), run_torch), ("flax", make_flax_trainer(task), run_flax)]:
        folders, history = {}, []
        for start, stop in [(0, 1), (1, STEPS // 2), (STEPS // 2, STEPS)]:
            history += run(trainer, start=start, stop=stop)
            folders[stop] = saved(trainer, root / f"{backend} {stop}", metrics=history[-1], step=stop)
        found[backend] = (folders, history)
    return found


def norm(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors.values()))


def update_of(folders, *, kind):
    early, late = tensors_of(folders[1]), tensors_of(folders[STEPS])
    return {name: late[name] - early[name] for name in late if name.startswith(kind)}


def test_updates_agree(task, runs):
    for kind in kinds_of(task):
        ours, theirs = (update_of(runs[backend][0], kind=kind) for backend in ("flax", "torch"))
        assert ours.keys() == theirs.keys()
        assert norm(theirs) > 0, kind
        assert norm({name: ours[name] - values for name, values in theirs.items()}) <= 1e-3 * norm(theirs), kind
    assert {name.partition(".")[0] for name in tensors_of(runs["torch"][0][1])} == {
        "optimizer", "ema", *(kind.removesuffix(".") for kind in kinds_of(task)[:-3])
    }  # fmt: skip


def test_curves_agree(runs):
    for ours, theirs in zip(runs["flax"][1], runs["torch"][1], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-3)
        assert ours.learning_rate == theirs.learning_rate
    assert any(metrics.grad_norm > TRAIN["optimizer"]["max_grad_norm"] for metrics in runs["torch"][1])


def test_checkpoints_have_the_same_files_names_shapes_and_scalars(runs):
    ours, theirs = (runs[backend][0][STEPS] for backend in ("flax", "torch"))
    assert {f.name for f in ours.iterdir()} == {f.name for f in theirs.iterdir()}
    for file in theirs.glob("*.safetensors"):
        shapes = [{name: (t.shape, t.dtype) for name, t in load_file(folder / file.name).items()} for folder in (ours, theirs)]
        assert shapes[0] == shapes[1]
    scalars = [json.loads((folder / "state.json").read_text()) for folder in (ours, theirs)]
    assert scalars[0].keys() == scalars[1].keys()
    assert {k: v for k, v in scalars[0].items() if k not in ("loss", "grad_norm")} == {
        k: v for k, v in scalars[1].items() if k not in ("loss", "grad_norm")
    }


def test_a_resumed_run_is_the_straight_one_bit_for_bit(task, runs, tmp_path):
    folders, history = runs["flax"]
    resumed = make_flax_trainer(task, checkpoint=folders[STEPS // 2])
    metrics = run_flax(resumed, start=STEPS // 2, stop=STEPS)
    assert metrics == history[STEPS // 2 :]
    again = saved(resumed, tmp_path / "again", metrics=metrics[-1], step=STEPS)
    for file in sorted(path.name for path in folders[STEPS].iterdir()):
        assert (again / file).read_bytes() == (folders[STEPS] / file).read_bytes(), file


@pytest.mark.parametrize("first", ["torch", "flax"])
def test_either_resumes_the_others_checkpoint(task, runs, tmp_path, first):
    middle = runs[first][0][STEPS // 2]
    make, run = (make_flax_trainer, run_flax) if first == "torch" else (make_trainer, run_torch)
    relay = make(task, checkpoint=middle)
    end = saved(relay, tmp_path / "end", metrics=run(relay, start=STEPS // 2, stop=STEPS)[-1], step=STEPS)
    ours, theirs = tensors_of(end), tensors_of(runs["torch"][0][STEPS])
    assert ours.keys() == theirs.keys()
    for kind in kinds_of(task):
        whole = update_of(runs["torch"][0], kind=kind)
        assert norm({name: ours[name] - theirs[name] for name in whole}) <= 1e-3 * norm(whole), kind


def test_a_snapshot_is_a_copy(task, runs, tmp_path):
    """Training goes on, in the same memory, while the files are written."""
    folders, history = runs["flax"]
    trainer = make_flax_trainer(task, checkpoint=folders[STEPS // 2])
    snapshot = trainer.snapshot(step=STEPS // 2, metrics=history[STEPS // 2 - 1])
    run_flax(trainer, start=STEPS // 2, stop=STEPS // 2 + 1)
    (tmp_path / "late").mkdir()
    snapshot.write_into(tmp_path / "late")
    for file in ("weights.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"):
        assert (tmp_path / "late" / file).read_bytes() == (folders[STEPS // 2] / file).read_bytes()


def test_validation_pictures_agree(task, runs, tmp_path):
    """Of the averages, by the tiny models' own sampler, which is DDIM."""
    end = runs["torch"][0][STEPS]
    pictures = {}
    for backend, make in [("torch", make_trainer), ("flax", make_flax_trainer)]:
        folder = tmp_path / backend
        folder.mkdir()
        make(task, checkpoint=end).validate(folder)
        pictures[backend] = {path.name: np.asarray(Image.open(path)).astype(int) for path in folder.iterdir()}
    assert pictures["flax"].keys() == pictures["torch"].keys() == {"00-00.png", "00-01.png", "01-00.png", "01-01.png"}
    for name, theirs in pictures["torch"].items():
        assert np.abs(pictures["flax"][name] - theirs).max() <= 1, name
        assert theirs.std() > 1


def test_another_jobs_checkpoint_is_refused(task, runs, tmp_path):
    tensors = load_file(runs["flax"][0][1] / "weights.safetensors")
    gone = min(tensors)
    del tensors[gone]
    save_file(tensors, tmp_path / "weights.safetensors")
    (tmp_path / "state.json").write_text((runs["flax"][0][1] / "state.json").read_text())
    with pytest.raises(UnsoundError, match=gone):
        make_flax_trainer(task, checkpoint=tmp_path)


def test_not_finite_is_unsound(task, runs):
    trainer = make_flax_trainer(task, checkpoint=runs["flax"][0][1])
    batch = make_flax_batch(task, step=1, micros=MICROS)
    batch.noise_MBHWC[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(UnsoundError, match="at step 2: training has diverged"):
        trainer.step(batch, step=1, stop_wanted=False).read()


def test_fp16_is_refused(models):
    with pytest.raises(UsageError, match="computes in bf16 or fp32"):
        make_flax_trainer(make_task(models / "sd1", train={"precision": "fp16"}))
