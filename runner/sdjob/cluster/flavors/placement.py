"""What decides on which nodes a pod runs, as each kind of cluster says it."""

from dataclasses import dataclass, field
from typing import Any

from sdjob.spec.hardware import Accelerator

Toleration = dict[str, Any]

# https://kubernetes.io/docs/reference/labels-annotations-taints/#cluster-autoscaler-kubernetes-io-safe-to-evict
KEPT_BY_AUTOSCALER = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
# https://karpenter.sh/docs/concepts/disruption/#pod-level-controls
KEPT_BY_KARPENTER = {"karpenter.sh/do-not-disrupt": "true"}


@dataclass(frozen=True)
class Placement:
    node_selector: dict[str, str] = field(default_factory=dict[str, str])
    instance_types: list[str] = field(default_factory=list[str])
    """Any of these machine types; empty: any at all."""
    tolerations: list[Toleration] = field(default_factory=list[Toleration])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, str] = field(default_factory=dict[str, str])


def exists(key: str) -> Toleration:
    return {"key": key, "operator": "Exists", "effect": "NoSchedule"}


def equals(key: str, value: str) -> Toleration:
    return {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}


def device_tolerations(accelerator: Accelerator) -> list[Toleration]:
    """GKE taints its accelerators' nodes so, and elsewhere it is the custom."""
    match accelerator.kind:
        case "nvidia":
            return [exists("nvidia.com/gpu")]
        case "tpu":
            return [exists("google.com/tpu")]
        case "cpu":
            return []
