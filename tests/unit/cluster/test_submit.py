import copy
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.api_server import ApiServer, Fault
from fakes.clock import FakeClock
from sdjob.cli.main import main
from sdjob.cluster.refusals import UnreachableError
from sdjob.cluster.render import rendered
from sdjob.cluster.server import Server
from sdjob.cluster.submit import cancel, submit, take_away
from sdjob.core.errors import DeniedError, MissingError, StorageError, UsageError
from sdjob.spec.load import resolved_yaml
from unit.spec.jobs import job

JOBS = "/apis/batch/v1/namespaces/ml/jobs"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/ml/jobsets"
MAPS = "/api/v1/namespaces/ml/configmaps"
HERE = "run.kubernetes.namespace=ml"
ONE, OTHER = rendered(job(HERE)), rendered(job(HERE, "train.seed=7", "run.kubernetes.image=other"))
GANG = rendered(job(HERE, "run.accelerator=nvidia-l4", "run.nodes=2"))


def test_the_first_time_creates_and_the_second_changes_nothing(mock: ApiServer, server: Server, clock: FakeClock):
    assert submit(ONE, server=server, replace=False, clock=clock).outcome == "created"
    before = copy.deepcopy(mock.state)
    assert submit(ONE, server=server, replace=False, clock=clock).outcome == "unchanged"
    assert mock.state == before
    assert mock.deeds("POST") == [MAPS, JOBS]


