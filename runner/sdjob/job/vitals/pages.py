"""The two pages, and the port that an environment asks for.

/healthz is 503 only where the training itself has stood still for far longer than any of its steps: a store that hangs, a long
compilation or a slow download is not mended by a restart. Rendered manifests have no livenessProbe all the same: a kill costs
the work since the last commit, and whether a hang is worth that is for the person who is alerted to say.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

from sdjob.core.errors import UsageError
from sdjob.core.log import Log, redacted
from sdjob.job.stop import StopRequest
from sdjob.job.vitals.endpoint import Answer, Endpoint, Pages, serving
from sdjob.job.vitals.exposition import CONTENT_TYPE, exposition
from sdjob.job.vitals.signs import Vitals

PORT_NAME = "SDJOB_METRICS_PORT"  # set by `render` where run.kubernetes.metrics is true


def pages_of(vitals: Vitals, *, stop: StopRequest, secrets: tuple[str, ...]) -> Pages:
    def metrics() -> Answer:
        text = exposition(vitals.signs, job=vitals.job, unix_s=vitals.clock.unix_s(), stopping=stop.requested)
        return Answer(redacted(text, secrets=secrets), content_type=CONTENT_TYPE)

    def healthz() -> Answer:
        trouble = None if stop.requested else vitals.trouble()
        if trouble is None:
            return Answer(f"ok: {vitals.signs.phase}\n")
        return Answer(f"{trouble}\n", HTTPStatus.SERVICE_UNAVAILABLE)

    return {"/metrics": metrics, "/healthz": healthz}


@contextmanager
def metrics_served(vitals: Vitals, *, stop: StopRequest, environment: Mapping[str, str], log: Log) -> Generator[int | None]:
    """The port while it is served; None where none is asked for, or where it is taken: training is worth more than metrics."""
    port = wanted_port(environment)
    if port is None:
        yield None
        return
    try:
        endpoint = Endpoint(port, pages=pages_of(vitals, stop=stop, secrets=log.secrets), clock=vitals.clock)
    except OSError as error:
        log.warning("metrics", f"no metrics are served: port {port}: {error.strerror}", port=port)
        yield None
        return
    with serving(endpoint):
        yield endpoint.server_port


def wanted_port(environment: Mapping[str, str]) -> int | None:
    text = environment.get(PORT_NAME)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise UsageError(f"a port is a number from 0 to 65535, not {text!r}.", where=PORT_NAME, next_step="Correct or unset it.")
    return int(text)
