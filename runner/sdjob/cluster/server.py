"""The API server: a few verbs over the official client, with plain objects in and out and errors that people can read.

The client knows how to find a cluster and how to be somebody there (kubeconfig, its plugins, a pod's own account). Its typed
models are left aside: they drop fields that are newer than the client, and JobSet and Kueue have none.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import kubernetes.client
import kubernetes.config
import urllib3

from sdjob.cluster.names import Manifest
from sdjob.cluster.refusals import UnreachableError, refusal
from sdjob.core.errors import DeniedError, UsageError
from sdjob.core.retry import Backoff, with_retries

TIMEOUT_S = (5.0, 30.0)  # to connect, and between two bytes
QUIET_S = 300.0  # a log may be silent for so long before it is asked for again
JSON = "application/json"
# The client is untyped where it matters.
client, config = cast("Any", kubernetes.client), cast("Any", kubernetes.config)


@dataclass
class Server:
    api: Any
    """The client's ApiClient."""

    namespace: str
    address: str
    backoff: Backoff

    def get(self, path: str, **query: str) -> Manifest | None:
        """None where there is no such object, or no such kind of object."""
        return self._ask("GET", path, query=query, absent_is_none=True)

    def list(self, path: str, *, selector: str | None = None, fields: str | None = None) -> list[Manifest]:
        """Every page; empty where the cluster does not know the kind."""
        query = {"labelSelector": selector, "fieldSelector": fields, "limit": "500"}
        query = {name: value for name, value in query.items() if value}
        found: list[Manifest] = []
        while True:
            page = self._ask("GET", path, query=query, absent_is_none=True) or {}
            found += page.get("items", [])
            following = page.get("metadata", {}).get("continue")
            if not following:
                return found
            query = {**query, "continue": following}

    def create(self, path: str, manifest: Manifest) -> Manifest:
        return self._ask("POST", path, body=manifest) or {}

    def patch(self, path: str, change: Manifest) -> None:
        self._ask("PATCH", path, body=change, content="application/merge-patch+json")

    def delete(self, path: str) -> bool:
        """Whether there was anything. What it owns goes first, so that a name is free only when its pods have ended."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        return self._ask("DELETE", path, body=options, absent_is_none=True) is not None

    def lines(self, path: str, **query: str) -> Iterator[str]:
        """The lines of a log, as they come. UnreachableError where the connection breaks off."""
        response = self._send("GET", path, query=query, body=None, content=JSON, timeout_s=(TIMEOUT_S[0], QUIET_S))
        if response.status >= 300:
            raise refusal(response.status, body=response.read(), verb="read", path=path, headers=response.headers)
        rest = b""
        for chunk in self._chunks(response):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode("utf-8", errors="replace") for line in whole)
        if rest:
            yield rest.decode("utf-8", errors="replace")

    def _chunks(self, response: Any) -> Iterator[bytes]:
        try:
            yield from response.response.stream(amt=None, decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"the log broke off: {error}", where=self.address) from error
        finally:
            response.response.close()

    def _ask(
        self,
        verb: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Manifest | None = None,
        content: str = JSON,
        absent_is_none: bool = False,
    ) -> Manifest | None:
        def once() -> Manifest | None:
            response = self._send(verb, path, query=query or {}, body=body, content=content, timeout_s=TIMEOUT_S)
            data = cast("bytes", response.read())
            if response.status == 404 and absent_is_none:
                return None
            if response.status >= 300:
                raise refusal(response.status, body=data, verb=verb, path=path, headers=response.headers)
            return cast("Manifest", json.loads(data))

        return with_retries(once, transient=(UnreachableError,), backoff=self.backoff)

    def _send(
        self, verb: str, path: str, *, query: dict[str, str], body: Manifest | None, content: str, timeout_s: tuple[float, float]
    ) -> Any:
        headers = {"Accept": "*/*", "Content-Type": content}
        parts = self.api.param_serialize(
            verb, path, query_params=list(query.items()), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            return self.api.call_api(*parts, _request_timeout=timeout_s)
        except urllib3.exceptions.SSLError as error:
            raise DeniedError(f"the API server's certificate is not trusted: {error}", where=self.address) from error
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(
                f"cannot reach the API server: {plain(error)}.", where=self.address, next_step="Nothing is known of the job."
            ) from error


def plain(error: Exception) -> str:
    """The cause within urllib3's nest of errors."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(reason).__name__


def connect(*, context: str | None, namespace: str | None, backoff: Backoff | None = None) -> Server:
    """From KUBECONFIG or ~/.kube/config, or from within a pod. Nothing is asked of the cluster yet."""
    configuration = client.Configuration()
    files = kubeconfig()
    try:
        if files:
            config.load_kube_config(config_file=files, context=context, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise UsageError(
            f"there is no cluster to talk to: {str(error).rstrip('.')}.",
            next_step="Set KUBECONFIG, or --context; `kubectl config get-contexts`.",
        ) from error
    configuration.retries = False  # ours know what may be repeated, and they can be watched in tests
    found = namespace or (namespace_of(files, context=context) if files else "default")
    return Server(client.ApiClient(configuration), found, configuration.host, backoff or Backoff(attempts=5))


def kubeconfig() -> str:
    """The files that exist, as the client wants them; empty where there are none."""
    named = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return os.pathsep.join(path for path in named.split(os.pathsep) if path and Path(path).is_file())


def namespace_of(files: str, *, context: str | None) -> str:
    """Where kubectl would look."""
    contexts, active = config.list_kube_config_contexts(config_file=files)
    chosen = next((one for one in contexts if one["name"] == context), active)
    return chosen["context"].get("namespace") or "default"
