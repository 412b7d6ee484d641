"""A run that is killed and run again leaves the very files of one that was never interrupted.

Five combinations run by default; `make faults` runs a table in which every two values of every two factors meet, and the full
product of method, family, processes and workers with flips, random crops, accumulation and EMA on.
"""

import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from fakes.pairs import Row, pairwise_rows
from fakes.running import Job, Running, Workshop, wait_until

STEPS, SAVE_EVERY = 8, 3

# What to wait for before the kill.
Moment = Callable[[Job, Running], object]
MOMENTS: dict[str, Moment] = {
    "start-up": lambda job, running: running.wait_for("train"),
    "first step": lambda job, running: running.wait_for("step"),
    "save": lambda job, running: wait_until(lambda: any(job.to.glob("blob/*/*")), what="the first blob"),
    "commit": lambda job, running: running.wait_for("commit"),
    "last step": lambda job, running: running.wait_for("samples", step=STEPS),
    "last commit": lambda job, running: running.wait_for("commit", step=STEPS),
}

FACTORS: dict[str, list[Any]] = {
    "backend": ["torch", "flax"],
    "method": ["lora", "full"],
    "family": ["sd1", "sd2", "sdxl"],
    "text_encoder": [False, True],  # in the way of the method
    "processes": [1, 2, 3],  # on flax devices of one process
    "workers": [0, 2],
    "flip": [False, True],
    "crop": ["center", "random"],
    "accumulation": [1, 2],
    "ema": [None, {"decay": 0.9}],
    "fsdp": [False, True],  # for what can be spread
    "gradient_checkpointing": [False, True],
    "snr_gamma": [None, 5.0],
    "noise_offset": [0.0, 0.1],
    "dropout": [0.0, 0.2],
    "buckets": [False, True],
    "several": [False, True],
    "prior": [False, True],
    "held_out": [False, True],
    "kills": [*((moment,) for moment in MOMENTS), ("save", "commit")],
}

PLAIN: Row = {**{name: values[0] for name, values in FACTORS.items()}, "compile": False}
LORA: Row = {
    **PLAIN,
    "workers": 2,
    "flip": True,
    "crop": "random",
    "accumulation": 2,
    "dropout": 0.2,
    "buckets": True,
    "several": True,
    "prior": True,
    "held_out": True,
    "kills": ("save", "commit"),
}
FULL: Row = {
    **PLAIN,
    "method": "full",
    "family": "sd2",
    "processes": 2,
    "ema": {"decay": 0.9},
    "gradient_checkpointing": True,
    "snr_gamma": 5.0,
    "noise_offset": 0.1,
    "held_out": True,
    "kills": ("commit",),
}
SPREAD: Row = {**FULL, "fsdp": True, "accumulation": 2}
# Everything that flax has of its own to lose: dropout's keys, another attempt's compilation, encodings (none with random crops).
FLAX: Row = {**LORA, "backend": "flax", "crop": "center", "text_encoder": True, "processes": 2, "kills": ("start-up", "save")}
# Two text encoders that learn too, with dropout of their own.
SDXL: Row = {**PLAIN, "family": "sdxl", "text_encoder": True, "ema": {"decay": 0.9}}
SDXL_FULL: Row = {**SDXL, "method": "full", "gradient_checkpointing": True, "flip": True, "kills": ("commit",)}
SDXL_ON_FLAX: Row = {**SDXL, "backend": "flax", "dropout": 0.2, "crop": "random", "kills": ("commit",)}
# Dropout's draws, what is computed beside the steps, and a block that is computed twice.
COMPILED_LORA: Row = {**PLAIN, "compile": True, "dropout": 0.2, "held_out": True, "kills": ("first step", "commit")}
COMPILED_FULL: Row = {**PLAIN, "compile": True, "method": "full", "gradient_checkpointing": True, "kills": ("commit",)}

PRODUCT_FACTORS = ("method", "family", "processes", "workers")
PRODUCT: list[Row] = [
    {
        **PLAIN,
        **dict(zip(PRODUCT_FACTORS, values, strict=True)),
        "flip": True,
        "crop": "random",
        "accumulation": 2,
        "ema": {"decay": 0.9},
        "kills": ("commit",),
    }
    for values in product(*(FACTORS[name] for name in PRODUCT_FACTORS))
]


def data_fields(row: Row, *, pictures: Path) -> dict[str, Any]:
    """Several sources are one folder twice, which is enough to tell them apart."""
    again = {"source": str(pictures), "max_samples": 2, "repeats": 3, "trigger_word": "sks"}
    recipes: dict[str, dict[str, Any]] = {
        "buckets": {"data__resolution": 96, "data__buckets": {"step": 32, "min": 64, "max": 128}},
        "several": {"data__source": "", "data__sources": [{"source": str(pictures)}, again]},
        "prior": {"data__prior": {"source": str(pictures), "caption": "a shape", "weight": 0.5}},
        "held_out": {"data__held_out": {"count": 2}, "validation__loss_every_steps": 2, "validation__loss_timesteps": 2},
    }
    return {field: value for name, fields in recipes.items() if row[name] for field, value in fields.items()}


