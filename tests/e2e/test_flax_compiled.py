"""A program is compiled once for a run, wherever its attempts are, and what was compiled before changes no result."""

FLAX = {"train__backend": "flax", "train__steps": 4, "checkpoint__every_steps": 2}
AS_QUICKLY = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def compiling(job):
    """Of the newest attempt: how many programs were made, and how many read."""
    phases = [event for event in job.ledgers()[-1].events if event["kind"] == "phase" and event["name"] == "compile"]
    assert all(phase["seconds"] > 0 for phase in phases)
    return tuple(sum(phase[kind] for phase in phases) for kind in ("new", "read"))


def programs(job):
    return sorted(path.name for path in (job.to / "cache" / "xla").rglob("*") if path.is_file())


def test_the_next_attempt_on_another_machine_compiles_nothing(workshop, tmp_path):
    job = workshop.job(tmp_path / "job", **FLAX)
    ended = job.run("train.steps=2", environment=AS_QUICKLY)
    assert ended.code == 0, ended.output
    made, read = compiling(job)
    assert made > 1
    assert len(programs(job)) == made
    before = programs(job)

    ended = job.run(environment={**AS_QUICKLY, "SDJOB_SCRATCH": str(tmp_path / "another machine")})
    assert (ended.code, ended.start_step) == (0, 2), ended.output
    made_again, read = compiling(job)
    assert (made_again, read > 1) == (0, True)
    assert programs(job) == before

    # A run that never has anything from before, and keeps nothing.
    alone = workshop.job(tmp_path / "alone", **FLAX)
    ended = alone.run(environment={**AS_QUICKLY, "JAX_ENABLE_COMPILATION_CACHE": "false"})
    assert ended.code == 0, ended.output
    assert programs(alone) == []
    assert alone.done_digest() == job.done_digest()
    assert alone.samples().popitem()[1] == job.samples().popitem()[1]
