"""Whose cluster it is."""

from typing import Literal

Flavor = Literal["gke", "gke-autopilot", "eks", "eks-managed", "aks", "generic"]
