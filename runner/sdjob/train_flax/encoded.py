"""A step's shapes where the encoders have run before the training: moments in the pictures' place, states in the tokens'."""

from dataclasses import replace
from typing import Any

import jax

from sdjob.spec.encoders import captions_run_once, pictures_run_once
from sdjob.spec.job import JobSpec
from sdjob.train_flax.setup import compute_dtype
from sdjob.train_flax.step import Models, StepBatch


def without_those_that_ran_before(models: Models, batch: StepBatch, *, job: JobSpec) -> tuple[Models, StepBatch]:
    dtype = compute_dtype(job.train)
    if captions_run_once(job):
        models, batch = (
            replace(models, text=replace(models.text, parts={})),
            replace(batch, captions=encoded_captions(models, batch, dtype=dtype)),
        )
    if pictures_run_once(job):
        latents = batch.noise_MBHWC
        moments = jax.ShapeDtypeStruct(latents.shape, dtype, sharding=latents.sharding)
        named: dict[str, Any] = {"mean_MBHWC": moments, "log_variance_MBHWC": moments}
        models, batch = replace(models, vae=None), replace(batch, pictures=named)
    return models, batch


def encoded_captions(models: Models, batch: StepBatch, *, dtype: Any) -> dict[str, Any]:
    ids, configs = batch.captions["ids_MBET"], [model.config for model in models.text.parts.values()]
    rows, tokens = ids.shape[:2], ids.shape[3]

    def shaped(*axes: int) -> Any:
        return jax.ShapeDtypeStruct((*rows, *axes), dtype, sharding=ids.sharding)

    encoded = {"states_MBTD": shaped(tokens, sum(config.width for config in configs))}
    if models.text.traits.family == "sdxl":
        encoded["pooled_MBP"] = shaped(configs[-1].projection_width)
    return encoded
