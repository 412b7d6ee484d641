"""What doctor looks at, in this order; the first line that failed decides the exit code."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sdjob.core.errors import SdjobError, UnavailableError, UsageError
from sdjob.core.log import Log
from sdjob.job.doctor import fit, hardware, packages
from sdjob.job.doctor.checkup import Check, Checkup
from sdjob.job.doctor.finding import Finding, failed, ok, warning
from sdjob.job.doctor.scratch import room_for, scratch
from sdjob.job.doctor.sources import Asker, Open, source_checks
from sdjob.job.doctor.targets import target_checks
from sdjob.job.machine import scratch_root
from sdjob.spec.job import JobSpec
from sdjob.spec.places import Place
from sdjob.spec.run import RunSpec
from sdjob.spec.support import unsupported
from sdjob.store.open import open_store, resolve_revision

KINDS = {"s3": Place("s3", "bucket"), "gs": Place("gs", "bucket"), "hf": Place("hf", "owner/name", hub_kind="models")}


@dataclass
class Examination:
    log: Log
    load: Callable[[], JobSpec] | None = None
    """The job as it would run here; None: the machine alone."""

    open: Open = open_store
    resolve: Callable[[Place], Place] = resolve_revision
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    job: JobSpec | None = None

    def findings(self, checkup: Checkup) -> Iterator[Finding]:
        if self.load is not None:
            yield from checkup.look(Check("job file", self._job_file))
        yield from checkup.findings(self._machine())
        yield from checkup.findings(self._of_job(self.job) if self.job else self._kinds_of_places())
        if self.job or self.load is None:
            run = self.job.run if self.job else RunSpec()
            yield from checkup.look(Check(fit.NOTICE, lambda: fit.notice(run, environment=self.environment)))

    def _job_file(self) -> Iterator[Finding]:
        assert self.load is not None
        self.job = self.load()
        train = self.job.train
        yield ok("job file", f"{self.job.name} is valid: {train.method} on {train.backend}.")
        for sentence in unsupported(self.job):
            yield failed("job file", UsageError(sentence))

    def _machine(self) -> Iterator[Check]:
        job = self.job
        names_none = job is None or job.run.accelerator is None
        yield Check("accelerator", lambda: hardware.accelerators(expected=names_none))
        if job is None or job.train.backend == "torch":
            yield Check("torch", hardware.torch_on_gpus)
        yield Check("cpu", hardware.cores)
        yield Check("memory", hardware.memory)
        yield Check("python", packages.python)
        yield Check("sdjob", packages.own)
        yield Check("packages", lambda: packages.extras(job))
        yield Check("scratch", lambda: scratch(scratch_root(job)))

    def _of_job(self, job: JobSpec) -> Iterator[Check]:
        asker = Asker(self.open, self.resolve, self.environment)
        yield Check(fit.ACCELERATOR, lambda: fit.accelerator(job))
        yield Check(fit.PRECISION, lambda: fit.precision(job))
        yield Check(fit.ATTENTION, lambda: fit.attention(job))
        yield Check(fit.COMPILE, lambda: fit.compiling(job))
        yield Check(fit.OPTIMIZER, lambda: fit.optimizer(job))
        yield from source_checks(job, asker=asker)
        yield Check("scratch", lambda: room_for(asker.to_fetch, root=scratch_root(job)))
        yield from target_checks(job, asker=asker, log=self.log)

    def _kinds_of_places(self) -> Iterator[Check]:
        for scheme, place in KINDS.items():
            yield Check(f"{scheme}://", lambda scheme=scheme, place=place: self._credentials(scheme, place))

    def _credentials(self, scheme: str, place: Place) -> Iterator[Finding]:
        """Nothing asks for them yet, so what is missing is no failure. A missing SDK stands among the packages."""
        check, asker = f"{scheme}://", Asker(self.open, self.resolve, self.environment)
        try:
            yield ok(check, f"{asker.identity(asker.store(place), scheme=place.scheme)}.")
        except UnavailableError:
            return
        except SdjobError as error:
            yield warning(check, error.what, next_step=error.next_step or "")
