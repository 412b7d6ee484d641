"""The role in k8s/ holds what the commands ask for, and no more."""

from pathlib import Path

import yaml

from fakes.api_server import ApiServer, LogPart
from fakes.clock import FakeClock
from fakes.cluster_objects import pod
from sdjob.cluster.listing import listing
from sdjob.cluster.logs import LogReader
from sdjob.cluster.look import look
from sdjob.cluster.render import rendered
from sdjob.cluster.server import Server
from sdjob.cluster.submit import cancel, submit
from unit.spec.jobs import job

ROLE = Path(__file__).parents[3] / "k8s" / "base" / "submitter.yaml"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
Right = tuple[str, str, str]


def right_of(verb: str, path: str) -> Right:
    """`(group, resource, verb)` of a request."""
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    resource, *rest = parts[parts.index("namespaces") + 2 :]
    if rest[1:] == ["log"]:
        return group, f"{resource}/log", "get"
    return group, resource, VERBS.get(verb, "get" if rest else "list")


def granted() -> set[Right]:
    (role,) = yaml.safe_load_all(ROLE.read_text())
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_role_is_what_is_asked_for(mock: ApiServer, server: Server, clock: FakeClock):
    here = "run.kubernetes={namespace: ml, queue: team}"
    gang = rendered(job(here, "name=gang", "run.accelerator=nvidia-l4", "run.nodes=2"))
    submit(rendered(job(here)), server=server, replace=False, clock=clock)
    submit(gang, server=server, replace=False, clock=clock)
    mock.put("/api/v1/namespaces/ml/pods/emoji-a", pod("emoji-a", phase="Failed", exit_code=75))
    mock.logs = {"emoji-a": [LogPart([])]}
    look("emoji", server=server, job=None)
    mock.put("/api/v1/namespaces/ml/pods/gang-a", pod("gang-a", job="gang", phase="Pending", unschedulable=""))
    look("gang", server=server, job=None)
    reader = LogReader("emoji", server, clock, show=lambda _: None, tell=lambda _: None)
    reader._follow_pod(pod("emoji-a"), tail=None)
    listing(server, everywhere=False)
    for name in ("emoji", "gang"):
        cancel(name, server=server)
    assert {right_of(verb, path) for verb, path, _ in mock.requests} == granted()
