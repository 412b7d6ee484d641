import pytest

from fakes.api_server import ApiServer, Fault, LogPart
from fakes.clock import FakeClock
from fakes.cluster_objects import pod, workload
from sdjob.cluster.logs import LogReader, rank_of, unix_s
from sdjob.cluster.server import Server
from sdjob.core.errors import MissingError, SdjobError, UsageError

JOB = "/apis/batch/v1/namespaces/ml/jobs/emoji"
PODS = "/api/v1/namespaces/ml/pods"


class Shown:
    """A reader, and what it showed and told."""

    def __init__(self, server: Server, clock: FakeClock, *, rank: int = 0) -> None:
        self.lines: list[str] = []
        self.told: list[str] = []
        self.reader = LogReader("emoji", server, clock, show=self.lines.append, tell=self.told.append, rank=rank)


def stamped(second: int, line: str) -> str:
    return f"2026-01-01T00:00:{second:02d}.123456789Z {line}"


def put(mock: ApiServer, thing: dict) -> None:
    mock.put(f"{PODS}/{thing['metadata']['name']}", thing)


def ends(mock: ApiServer, *pods: dict, job: dict | None = None):
    """What happens in the cluster when a log has been read."""

    def then() -> None:
        for thing in pods:
            put(mock, thing)
        if job:
            mock.put(JOB, job)

    return then