def test_the_config_map_goes_with_its_job(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    (owner,) = mock.state[f"{MAPS}/{ONE.config_map['metadata']['name']}"]["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": "emoji",
        "uid": mock.state[f"{JOBS}/emoji"]["metadata"]["uid"],
    }


def test_another_job_of_the_name_is_refused_with_what_differs(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    with pytest.raises(UsageError) as refused:
        submit(OTHER, server=server, replace=False, clock=clock)
    told = str(refused.value)
    assert "-  seed: 0" in told
    assert "+  seed: 7" in told
    assert "containers[0].image: sdjob-cpu:" in told
    assert "--replace" in told
    assert mock.deeds("DELETE") == []


def test_what_a_cluster_adds_by_itself_is_no_difference(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    live = mock.state[f"{JOBS}/emoji"]
    live["spec"]["suspend"] = False
    live["spec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
    with pytest.raises(UsageError) as refused:
        submit(OTHER, server=server, replace=False, clock=clock)
    assert "suspend" not in str(refused.value)
    assert "schedulerName" not in str(refused.value)


def test_replace_waits_until_the_old_pods_have_ended(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    lingering = mock.state[f"{JOBS}/emoji"]
    looks: list[str] = []

    def linger(verb: str, path: str) -> None:
        """Foreground deletion: the Job stays until its pods are gone."""
        if path != f"{JOBS}/emoji" or "DELETE" not in {done for done, *_ in mock.requests}:
            return
        if verb == "GET":
            looks.append(path)
        if len(looks) in {1, 2}:
            mock.state[path] = lingering
        elif len(looks) == 3:
            mock.state.pop(path, None)

    mock.on_request = linger
    assert submit(OTHER, server=server, replace=True, clock=clock).outcome == "replaced"
    assert len(looks) == 3
    assert mock.state[f"{JOBS}/emoji"]["metadata"]["annotations"]["sdjob/digest"] == OTHER.digest


def test_an_old_job_that_never_goes_is_told(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    live = mock.state[f"{JOBS}/emoji"]
    mock.on_request = lambda verb, path: mock.state.update({f"{JOBS}/emoji": live}) if verb == "GET" else None
    with pytest.raises(StorageError, match="does not go away"):
        take_away({**live, "kind": "Job"}, server=server, clock=clock)


def test_a_gang_replaces_a_job_of_the_same_name(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    submit(GANG, server=server, replace=True, clock=clock)
    assert f"{JOBS}/emoji" not in mock.state
    assert mock.state[f"{JOBSETS}/emoji"]["kind"] == "JobSet"


def test_a_stranger_s_job_is_left_alone(mock: ApiServer, server: Server, clock: FakeClock):
    mock.put(f"{JOBS}/emoji", {"metadata": {"name": "emoji"}, "spec": {}})
    with pytest.raises(UsageError, match="sdjob did not make"):
        submit(ONE, server=server, replace=True, clock=clock)
    with pytest.raises(UsageError, match="sdjob did not make"):
        cancel("emoji", server=server)


@pytest.mark.parametrize("status", [0, 410, 429, 500, 503])
def test_a_lost_answer_makes_no_second_job(mock: ApiServer, server: Server, clock: FakeClock, status: int):
    mock.faults = [Fault("POST", "/jobs", status, after=True), Fault("POST", "/configmaps", status, after=True)]
    assert submit(ONE, server=server, replace=False, clock=clock).outcome == "created"
    assert [path for path in mock.state if path.startswith(JOBS)] == [f"{JOBS}/emoji"]
    assert mock.deeds("POST") == [MAPS, MAPS, JOBS, JOBS]


def test_two_at_once_agree_where_they_want_the_same(mock: ApiServer, server: Server, clock: FakeClock):
    def faster(verb: str, path: str) -> None:
        if (verb, path) == ("POST", JOBS):
            mock.on_request = None
            mock.put(f"{JOBS}/emoji", ONE.workload)

    mock.on_request = faster
    assert submit(ONE, server=server, replace=False, clock=clock).outcome == "created"
    mock.state.clear()
    mock.on_request = faster
    with pytest.raises(UsageError, match="already exists"):
        submit(OTHER, server=server, replace=False, clock=clock)


def test_an_api_server_that_stays_away_is_unreachable(mock: ApiServer, server: Server, clock: FakeClock):
    mock.faults = [Fault("GET", "", 0, times=99)]
    with pytest.raises(UnreachableError, match="cannot reach the API server") as lost:
        submit(ONE, server=server, replace=False, clock=clock)
    assert lost.value.exit_code == 74
    assert len(mock.deeds("GET")) == 4


def test_what_is_forbidden_says_which_right_is_missing(mock: ApiServer, server: Server, clock: FakeClock):
    mock.faults = [Fault("POST", "/jobs", 403, message='jobs.batch is forbidden: User "me" cannot create resource')]
    with pytest.raises(DeniedError) as denied:
        submit(ONE, server=server, replace=False, clock=clock)
    assert denied.value.exit_code == 77
    assert "cannot create resource" in str(denied.value)
    assert "kubectl auth can-i create jobs.batch -n ml" in str(denied.value)


def test_somebody_unknown_is_told_to_log_in(mock: ApiServer, server: Server):
    mock.faults = [Fault("GET", "/jobs", 401)]
    with pytest.raises(DeniedError, match="does not know who you are"):
        cancel("emoji", server=server)


def test_a_gang_without_the_jobset_controller(mock: ApiServer, server: Server, clock: FakeClock):
    mock.unknown_kinds = {"jobsets"}
    with pytest.raises(MissingError, match="no JobSet controller"):
        submit(GANG, server=server, replace=False, clock=clock)
    assert submit(ONE, server=server, replace=False, clock=clock).outcome == "created"


def test_a_namespace_that_is_not_there(mock: ApiServer, server: Server, clock: FakeClock):
    mock.faults = [Fault("POST", "", 404, message='namespaces "ml" not found')]
    with pytest.raises(MissingError, match='namespaces "ml" not found'):
        submit(ONE, server=server, replace=False, clock=clock)


def test_what_an_admission_webhook_refuses(mock: ApiServer, server: Server, clock: FakeClock):
    mock.faults = [Fault("POST", "/jobs", 422, message="spec.template is invalid")]
    with pytest.raises(UsageError, match="template is invalid"):
        submit(ONE, server=server, replace=False, clock=clock)


def test_cancel(mock: ApiServer, server: Server, clock: FakeClock):
    submit(ONE, server=server, replace=False, clock=clock)
    cancel("emoji", server=server)
    assert f"{JOBS}/emoji" not in mock.state
    with pytest.raises(MissingError, match="no such job in namespace ml"):
        cancel("emoji", server=server)


def test_pages_are_put_together(mock: ApiServer, server: Server):
    mock.page_size = 2
    for number in range(5):
        mock.put(f"{JOBS}/j{number}", {"metadata": {"name": f"j{number}"}})
    assert len(server.list(JOBS)) == 5


# ---- the command line ------------------------------------------------------------------------------------------------------


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(resolved_yaml(job(HERE, "run.accelerator=cpu")))
    return str(path)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the client keeps its connections until the process ends
def test_from_submit_to_cancel(mock: ApiServer, job_file: str, capsys: pytest.CaptureFixture[str]):
    assert main(["submit", job_file]) == 0
    assert main(["submit", job_file, "--json"]) == 0
    assert main(["list"]) == 0
    assert main(["list", "-A", "--json"]) == 0
    assert main(["submit", job_file, "--set", "train.seed=9"]) == 64
    assert main(["cancel", "emoji"]) == 0
    assert main(["list"]) == 0
    told = capsys.readouterr()
    out = told.out.splitlines()
    assert out[0] == "job/emoji created"
    assert json.loads(out[1]) == {"name": "emoji", "namespace": "ml", "kind": "Job", "outcome": "unchanged", "state": "pending"}
    assert out[2].split() == ["name", "namespace", "kind", "state", "created"]
    assert out[3].split()[:4] == ["emoji", "ml", "Job", "pending"]
    assert out[-1] == "job/emoji is being taken away"
    assert "planted-kubeconfig-token" not in told.out + told.err
    assert "there are no jobs of sdjob's in namespace ml" in told.err


# ---- what it will take, and whether that is wanted -------------------------------------------------------------------------


PRICED = ["--set", "run.accelerator=nvidia-l4", "--set", "model.source=hf://stable-diffusion-v1-5/stable-diffusion-v1-5"]


class Person(io.StringIO):
    """At a terminal, and writes this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Person]:
    def say(line: str) -> Person:
        person = Person(line)
        monkeypatch.setattr("sys.stdin", person)
        return person

    return say


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("answer", ["y\n", "Yes\n", "\n", "", "no\n"])
def test_a_person_is_asked(mock: ApiServer, job_file: str, says, capsys, answer: str):
    says(answer)
    agreed = answer.lower().startswith("y")
    assert main(["--log", "text", "submit", job_file, *PRICED]) == (0 if agreed else 75)
    told = capsys.readouterr().err
    assert told.index("GiB") < told.index("Submit it? [y/N] ")
    assert mock.deeds("POST") == ([MAPS, JOBS] if agreed else [])


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_yes_is_not_asked(mock: ApiServer, job_file: str, says, capsys):
    person = says("no\n")
    assert main(["submit", job_file, "--yes"]) == 0
    assert "Submit it?" not in capsys.readouterr().err
    assert person.tell() == 0


def test_a_limit_that_is_passed_submits_nothing(mock: ApiServer, job_file: str, capsys):
    assert main(["submit", job_file, *PRICED, "--yes", "--budget", "0.000001"]) == 64
    assert "--budget 1e-06: it may cost" in capsys.readouterr().err
    assert mock.deeds("POST") == []


def test_without_a_cluster(job_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert main(["submit", job_file]) == 64
    assert "there is no cluster to talk to" in capsys.readouterr().err


def test_without_the_client(job_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delitem(__import__("sys").modules, "sdjob.cluster.server", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)
    monkeypatch.setitem(__import__("sys").modules, "kubernetes.client", None)
    assert main(["submit", job_file]) == 69
    assert "pip install 'sdjob[k8s]'" in capsys.readouterr().err
