"""What makes two jobs the same run: the parts that decide the weights, and nothing else. Pure."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from sdjob.spec.job import JobSpec

# Places may move as long as their content is equal; revision and configuration are part of where a source lies, since a copy of
# one configuration in a bucket has neither. The index has the content, and every picture of it is verified. `split` stays in: a
# job that asks for another one is another job, which a person should be told before pictures are looked for.
DATA_PLACES = {"source", "revision", "config"}
# Absent while nobody uses them, so that the runs of an older version go on.
LATER_FIELDS = {"sources", "held_out", "caption_prefix", "trigger_word", "fsdp", "compile"}
# Fields of `train` that change the order of additions at most, so that going on is right "to rounding".
ROUNDING_FIELDS = ("backend", "device_batch", "attention", "deterministic", "gradient_checkpointing", "cache", "fsdp", "compile")
LENGTH_FIELDS = ("steps", "epochs")
# Of these schedules the learning rate at a step does not depend on how many steps there will be.
ENDLESS_SCHEDULES = {"constant", "constant_with_warmup", "piecewise_constant"}
# Of `train.lora`: the first of several patterns counts, and mappings are compared without their order.
ORDERED_FIELDS = {"rank_pattern", "alpha_pattern", "learning_rate_pattern"}
ABSENT = object()


def identity_parts(job: JobSpec, *, model_hashes: Mapping[str, str], index_sha256: str) -> dict[str, Any]:
    """A nested plain dict, for the hash and for the readable difference.

    `model_hashes`: of every file that weights come from, `train.init_from` included; they stand for `model`.
    """
    return {
        "apiVersion": job.apiVersion,
        "data": data_part(job),
        "train": train_part(job),
        "model_files": dict(sorted(model_hashes.items())),
        "index_sha256": index_sha256,
    }


def data_part(job: JobSpec) -> dict[str, Any]:
    part = job.data.model_dump(mode="json", exclude=DATA_PLACES)
    holders: list[dict[str, Any] | None] = [part["prior"], part["held_out"], *part["sources"]]
    for holder in holders:
        if holder is not None:
            for name in DATA_PLACES:
                del holder[name]
    return {name: value for name, value in part.items() if name not in LATER_FIELDS or value}


def train_part(job: JobSpec) -> dict[str, Any]:
    out = {"init_from", *ROUNDING_FIELDS}
    if steps_may_grow(job):
        out |= set(LENGTH_FIELDS)
    if job.train.method == "full":
        out.add("lora")
    part = job.train.model_dump(mode="json", exclude=out)
    if part["ema"]:
        del part["ema"]["offload"]  # where the average lies is not what it is
    for field in ORDERED_FIELDS & part.get("lora", {}).keys():
        part["lora"][field] = list(part["lora"][field].items())
    return part


def steps_may_grow(job: JobSpec) -> bool:
    """Whether more steps leave the steps that were done as they are."""
    return job.train.schedule.name in ENDLESS_SCHEDULES


def identity_hash(parts: Mapping[str, Any]) -> str:
    """sha256 in hexadecimal of the parts as JSON with sorted keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def explain_difference(old_parts: Mapping[str, Any], new_parts: Mapping[str, Any]) -> list[str]:
    """One line for each field that differs, as `train.lora.rank: 4 -> 8`."""
    old, new = dict(leaves(old_parts)), dict(leaves(new_parts))
    return [
        f"{path}: {spelled(old.get(path, ABSENT))} -> {spelled(new.get(path, ABSENT))}"
        for path in dict.fromkeys([*old, *new])
        if old.get(path, ABSENT) != new.get(path, ABSENT)
    ]


def rounding_part(job: JobSpec) -> dict[str, Any]:
    """What is not in the identity, and yet changes the order of additions. Devices are in a run's fingerprint."""
    part = job.train.model_dump(mode="json", include=set(ROUNDING_FIELDS))
    return {"train": {name: value for name, value in part.items() if name not in LATER_FIELDS or value}}


def leaves(value: Any, *, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of nested mappings by its full name; a list counts as one value."""
    if isinstance(value, Mapping) and value:
        for key, inner in cast("Mapping[str, Any]", value).items():
            yield from leaves(inner, path=f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def spelled(value: Any) -> str:
    return "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False)
