"""The state of a run on flax, through its files and back: every tensor and count, in torch's names and layouts."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sdjob.core.errors import UnsoundError
from sdjob.train_flax.optimizer import AdamW
from sdjob.train_flax.state import TrainState, restore, snapshot, start_state

PATHS = {"unet.conv.weight": ("conv", "kernel"), "unet.proj.weight": ("proj", "kernel"), "unet.proj.bias": ("proj", "bias")}
SHAPES = {"unet.conv.weight": (3, 3, 4, 6), "unet.proj.weight": (4, 6), "unet.proj.bias": (6,)}  # ours: HWIO, IO, O


def tensors(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape, dtype=np.float32)) for name, shape in SHAPES.items()}


def state_of(first_seed, *, ema=True):
    moments = {"m": tensors(first_seed + 1), "v": tensors(first_seed + 2)}
    return TrainState(tensors(first_seed), moments, tensors(first_seed + 3) if ema else None)


def started(seed):
    return start_state(tensors(seed), ema=True, optimizer=AdamW(betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.0), paths=PATHS)


def written(folder, *, state, count=7):
    folder.mkdir()
    snapshot(state, paths=PATHS, count=count, scalars={"step": 7}).write_into(folder)
    return folder


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_everything_comes_back(tmp_path):
    state = state_of(0)
    back = restore(state_of(10), written(tmp_path / "c", state=state), paths=PATHS)
    assert back.count == 7
    assert equal(back.state.parameters, state.parameters)
    assert equal(back.state.averages, state.averages)
    for slot in "mv":
        assert equal(back.state.moments[slot], state.moments[slot]), slot


def test_files_have_torchs_names_and_layouts(tmp_path):
    state = state_of(0)
    folder = written(tmp_path / "c", state=state)
    weights = load_file(folder / "weights.safetensors")
    assert weights.keys() == SHAPES.keys()
    assert np.array_equal(weights["unet.conv.weight"], np.transpose(state.parameters["unet.conv.weight"], (3, 2, 0, 1)))
    assert np.array_equal(weights["unet.proj.weight"], np.transpose(state.parameters["unet.proj.weight"]))
    moments = load_file(folder / "optimizer.safetensors")
    assert moments.keys() == {f"optimizer.{short}.{name}" for short in "mv" for name in SHAPES}
    for slot in "mv":
        assert np.array_equal(moments[f"optimizer.{slot}.unet.proj.bias"], state.moments[slot]["unet.proj.bias"])
    assert load_file(folder / "ema.safetensors").keys() == {f"ema.{name}" for name in SHAPES}
    scalars = json.loads((folder / "state.json").read_text())
    assert scalars == {"step": 7, "optimizer_count": 7.0, "ema_count": 7, "loss_scale": None}


def test_without_ema_there_is_none(tmp_path):
    folder = written(tmp_path / "c", state=state_of(0, ema=False))
    assert not (folder / "ema.safetensors").exists()
    assert restore(state_of(10, ema=False), folder, paths=PATHS).state.averages is None


def test_before_the_first_step_there_are_no_moments(tmp_path):
    """As torch has none: they are made by the first update, and read as zero."""
    start = started(0)
    folder = written(tmp_path / "c", state=start, count=0)
    assert load_file(folder / "optimizer.safetensors") == {}
    back = restore(started(5), folder, paths=PATHS)
    assert back.state.moments.keys() == {"m", "v"}
    assert not any(values.any() for part in back.state.moments.values() for values in part.values())


def test_a_snapshot_is_a_copy(tmp_path):
    """What a CPU's array is fetched as may be its own memory, which the next step uses again."""
    state = state_of(0)
    taken = snapshot(state, paths=PATHS, count=7, scalars={})
    for name, values in taken.files["weights.safetensors"].items():
        assert not np.shares_memory(values, np.asarray(state.parameters[name]))


def test_another_jobs_checkpoint_is_refused(tmp_path):
    state = state_of(0)
    del state.parameters["unet.proj.bias"]
    with pytest.raises(UnsoundError, match=r"unet\.proj\.bias"):
        restore(state_of(10), written(tmp_path / "c", state=state), paths=PATHS)
