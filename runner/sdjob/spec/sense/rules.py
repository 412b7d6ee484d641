"""The table of the rules about combinations. Each takes a job and yields what is wrong, with the fields that it looked at."""

from collections.abc import Callable, Iterator

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding
from sdjob.spec.sense import cluster, encoders, fsdp, kernels, length, machines, output, pictures, places, pods, recipes

Rule = Callable[[JobSpec], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    places.are_places,
    places.revisions,
    places.hub_kinds,
    places.are_no_repositories,
    places.apart,
    pictures.one_or_several,
    pictures.columns,
    pictures.held_out,
    pictures.buckets,
    length.one_length,
    length.warmup,
    length.schedule_extras,
    length.step_rules,
    machines.accelerator,
    machines.counts,
    machines.batch,
    cluster.accelerators,
    cluster.slices,
    cluster.gang_names,
    cluster.spot,
    cluster.sizes,
    pods.names,
    pods.labels,
    pods.variables,
    pods.volumes,
    pods.tolerations,
    kernels.backend,
    kernels.precision,
    kernels.attention,
    kernels.compiling,
    kernels.optimizer,
    recipes.one_file,
    recipes.zero_terminal_snr,
    recipes.optimizer,
    recipes.dora,
    recipes.learning_rate_pattern,
    recipes.patterns,
    encoders.lora_block,
    encoders.text_encoder,
    encoders.cache,
    fsdp.fsdp,
    output.commits,
    output.validation,
    output.publishing,
    output.trackers,
)


def findings_about(job: JobSpec) -> Iterator[Finding]:
    for rule in RULES:
        yield from rule(job)
