"""The table of flavors."""

from typing import Protocol

from sdjob.cluster.flavors import aks, eks, generic, gke
from sdjob.cluster.flavors.placement import Placement
from sdjob.spec.flavor import Flavor
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec


class Place(Protocol):
    def __call__(self, job: JobSpec, *, accelerator: Accelerator) -> Placement: ...


FLAVORS: dict[Flavor, Place] = {
    "gke": gke.standard,
    "gke-autopilot": gke.autopilot,
    "eks": eks.karpenter,
    "eks-managed": eks.managed,
    "aks": aks.pools,
    "generic": generic.nodes,
}
