"""A step's shapes where the encoders have run before the training: moments in the pictures' place, states in the tokens'."""

from dataclasses import replace
from typing import Any

import jax
from flax import nnx

from sdjob.spec.encoders import captions_run_once, pictures_run_once
from sdjob.spec.job import JobSpec
from sdjob.train_flax.setup import compute_dtype
from sdjob.train_flax.step import Models, StepBatch


class Nothing(nnx.Module):
    """An encoder that is not in the program."""


def without_those_that_ran_before(models: Models, batch: StepBatch, *, job: JobSpec) -> tuple[Models, StepBatch]:
    nothing: Any = Nothing()
    dtype = compute_dtype(job.train)
    if captions_run_once(job):
        ids, width = batch.captions["ids_MBT"], models.text_encoder.config.width
        states = jax.ShapeDtypeStruct((*ids.shape, width), dtype, sharding=ids.sharding)
        models, batch = replace(models, text_encoder=nothing), replace(batch, captions={"states_MBTD": states})
    if pictures_run_once(job):
        latents = batch.noise_MBHWC
        moments = jax.ShapeDtypeStruct(latents.shape, dtype, sharding=latents.sharding)
        named: dict[str, Any] = {"mean_MBHWC": moments, "log_variance_MBHWC": moments}
        models, batch = replace(models, vae=nothing), replace(batch, pictures=named)
    return models, batch
