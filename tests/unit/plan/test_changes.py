"""What would make a job fit: each way, said as `--set` takes it, is put into the job, and then it does."""

import shlex
from itertools import permutations

import pytest
import yaml

from sdjob.plan.changes import fitting_changes
from sdjob.plan.memory import memory_of
from sdjob.spec.job import JobSpec
from sdjob.spec.load import job_from_text
from unit.plan.jobs import SDXL, make_job, model_of

FULL = {"method": "full", "precision": "bf16", "ema": {}}
TOO_LARGE = {
    "full": make_job("nvidia-rtx-3060", train=FULL | {"device_batch": 4, "global_batch": 16}),
    "full, 24 GB": make_job("nvidia-l4:2", train=FULL | {"device_batch": 16}),
    "fp32": make_job("nvidia-l4", train={"method": "lora", "precision": "fp32", "device_batch": 16}),
    "xl": make_job("nvidia-t4", source=SDXL, px=1024, train={"method": "lora", "device_batch": 4}),
    "random crops": make_job("nvidia-rtx-3050", data={"crop": "random"}, train={"method": "lora", "device_batch": 7}),
}


def with_set(job: JobSpec, fields: list[str]) -> JobSpec:
    text = yaml.safe_dump(job.model_dump(mode="json", exclude_unset=True))
    return job_from_text(
        text, source="job.yaml", overrides=[word for field in fields for word in shlex.split(field)], environment={}
    )


@pytest.mark.parametrize("name", TOO_LARGE)
def test_each_way_fits(name):
    job = TOO_LARGE[name]
    assert memory_of(job, model=model_of(job)).fits is False
    ways = fitting_changes(job, model=model_of(job))
    assert 1 <= len(ways) <= 3
    for way in ways:
        changed = with_set(job, way.fields)
        found = memory_of(changed, model=model_of(changed))
        assert found.fits
        assert found.needed == way.needed
        assert changed.train.global_batch == job.train.global_batch
        assert way.price
        assert len(way.names) == len(way.changes)


def test_several_gpus_are_offered_to_share_the_state():
    job = make_job("nvidia-t4:4", train=FULL | {"precision": "fp16", "device_batch": 1, "global_batch": 4})
    assert ["train.fsdp=true"] in [way.fields for way in fitting_changes(job, model=model_of(job))]
    for other in ("nvidia-t4", "cpu"):
        alone = make_job(other, train=FULL | {"precision": "fp32", "device_batch": 1, "global_batch": 4})
        ways = fitting_changes(alone, model=model_of(alone))
        assert not any("train.fsdp" in way.names for way in ways)


def test_what_is_shared_and_still_too_large_is_offered_what_goes_with_that():
    job = make_job("nvidia-rtx-3050:2", train=FULL | {"fsdp": True, "device_batch": 8, "global_batch": 16})
    assert memory_of(job, model=model_of(job)).fits is False
    ways = fitting_changes(job, model=model_of(job))
    assert ways
    assert not any("train.optimizer.name" in way.names for way in ways)
    for way in ways:
        assert memory_of(with_set(job, way.fields), model=model_of(job)).fits


def test_the_cheapest_comes_first():
    job = make_job("nvidia-l4", train={"method": "lora", "device_batch": 32})
    first, *others = fitting_changes(job, model=model_of(job))
    assert first.fields == ["train.device_batch=16", "train.global_batch=32"]
    assert ["train.gradient_checkpointing=true"] in [way.fields for way in others]


def test_no_way_holds_another():
    for job in TOO_LARGE.values():
        names = [way.names for way in fitting_changes(job, model=model_of(job))]
        assert not any(one <= other for one, other in permutations(names, 2))


def test_where_nothing_helps():
    job = make_job("nvidia-gtx-1060", source=SDXL, px=256, train={"method": "lora"})
    assert memory_of(job, model=model_of(job)).fits is False
    assert fitting_changes(job, model=model_of(job)) == []


def test_a_lora_instead_is_the_last_resort():
    job = make_job("nvidia-l4", train=FULL | {"device_batch": 16})
    assert "train.method" not in set().union(*(way.names for way in fitting_changes(job, model=model_of(job))))
    small = make_job("nvidia-gtx-1060", train={"method": "full", "precision": "fp16", "ema": {}})
    assert [way.names for way in fitting_changes(small, model=model_of(small))] == [{"train.method"}]
