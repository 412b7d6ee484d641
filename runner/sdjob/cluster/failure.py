"""What Kubernetes does about the ways in which a pod ends. Pure.

One pod and a gang have opposite rules. A lost pod of its own is simply made again; one lost pod of a gang leaves peers that wait
for ever, so its Job must fail at once and the JobSet must start all of them again, without counting what nobody is guilty of.

https://kubernetes.io/docs/tasks/job/pod-failure-policy/ and https://jobset.sigs.k8s.io/docs/concepts/ (failure policy)
"""

from typing import Any

from sdjob.cluster.names import CONTAINER
from sdjob.core.errors import FINAL_EXIT_CODES, PeerLostError, StoppedError

Rule = dict[str, Any]

RETRIES = 4  # of a crash, a fault, or storage that stayed away
FINAL = list(FINAL_EXIT_CODES)
KILLED, TERMINATED = 137, 143
# In a gang: stopped, lost its peer, or killed at the end of its grace, after its peers have died of the lost collective.
INTERRUPTED = [PeerLostError.exit_code, StoppedError.exit_code, KILLED, TERMINATED]
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


def exits(action: str, *, codes: list[int]) -> Rule:
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": codes}}


def of_one_pod() -> Rule:
    """In this order: whatever a disrupted pod's exit code says, the machine was taken away."""
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": DISRUPTED},
            exits("Ignore", codes=[StoppedError.exit_code]),
            exits("FailJob", codes=FINAL),
        ]
    }


def of_gang_member() -> Rule:
    """The numbers of these rules stand in the Job's failure message, by which the JobSet tells them apart."""
    return {
        "rules": [
            {"action": "FailJob", "onPodConditions": DISRUPTED},
            exits("FailJob", codes=INTERRUPTED),
            exits("FailJob", codes=FINAL),
        ]
    }


def of_gang() -> Rule:
    """The message ends in "matching FailJob rule at index N"; what matches neither rule counts as one of maxRestarts."""
    return {
        "maxRestarts": RETRIES,
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": "interrupted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
                "onJobFailureMessagePatterns": ["at index [01]$"],
            },
            {
                "name": "final",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
                "onJobFailureMessagePatterns": ["at index 2$"],
            },
        ],
    }