def fields_of(row: Row, *, pictures: Path) -> dict[str, Any]:
    lora = {"train__lora": {"dropout": row["dropout"]}} if row["method"] == "lora" else {}
    return {
        **lora,
        **data_fields(row, pictures=pictures),
        "family": row["family"],
        "data__flip": row["flip"],
        "data__crop": row["crop"],
        "data__caption_dropout": 0.2,
        "train__backend": row["backend"],
        "train__method": row["method"],
        "train__text_encoder": row["method"] if row["text_encoder"] else "frozen",
        "train__steps": STEPS,
        "train__global_batch": row["processes"] * row["accumulation"],
        "train__optimizer": {"learning_rate": 0.01 if row["method"] == "lora" else 0.001},
        "train__schedule": {"name": "cosine", "warmup_steps": 2},
        "train__ema": row["ema"],
        "train__fsdp": row["fsdp"] and can_be_spread(row),
        "train__gradient_checkpointing": row["gradient_checkpointing"],
        "train__compile": row.get("compile", False),
        "train__loss": {"snr_gamma": row["snr_gamma"], "noise_offset": row["noise_offset"]},
        "checkpoint__every_steps": SAVE_EVERY,
        "run__accelerator": f"cpu:{row['processes']}",
        "run__workers": row["workers"],
    }


def can_be_spread(row: Row) -> bool:
    return (row["backend"], row["method"], row["text_encoder"]) == ("torch", "full", False)


def name_of(row: Row) -> str:
    """Unique to what decides the result, and readable as a test's name."""
    changed = [name if value is True else f"{name}-{value}" for name, value in row.items() if value != PLAIN[name]]
    return "_".join(changed).translate(str.maketrans(" ", "-", "{}()'\":,")) or "plain"


def check_resume(row: Row, *, workshop: Workshop, folder: Path) -> None:
    fields = fields_of(row, pictures=workshop.pictures)
    straight = workshop.finished(f"resume-{name_of({**row, 'kills': PLAIN['kills']})}", **fields)
    job = workshop.job(folder, **fields)
    for moment in row["kills"]:
        running = job.start()
        MOMENTS[moment](job, running)
        assert running.kill().code == -signal.SIGKILL, running.output
    committed = max(job.committed_steps(), default=0)
    resumed = job.run()
    assert resumed.code == 0, resumed.output
    assert [event["start_step"] for event in resumed.of("train")] == ([committed] if committed < STEPS else [])
    assert not resumed.of("inexact")
    check_same_result(job, straight)


def check_same_result(job: Job, straight: Job) -> None:
    assert job.done_digest() == straight.done_digest()
    assert job.published() == straight.published()
    job.verified()
    expected = straight.losses()
    assert len(expected) == STEPS
    assert all(loss == expected[step] for step, loss in job.losses().items())
    held_out = straight.held_out_losses()
    assert all(loss == held_out[step] for step, loss in job.held_out_losses().items())
    assert set(held_out) == set(job.held_out_losses())


def test_a_killed_lora_run_goes_on_to_the_same_files(workshop, tmp_path):
    check_resume(LORA, workshop=workshop, folder=tmp_path / "job")


@pytest.mark.parametrize("row", [FULL, SPREAD], ids=["whole", "spread"])
def test_a_killed_full_run_of_two_processes_goes_on_to_the_same_files(workshop, tmp_path, row):
    check_resume(row, workshop=workshop, folder=tmp_path / "job")


def test_a_killed_run_on_flax_goes_on_to_the_same_files(workshop, tmp_path):
    check_resume(FLAX, workshop=workshop, folder=tmp_path / "job")


@pytest.mark.parametrize("row", [SDXL_FULL, SDXL_ON_FLAX], ids=["torch", "flax"])
def test_a_killed_run_of_sdxl_with_its_text_encoders_goes_on_to_the_same_files(workshop, tmp_path, row):
    check_resume(row, workshop=workshop, folder=tmp_path / "job")


def test_two_processes_train_as_one_does(workshop):
    runs = []
    for processes in (1, 2):
        fields = fields_of(FULL, pictures=workshop.pictures) | {"run__accelerator": f"cpu:{processes}"}
        name = name_of({**FULL, "kills": PLAIN["kills"]}) if processes == 2 else "of-one-process"
        runs.append(workshop.finished(f"resume-{name}", **fields))
    alone, together = runs
    assert together.losses() == pytest.approx(alone.losses(), rel=1e-5)
    assert together.held_out_losses() == pytest.approx(alone.held_out_losses(), rel=1e-5)
    assert (set(alone.losses()), set(alone.held_out_losses())) == (set(range(1, STEPS + 1)), {2, 4, 6, 8})


@pytest.mark.full_matrix
@pytest.mark.parametrize("row", pairwise_rows(FACTORS), ids=name_of)
def test_every_two_factors_together_resume_to_the_same_files(workshop, tmp_path, row):
    check_resume(row, workshop=workshop, folder=tmp_path / "job")


@pytest.mark.full_matrix
@pytest.mark.parametrize("row", [COMPILED_LORA, COMPILED_FULL], ids=["lora", "full"])
def test_a_killed_run_of_compiled_steps_goes_on_to_the_same_files(workshop, tmp_path, row):
    check_resume(row, workshop=workshop, folder=tmp_path / "job")


@pytest.mark.full_matrix
@pytest.mark.parametrize("row", PRODUCT, ids=name_of)
def test_every_layout_of_both_methods_and_families_resumes_to_the_same_files(workshop, tmp_path, row):
    check_resume(row, workshop=workshop, folder=tmp_path / "job")