def test_the_newest_pod_s_lines_without_their_times(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(JOB, workload())
    put(mock, pod("emoji-a", phase="Failed", exit_code=75, created="2026-01-01T00:00:00Z"))
    put(mock, pod("emoji-b", created="2026-01-01T00:01:00Z"))
    mock.logs = {"emoji-a": [LogPart([stamped(1, "old")])], "emoji-b": [LogPart([stamped(2, "one"), stamped(3, "two  words")])]}
    shown = Shown(server, clock)
    shown.reader.print_all(tail=5, every_attempt=False)
    assert shown.lines == ["one", "two  words"]
    assert mock.requests[-1][2]["tailLines"] == ["5"]


def test_every_attempt_that_is_still_there(mock: ApiServer, server: Server, clock: FakeClock):
    put(mock, pod("emoji-a", phase="Failed", exit_code=75, created="2026-01-01T00:00:00Z"))
    put(mock, pod("emoji-b", created="2026-01-01T00:01:00Z"))
    mock.logs = {"emoji-a": [LogPart([stamped(1, "old")])], "emoji-b": [LogPart([stamped(2, "new")])]}
    shown = Shown(server, clock)
    shown.reader.print_all(tail=None, every_attempt=True)
    assert shown.lines == ["old", "new"]
    assert shown.told == ["--- emoji-a", "--- emoji-b"]


def test_following_goes_on_in_the_next_pod_to_the_end(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(JOB, workload())
    put(mock, pod("emoji-a"))
    preempted = pod("emoji-a", phase="Failed", exit_code=137, disrupted="DeletionByTaintManager")
    following = pod("emoji-b", created="2026-01-01T00:09:00Z")
    done = pod("emoji-b", phase="Succeeded", exit_code=0, created="2026-01-01T00:09:00Z")
    mock.logs = {
        "emoji-a": [LogPart([stamped(1, "step 1")], then=ends(mock, preempted, following))],
        "emoji-b": [LogPart([stamped(9, "step 2")], then=ends(mock, done, job=workload(condition="Complete")))],
    }
    shown = Shown(server, clock)
    shown.reader.follow(tail=None)
    assert shown.lines == ["step 1", "step 2"]
    assert shown.told == [
        "--- emoji-a",
        "--- emoji-a ended: preempted, its node was taken away (DeletionByTaintManager)",
        "--- emoji-b",
        "--- emoji-b ended: done, everything is done",
    ]


def test_a_dropped_connection_loses_no_line_and_doubles_none(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(JOB, workload())
    put(mock, pod("emoji-a"))
    done = ends(mock, pod("emoji-a", phase="Succeeded", exit_code=0), job=workload(condition="Complete"))
    same_time = [stamped(2, "b"), stamped(2, "c")]
    mock.logs = {
        "emoji-a": [
            LogPart([stamped(1, "a"), *same_time], cut=True),
            LogPart([stamped(1, "a"), *same_time, stamped(2, "d"), stamped(3, "e")], then=done),
        ]
    }
    shown = Shown(server, clock)
    shown.reader.follow(tail=None)
    assert shown.lines == ["a", "b", "c", "d", "e"]
    assert "--- the connection broke off; asking again" in shown.told
    assert int([query for verb, path, query in mock.requests if path.endswith("/log")][1]["sinceSeconds"][0]) > 0


@pytest.mark.parametrize("status", [0, 410, 429, 503])
def test_a_server_that_stumbles_while_following(mock: ApiServer, server: Server, clock: FakeClock, status: int):
    mock.put(JOB, workload())
    put(mock, pod("emoji-a"))
    done = ends(mock, pod("emoji-a", phase="Succeeded", exit_code=0), job=workload(condition="Complete"))
    mock.logs = {"emoji-a": [LogPart([stamped(1, "a")], then=done)]}
    mock.faults = [Fault("GET", "/log", status, times=2), Fault("GET", "/pods", status), Fault("GET", "/jobs/emoji", status)]
    shown = Shown(server, clock)
    shown.reader.follow(tail=None)
    assert shown.lines == ["a"]


def test_following_waits_for_the_first_pod(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(JOB, workload())
    mock.logs = {
        "emoji-a": [
            LogPart([stamped(1, "a")], then=ends(mock, pod("emoji-a", phase="Succeeded"), job=workload(condition="Complete")))
        ]
    }
    looks: list[str] = []

    def appears(verb: str, path: str) -> None:
        looks.append(path)
        if path == PODS and looks.count(PODS) == 3:
            put(mock, pod("emoji-a"))

    mock.on_request = appears
    shown = Shown(server, clock)
    shown.reader.follow(tail=None)
    assert shown.lines == ["a"]


def test_a_pod_that_is_removed_while_its_log_is_read(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(JOB, workload())
    put(mock, pod("emoji-a"))

    def removed() -> None:
        mock.state.pop(f"{PODS}/emoji-a")
        mock.put(JOB, workload(condition="Complete"))

    mock.logs = {"emoji-a": [LogPart([stamped(1, "a")], then=removed)]}
    shown = Shown(server, clock)
    shown.reader.follow(tail=None)
    assert shown.lines == ["a"]
    assert shown.told[-1] == "--- emoji-a ended: gone, it was removed"


def test_a_failed_job_ends_following_with_its_error(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(JOB, workload(condition="Failed", reason="PodFailurePolicy", message="Container sdjob failed with exit code 64"))
    put(mock, pod("emoji-a", phase="Failed", exit_code=64))
    mock.logs = {"emoji-a": [LogPart([stamped(1, "wrong")])]}
    shown = Shown(server, clock)
    with pytest.raises(SdjobError, match="the job has failed: Container sdjob failed with exit code 64"):
        shown.reader.follow(tail=None)
    assert shown.lines == ["wrong"]


def test_no_job_and_no_pod_are_two_things(mock: ApiServer, server: Server, clock: FakeClock):
    with pytest.raises(MissingError, match="no such job"):
        Shown(server, clock).reader.print_all(tail=None, every_attempt=False)
    mock.put(JOB, workload())
    with pytest.raises(UsageError, match="no pod of it has started yet"):
        Shown(server, clock).reader.print_all(tail=None, every_attempt=False)


def test_one_pod_of_a_gang(mock: ApiServer, server: Server, clock: FakeClock):
    for index in (0, 1):
        put(mock, pod(f"emoji-node-0-{index}-x", index=index))
    mock.logs = {"emoji-node-0-1-x": [LogPart([stamped(1, "second")])]}
    shown = Shown(server, clock, rank=1)
    shown.reader.print_all(tail=None, every_attempt=False)
    assert shown.lines == ["second"]


def test_ranks_over_slices():
    pods = [pod(f"p{number}", index=number % 2) for number in range(4)]
    for number, one in enumerate(pods):
        one["metadata"]["labels"]["jobset.sigs.k8s.io/job-index"] = str(number // 2)
    assert [rank_of(one, pods=pods) for one in pods] == [0, 1, 2, 3]


def test_times_with_nanoseconds():
    assert unix_s("1970-01-01T00:01:00.250000001Z") == 60.25
    assert unix_s("1970-01-01T00:01:00Z") == 60
