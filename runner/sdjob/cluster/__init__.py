"""Kubernetes: manifests as data, and what is asked of the API server. The only importer of `kubernetes`."""
