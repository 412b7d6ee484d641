"""What a cloud tells a machine of its own end, over link-local HTTP. Each raises MetadataError where there is no such cloud."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

TIMEOUT_S = 1.0  # it is the next process or the next hop
MOST_BYTES = 4096  # an answer is a word or two
OK, UNAUTHORIZED, NOT_FOUND = 200, 401, 404


class MetadataError(Exception):
    """No answer, or one that this cloud does not give."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By lower-case names."""

    body: str


class Machine(Protocol):
    """A kind of machine, and where it is asked."""

    name: str
    every_s: float
    """How often to ask."""

    def notice(self) -> str | None:
        """Why this machine will be gone soon, as a clause; None while it stays."""
        ...

    def news(self) -> str | None:
        """What else is ahead of it that a person should know."""
        ...


@dataclass
class Gce:
    """https://cloud.google.com/compute/docs/instances/create-use-preemptible#detecting_if_an_instance_was_preempted"""

    host: str = "metadata.google.internal"
    name: str = "Google Compute Engine"
    every_s: float = 1.0  # of a notice of 30 s a pod on GKE has 15

    def notice(self) -> str | None:
        return "Google Compute Engine preempts this machine" if self._get("preempted") == "TRUE" else None

    def news(self) -> str | None:
        """https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice. A machine with a GPU has an hour then, in
        which training goes on: no reason to stop yet."""
        event = self._get("maintenance-event")
        return f"Google Compute Engine announces maintenance ({event})" if event.startswith("TERMINATE") else None

    def _get(self, name: str) -> str:
        answer = ask(self.host, path=f"/computeMetadata/v1/instance/{name}", headers={"Metadata-Flavor": "Google"})
        if answer.status != OK or answer.headers.get("metadata-flavor") != "Google":
            raise MetadataError(f"{self.name}: status {answer.status}")
        return answer.body.strip()


@dataclass
class Ec2:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html, with IMDSv2's tokens:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html"""

    host: str = "169.254.169.254"
    name: str = "EC2"
    every_s: float = 5.0  # as recommended there
    _token: str = field(default="", repr=False)

    def notice(self) -> str | None:
        answer = self._get("/latest/meta-data/spot/instance-action")
        if answer.status == NOT_FOUND:
            return None
        if answer.status != OK:
            raise MetadataError(f"{self.name}: status {answer.status}")
        return f"EC2 takes this spot machine back ({action_in(answer.body)})"

    def news(self) -> str | None:
        return None

    def _get(self, path: str) -> Answer:
        for _ in range(2):
            if not self._token:
                self._token = self._new_token()
            answer = ask(self.host, path=path, headers={"X-aws-ec2-metadata-token": self._token})
            if answer.status != UNAUTHORIZED:
                return answer
            self._token = ""  # it has expired
        raise MetadataError(f"{self.name}: its own token is refused")

    def _new_token(self) -> str:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        answer = ask(self.host, path="/latest/api/token", method="PUT", headers=lifetime)
        if answer.status != OK or not answer.body:
            raise MetadataError(f"{self.name}: status {answer.status}")
        return answer.body


def action_in(body: str) -> str:
    """A notice is a notice, though its words may be new."""
    try:
        told = json.loads(body)
        return f"{told['action']} at {told['time']}"
    except (ValueError, KeyError, TypeError):
        return "without a time"


def ask(host: str, *, path: str, headers: Mapping[str, str], method: str = "GET") -> Answer:
    """Straight to the host: a proxy would ask about its own machine."""
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MetadataError(f"{host}: {error}") from error
    finally:
        connection.close()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)
