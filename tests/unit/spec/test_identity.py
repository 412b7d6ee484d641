import json

import pytest

from sdjob.spec.identity import explain_difference, identity_hash, identity_parts, rounding_part, steps_may_grow
from sdjob.spec.job import JobSpec
from unit.spec.jobs import job

HASHES = {"unet/diffusion_pytorch_model.safetensors": "ab"}


def hash_of(made: JobSpec, *, index: str = "1", hashes: dict[str, str] = HASHES) -> str:
    return identity_hash(identity_parts(made, model_hashes=hashes, index_sha256=index))


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "model.source=elsewhere",
        "data.source=elsewhere",
        "train.device_batch=1",
        "train.attention=xformers",
        "train.deterministic=true",
        "train.gradient_checkpointing=true",
        "train.cache=never",
        "train.backend=flax",
        "train.steps=200",
        "train.init_from=weights",
        "checkpoint.to=other",
        "publish.0.to=out",
        "track=[wandb]",
        "validation.prompts=[a]",
        "run={accelerator: nvidia-l4, workers: 0}",
        "model.source=hf://a/b@v1",
    ],
)
def test_what_may_change(override: str):
    assert hash_of(job(override, "train.global_batch=4")) == hash_of(job("train.global_batch=4"))


@pytest.mark.parametrize(
    "override",
    [
        "train.seed=1",
        "train.global_batch=2",
        "train.lora.rank=8",
        "train.optimizer.learning_rate=1e-5",
        "train.precision=fp32",
        "train.method=full",
        "train.ema={}",
        "train.loss.snr_gamma=5",
        "data.resolution=64",
        "data.flip=true",
        "data.caption_column=caption",
        "data.max_samples=5",
        "train.schedule={name: constant_with_warmup, warmup_steps: 5}",
    ],
)
def test_what_may_not_change(override: str):
    assert hash_of(job(override)) != hash_of(job())


SEVERAL = "data={sources: [{source: a, repeats: 3}, {source: b}], prior: {source: c, caption: c}, held_out: {source: d}}"


@pytest.mark.parametrize(
    "override",
    ["data.sources.0.source=hf://a/b", "data.sources.1.config=x", "data.prior.source=z", "data.held_out.source=s3://bucket/y"],
)
def test_each_of_several_places_may_move(override: str):
    assert hash_of(job(SEVERAL, override)) == hash_of(job(SEVERAL))


@pytest.mark.parametrize(
    "override",
    [
        "data.sources.0.repeats=2",
        "data.sources.1.caption_prefix=a",
        "data.sources.1.trigger_word=a",
        "data.sources.1.split=a",
        "data.prior.caption=z",
        "data.prior.weight=0.5",
        "data.held_out={share: 0.5}",
    ],
)
def test_what_is_said_of_each_counts(override: str):
    assert hash_of(job(SEVERAL, override)) != hash_of(job(SEVERAL))


def test_what_nobody_uses_is_not_in_it():
    """The runs of the version before had no such fields, and go on."""
    data = identity_parts(job(), model_hashes=HASHES, index_sha256="1")["data"]
    assert data.keys().isdisjoint({"sources", "held_out", "caption_prefix", "trigger_word"})


def test_the_order_of_patterns_counts():
    """The first that matches does."""
    one, other = (f"train.lora={{rank_pattern: {{{order}}}}}" for order in ("a: 2, b: 3", "b: 3, a: 2"))
    assert hash_of(job(one)) != hash_of(job(other))


def test_where_the_average_lies_does_not_count():
    assert hash_of(job("train.ema={decay: 0.9, offload: true}")) == hash_of(job("train.ema={decay: 0.9}"))


def test_files_and_pictures_count():
    assert hash_of(job(), index="2") != hash_of(job())
    assert hash_of(job(), hashes={"unet/other.safetensors": "ab"}) != hash_of(job())


def test_steps_count_where_the_schedule_depends_on_them():
    cosine = "train.schedule.name=cosine"
    assert hash_of(job(cosine)) != hash_of(job(cosine, "train.steps=200"))
    assert not steps_may_grow(job(cosine))
    assert steps_may_grow(job("train.schedule={name: constant_with_warmup, warmup_steps: 5}"))


def test_the_hash_stays_the_same_from_version_to_version():
    parts = {"train": {"seed": 0, "rate": 1e-4}, "apiVersion": "sdjob/v1"}
    assert identity_hash(parts) == "432bf8d7909d846e8e99afb422ac3eacbae57563f6d3cc69be0a9dc5fd291f5c"


def test_differences_are_readable():
    old = identity_parts(job(), model_hashes=HASHES, index_sha256="1")
    new = identity_parts(job("train.lora.rank=8", "train.ema={decay: 0.9}"), model_hashes={}, index_sha256="1")
    assert explain_difference(old, old) == []
    assert explain_difference(json.loads(json.dumps(old)), old) == []
    assert explain_difference(old, new) == [
        "train.lora.rank: 4 -> 8",
        "train.lora.alpha: 4.0 -> 8.0",
        "train.ema: null -> absent",
        'model_files.unet/diffusion_pytorch_model.safetensors: "ab" -> absent',
        "train.ema.decay: absent -> 0.9",
        "model_files: absent -> {}",
    ]


def test_changes_to_rounding():
    old = job("train.global_batch=4")
    new = job("train.global_batch=4", "train.device_batch=2", "run.accelerator=cpu", "run.max_hours=3", "train.seed=5")
    assert explain_difference(rounding_part(old), rounding_part(new)) == ["train.device_batch: 1 -> 2"]


def test_compiled_steps_are_the_same_run_to_rounding():
    eager, compiled = job(), job("train.compile=true")
    parts = [identity_parts(one, model_hashes=HASHES, index_sha256="1") for one in (eager, compiled)]
    assert parts[0] == parts[1]
    assert explain_difference(rounding_part(eager), rounding_part(compiled)) == ["train.compile: absent -> true"]
    assert "compile" not in rounding_part(eager)["train"], "runs that older versions began know no such field"


def test_a_state_that_is_spread_is_the_same_run_to_rounding():
    whole, spread = job("train.method=full"), job("train.method=full", "train.fsdp=true")
    parts = [identity_parts(one, model_hashes=HASHES, index_sha256="1") for one in (whole, spread)]
    assert parts[0] == parts[1]
    assert explain_difference(rounding_part(whole), rounding_part(spread)) == ["train.fsdp: absent -> true"]
    assert "fsdp" not in rounding_part(whole)["train"], "runs that older versions began know no such field"
